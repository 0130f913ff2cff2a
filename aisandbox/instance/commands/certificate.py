"""The command that aisandbox-certificate.service runs."""

from __future__ import annotations

import typer


def certificate(context: typer.Context) -> None:
    """Keep the HTTPS certificate of the domain, if there is one (aisandbox-certificate.service)."""
    from aisandbox.instance.guard import certificate as keeping

    keeping.main(context.obj.places, context.obj.manifest)
