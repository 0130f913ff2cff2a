"""Commands that look: status, logs, login message."""

from __future__ import annotations

import contextlib
import grp
import os
import subprocess
from typing import Annotated

import typer

from aisandbox.instance.commands.console import BAD_INPUT, say

LINES = 100
"""How many of the last lines `logs` shows, unless told."""


def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table up to date until interrupted.")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="Show where the time since power-on went.")] = False,
    wait: Annotated[
        int | None, typer.Option(min=0, help="Wait up to so many seconds until chat and API answer.")
    ] = None,
) -> None:
    """Show what is served, where, and anything that needs attention."""
    from aisandbox.instance.observe import status as statuses

    places, manifest = context.obj.places, context.obj.manifest
    if watch:
        from aisandbox.instance.observe import table

        table.watch(lambda: statuses.compose(places, manifest, with_timeline=timeline), timeline)
        return
    detailed = timeline or as_json
    if wait is not None:
        statuses.wait(places, manifest, wait)
    overview = statuses.compose(places, manifest, with_timeline=detailed)
    if as_json:
        print(overview.model_dump_json(indent=1))
    else:
        from aisandbox.instance.observe import table

        table.show(overview, timeline)
    if wait is not None and not overview.ready:
        raise typer.Exit(1)


def logs(
    context: typer.Context,
    service: Annotated[
        str | None, typer.Argument(help="One service, such as vllm, or sandbox for all of its. Without it, everything.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on, such as today, -10min or '2026-11-22 08:00'.")
    ] = None,
) -> None:
    """Show the services' journal."""
    from aisandbox.instance.run import services

    container = context.obj.places.container
    if container and os.geteuid() != 0:
        say("Only root may read the logs: use sudo aisandbox logs.")
        raise typer.Exit(1)
    if not container and not _reads_journal():
        say(
            "Only root and members of the groups adm and systemd-journal may read the journal: use sudo aisandbox logs."
        )
        raise typer.Exit(1)
    units = (*services.SERVICES, services.STATUS, services.CERTIFICATE)
    names: dict[str, tuple[str, ...]] = {"sandbox": services.SANDBOX}
    names |= {unit.removesuffix(".service").removeprefix("aisandbox-"): (unit,) for unit in units}
    if service and service not in names:
        say(f"There is no service {service}. The services are {', '.join(names)}.")
        raise typer.Exit(BAD_INPUT)
    if container:
        _files(names[service] if service else services.SERVICES, follow, lines or LINES, since)
        return
    # From a given time on, all of it is wanted.
    count = lines or (None if since else LINES)
    command = ["journalctl", "--output=short-iso"]
    command += [f"--lines={count}"] if count else ["--lines=all"] if follow else []
    command += [f"--since={since}"] if since else []
    command += [f"--unit={unit}" for unit in (names[service] if service else services.SERVICES)]
    raise typer.Exit(subprocess.call(command + (["--follow"] if follow else [])))


def _files(units: tuple[str, ...], follow: bool, lines: int, since: str | None) -> None:
    """The same in a container, which has no journal."""
    from aisandbox.instance.run.container import logs
    from aisandbox.instance.run.container.catalogue import Catalogue

    if since:
        say("Logs bear no times in a container: its engine knows them, such as docker logs --since.")
        raise typer.Exit(BAD_INPUT)
    catalogue = Catalogue.here()
    programs = [name for unit in units if catalogue.log(name := unit.removesuffix(".service")).exists()]
    for line in logs.follow(catalogue, programs, lines) if follow else logs.read(catalogue, programs, lines):
        print(line, flush=True)


def motd(context: typer.Context) -> None:
    """Print the message of the day for logins."""
    from aisandbox.instance.observe import publisher
    from aisandbox.instance.observe import status as statuses

    places, manifest = context.obj.places, context.obj.manifest
    template = (places.templates / "motd.txt.j2").read_text(encoding="utf-8")
    print(publisher.motd(template, statuses.compose(places, manifest), manifest))


def _reads_journal() -> bool:
    """Whether this user may read other users' journals."""
    groups = set()
    for name in ("adm", "systemd-journal"):
        with contextlib.suppress(KeyError):
            groups.add(grp.getgrnam(name).gr_gid)
    return os.geteuid() == 0 or bool(groups & {os.getegid(), *os.getgroups()})
