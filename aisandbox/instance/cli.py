"""The `aisandbox` command on the appliance."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from aisandbox.instance.commands import (
    certificate,
    change,
    check,
    connect,
    doctor,
    keys,
    look,
    models,
    schema,
    units,
    upgrade,
)
from aisandbox.instance.commands.console import Context, say

# The commands import their own modules: `configure` is on the way to the first answer, and must not wait for
# what only `model-fetch` needs; nor does `--help` need the manifest.

app = typer.Typer(
    name="aisandbox",
    help="See and change what this AI Sandbox serves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _main(
    context: typer.Context,
    root: Annotated[Path, typer.Option(hidden=True, help="Work on the appliance below this folder.")] = Path("/"),
) -> None:
    context.obj = Context(root)


def _add(command: Callable[..., None], **settings: Any) -> None:
    """Add a command. Its summary is given, as one that is taken from the docstring is cut to the line's width."""
    app.command(short_help=(inspect.getdoc(command) or "").partition("\n")[0], **settings)(command)


_add(look.status)
_add(change.configure, cls=change.Configure)
_add(look.logs)
app.add_typer(models.app, name="models")
for shown in (keys.keys, connect.connect, doctor.doctor, check.check, upgrade.upgrade, schema.schema):
    _add(shown)
for hidden in (
    look.motd,
    units.mount_volume,
    units.gpu_devices,
    units.gpu_fabric,
    units.model_fetch,
    units.engine_sync,
    units.status_publish,
    certificate.certificate,
):
    _add(hidden, hidden=True)


def main() -> None:
    """Run the command; a crash is one line, unless AISANDBOX_DEBUG is set."""
    try:
        app(prog_name=app.info.name)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("AISANDBOX_DEBUG"):
            raise
        reason = str(error).strip().splitlines()
        say(f"aisandbox failed: {type(error).__name__}{f': {reason[0]}' if reason else ''}")
        say("See the journal with: sudo aisandbox logs. For details, run it again with AISANDBOX_DEBUG=1.")
        sys.exit(1)
