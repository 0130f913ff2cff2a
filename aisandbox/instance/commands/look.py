"""Commands that look: status, logs, login message."""

from __future__ import annotations

import subprocess
from typing import Annotated

import typer

from aisandbox.instance.commands.console import BAD_INPUT, say


def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table up to date until interrupted.")] = False,
    wait: Annotated[
        int | None, typer.Option(min=0, help="Wait up to so many seconds until chat and API answer.")
    ] = None,
) -> None:
    """Show what is served, where, and anything that needs attention."""
    from aisandbox.instance import status as statuses

    places, manifest = context.obj.places, context.obj.manifest
    if watch:
        from aisandbox.instance import table

        table.watch(lambda: statuses.compose(places, manifest))
        return
    overview = statuses.compose(places, manifest) if wait is None else statuses.wait(places, manifest, wait)
    if as_json:
        print(overview.model_dump_json(indent=1))
    else:
        from aisandbox.instance import table

        table.show(overview)
    if wait is not None and not overview.ready:
        raise typer.Exit(1)


def logs(
    context: typer.Context,
    service: Annotated[str | None, typer.Argument(help="One service, such as vllm. Without it, all of them.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
) -> None:
    """Show the services' journal."""
    from aisandbox.instance import systemd

    names = {unit.removesuffix(".service").removeprefix("aisandbox-"): unit for unit in systemd.SERVICES}
    if service and service not in names:
        say(f"There is no service {service}. The services are {', '.join(names)}.")
        raise typer.Exit(BAD_INPUT)
    chosen = [names[service]] if service else list(systemd.SERVICES)
    command = ["journalctl", "--output=short-iso", f"--lines={lines}", *(f"--unit={unit}" for unit in chosen)]
    raise typer.Exit(subprocess.call(command + (["--follow"] if follow else [])))


def motd(context: typer.Context) -> None:
    """Print the message of the day for logins."""
    from aisandbox.instance import rendering
    from aisandbox.instance import status as statuses

    places, manifest = context.obj.places, context.obj.manifest
    overview = statuses.compose(places, manifest)
    template = (places.templates / "motd.txt.j2").read_text(encoding="utf-8")
    print(rendering.fill(template, {"status": overview, "manifest": manifest}))
