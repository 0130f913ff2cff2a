"""The `aisandbox` command on the appliance."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from aisandbox.instance.commands import certificate, change, check, doctor, keys, look, models, schema, units, upgrade
from aisandbox.instance.commands.console import Context, manifest, say

# The commands import their own modules: `configure` is on the way to the first answer, and must not wait for
# what only `model-fetch` needs.

app = typer.Typer(
    name="aisandbox",
    help="See and change what this AI Sandbox serves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _main(
    context: typer.Context,
    root: Annotated[Path, typer.Option(hidden=True, help="Work on the appliance below this folder.")] = Path("/"),
) -> None:
    context.obj = Context(root)


for command in (look.status, change.command(manifest()), look.logs):
    app.command()(command)
app.add_typer(models.app, name="models")
app.command()(keys.keys)
app.command()(doctor.doctor)
app.command()(check.check)
app.command()(upgrade.upgrade)
app.command()(schema.schema)
for hidden in (
    look.motd,
    units.mount_volume,
    units.gpu_devices,
    units.gpu_fabric,
    units.model_fetch,
    units.engine_sync,
    units.status_publish,
):
    app.command(hidden=True)(hidden)
app.command(hidden=True)(certificate.certificate)


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
