"""The `aisandbox` command on the appliance."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aisandbox import manifest as manifests

if TYPE_CHECKING:
    from aisandbox.instance.configure import Outcome
    from aisandbox.instance.places import Places
    from aisandbox.manifest import Manifest

# The commands import their own modules: `configure` is on the way to the first answer, and must not wait for
# what only `model-fetch` needs.

app = typer.Typer(
    name="aisandbox",
    help="See and change what this AI Sandbox serves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

BAD_INPUT = 2


class Context:
    """What every command needs: the manifest, and the places it names."""

    def __init__(self, root: Path) -> None:
        from aisandbox.instance.places import Places

        self.manifest: Manifest = manifests.load()
        self.places: Places = Places.of(self.manifest, root)


@app.callback()
def _main(
    context: typer.Context,
    root: Annotated[Path, typer.Option(hidden=True, help="Work on the appliance below this folder.")] = Path("/"),
) -> None:
    context.obj = Context(root)


@app.command()
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


@app.command()
def configure(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Model to serve, as ORGANISATION/NAME.")] = None,
    max_model_len: Annotated[str | None, typer.Option(help="Context length in tokens.")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any option.")] = None,
    unset: Annotated[list[str] | None, typer.Option(metavar="KEY", help="Return an option to its default.")] = None,
    boot: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Change options, or apply the options file again after editing it."""
    from aisandbox.instance import configure as configuring
    from aisandbox.instance.options import InvalidOptionError

    places, manifest = context.obj.places, context.obj.manifest
    if boot:
        _tell(configuring.apply_safely(places, manifest))
        return
    _need_root(places)
    try:
        values = dict(_assignment(text) for text in assignments or ())
        values |= {
            key: value for key, value in (("model", model), ("max_model_len", max_model_len)) if value is not None
        }
        if values or unset:
            edit = configuring.edit(places, manifest, values, tuple(unset or ()))
            if edit.diff:
                print(edit.diff)
                configuring.save(places, edit)
    except InvalidOptionError as invalid:
        _say(f"{invalid} {invalid.fix} Nothing was changed.")
        raise typer.Exit(BAD_INPUT) from None
    outcome = configuring.apply(places, manifest)
    _tell(outcome)
    services = configuring.services_to_restart(places, outcome)
    if not outcome.changed and not services:
        print("Nothing changed.")
    if services and places.live:
        from aisandbox.instance import systemd

        systemd.restart(*services)
    if services:
        print(f"Restarting {', '.join(services)}. Follow it with: aisandbox status --watch")


@app.command()
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
        _say(f"There is no service {service}. The services are {', '.join(names)}.")
        raise typer.Exit(BAD_INPUT)
    chosen = [names[service]] if service else list(systemd.SERVICES)
    command = ["journalctl", "--output=short-iso", f"--lines={lines}", *(f"--unit={unit}" for unit in chosen)]
    raise typer.Exit(subprocess.call(command + (["--follow"] if follow else [])))


@app.command(hidden=True)
def motd(context: typer.Context) -> None:
    """Print the message of the day for logins."""
    from aisandbox.instance import configure as configuring
    from aisandbox.instance import status as statuses

    places, manifest = context.obj.places, context.obj.manifest
    overview = statuses.compose(places, manifest)
    template = (places.templates / "motd.txt.j2").read_text(encoding="utf-8")
    print(configuring.render(template, {"status": overview, "manifest": manifest}))


@app.command("model-fetch", hidden=True)
def model_fetch(context: typer.Context) -> None:
    """Bring the planned model to this instance (aisandbox-model.service)."""
    from aisandbox.instance import model

    model.fetch(context.obj.places)


@app.command("engine-sync", hidden=True)
def engine_sync(context: typer.Context) -> None:
    """Restart the engine when it serves something else than it should (aisandbox-engine-sync.service)."""
    from aisandbox.instance import engine_sync as syncing

    print("Restarting the engine." if syncing.sync(context.obj.places) else "The engine needs no restart.")


@app.command("status-publish", hidden=True)
def status_publish(context: typer.Context) -> None:
    """Keep the progress page's status up to date (aisandbox-status.service)."""
    from aisandbox.instance import status as statuses

    statuses.publish(context.obj.places, context.obj.manifest)


def main() -> None:
    """Run the command; a crash is one line, unless AISANDBOX_DEBUG is set."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("AISANDBOX_DEBUG"):
            raise
        reason = str(error).strip().splitlines()
        _say(f"aisandbox failed: {type(error).__name__}{f': {reason[0]}' if reason else ''}")
        _say("See the journal with: sudo aisandbox logs. For details, run it again with AISANDBOX_DEBUG=1.")
        sys.exit(1)


def _need_root(places: Places) -> None:
    if places.live and os.geteuid() != 0:
        _say("This changes the instance, so it needs root: run it again with sudo.")
        raise typer.Exit(1)


def _assignment(text: str) -> tuple[str, str]:
    from aisandbox.instance.options import InvalidOptionError

    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidOptionError(f"--set {text} has no value.", "Write it as --set KEY=VALUE.")
    return key.strip(), value


def _tell(outcome: Outcome) -> None:
    for problem in outcome.plan.problems:
        _say(f"{problem}. {problem.fix}")
    _say(f"Configured to serve {outcome.plan.model}.")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
