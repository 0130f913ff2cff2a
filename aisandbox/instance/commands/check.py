"""The command that looks at the running instance as a marketplace would."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aisandbox.instance.commands.console import BAD_INPUT, say


def check(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask package mirrors for security updates.")
    ] = False,
) -> None:
    """Look for what makes this instance unsafe: open ports, failed units, passwords, pending updates."""
    from aisandbox import check as checks
    from aisandbox.instance.access import Access
    from aisandbox.instance.deployment import Deployment

    manifest, places = context.obj.manifest, context.obj.places
    deployment = Deployment.find(places.resolved)
    access = deployment.access if deployment else Access()
    settings = checks.Settings.of(manifest, stage="instance", live=places.live, online=not offline)
    # What the owner has opened may be reached.
    chosen = {"http": bool(access.domain), "https": bool(access.domain), "sandbox": access.sandbox == "public"}
    opened = tuple(manifest.ports[name].port for name, is_open in chosen.items() if is_open)
    try:
        report = checks.run(
            Path(places.root), settings.but(ports=settings.ports + opened), subject=manifest.product.name
        )
    except PermissionError:
        say("This looks at everything, so it needs root: sudo aisandbox check")
        raise typer.Exit(BAD_INPUT) from None
    checks.print_report(report, as_json)
    raise typer.Exit(int(report.failed))
