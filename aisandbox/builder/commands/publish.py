"""Hand images and listings to the marketplaces."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(publish)


def publish(
    target: Annotated[str, typer.Argument(help="Name of the platform.")],
    image: Annotated[str, typer.Option(help="The image's id there, as `make image` printed it.")] = "",
    confirm: Annotated[bool, typer.Option("--confirm", help="Send it.")] = False,
) -> None:
    """Show what a marketplace would be sent, and send it with --confirm."""
    # AWS's library takes half a second, which no other command shall wait for.
    from aisandbox.builder.publish import service

    change = service.plan(target, image, os.environ)
    print(f"{change.request}\n{json.dumps(change.body, indent=2, ensure_ascii=False)}", flush=True)
    if confirm:
        answer = service.send(target, change, os.environ, lambda line: typer.echo(line, err=True))
        print(f"Sent. The answer, also in {service.record(target)}:\n{json.dumps(answer, indent=2)}")
        return
    absent = service.missing(target, os.environ)
    if absent:
        typer.echo(f"Not set yet: {', '.join(absent)}", err=True)
    typer.echo(f"Nothing was sent. To send it: make publish TARGET={target} IMAGE={image} CONFIRM=yes", err=True)
