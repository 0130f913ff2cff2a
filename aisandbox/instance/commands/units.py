"""Commands that systemd runs."""

from __future__ import annotations

import typer


def model_fetch(context: typer.Context) -> None:
    """Bring the planned model to this instance (aisandbox-model.service)."""
    from aisandbox.instance import model

    model.fetch(context.obj.places)


def engine_sync(context: typer.Context) -> None:
    """Restart the engine when it serves something else than it should (aisandbox-engine-sync.service)."""
    from aisandbox.instance import engine_sync as syncing

    print("Restarting the engine." if syncing.sync(context.obj.places) else "The engine needs no restart.")


def status_publish(context: typer.Context) -> None:
    """Keep the published state up to date (aisandbox-status.service)."""
    from aisandbox.instance import publisher

    publisher.publish(context.obj.places, context.obj.manifest)
