"""`aisandbox models`: what is on disk, and what could be."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from aisandbox.instance.commands.console import BAD_INPUT, need_root, say

if TYPE_CHECKING:
    from aisandbox.instance.fit.models import Entry

app = typer.Typer(help="List, get and remove models on this instance's disk.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="ORGANISATION/NAME")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", short_help="Show the models on disk, and those listed for this product.")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the models on disk, and those that are listed for this product."""
    from aisandbox.instance.fit import models

    found = models.entries(context.obj.places, context.obj.manifest)
    if as_json:
        print(json.dumps([entry.model_dump(mode="json") for entry in found], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    from aisandbox.instance.fit.sizing.explain import gigabytes

    table = Table("Model", "On disk", "State", "Needs", "Licence", box=None, padding=(0, 2, 0, 0))
    for entry in found:
        size = gigabytes(entry.size_bytes) if entry.size_bytes else ""
        table.add_row(entry.model, size, _state(entry), _needs(entry), entry.license or "")
    # Names are there to be copied: they are not cut to fit.
    Console(highlight=False, markup=False, width=160).print(table)


def _state(entry: Entry) -> str:
    marks = {"served": entry.serving, "chosen": entry.chosen and not entry.serving, "in the image": entry.embedded}
    if entry.size_bytes and not entry.embedded:
        marks["complete" if entry.complete else "incomplete"] = True
    commit = f" at {entry.commits[-1][:8]}" if entry.commits and not entry.embedded else ""
    return ", ".join(mark for mark, holds in marks.items() if holds) + commit


def _needs(entry: Entry) -> str:
    if entry.gpu_memory_gib is None:
        return ""
    memory = f"{entry.gpu_memory_gib} GiB of GPU memory" if entry.gpu_memory_gib else "no GPU"
    return memory + {True: ", fits", False: ", does not fit", None: ""}[entry.fits]


@app.command()
def pull(
    context: typer.Context,
    model: Name,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Get a model, or what is new of it. The one that is served is served anew once it has changed."""
    from pathlib import Path

    from aisandbox.instance.deployment import Deployment
    from aisandbox.instance.errors import UnobtainableError, UnreachableError
    from aisandbox.instance.fit import models
    from aisandbox.instance.run import services

    places, manifest = context.obj.places, context.obj.manifest
    need_root(places)
    folder = Path()
    try:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as SpeedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            SpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, disable=as_json or not sys.stdout.isatty(), transient=True) as bars:
            bar = bars.add_task(model, total=None)
            for step in models.pull(places, manifest, model, revision):
                if isinstance(step, Path):
                    folder = step
                else:
                    bars.update(bar, completed=step.bytes_done, total=step.bytes_total)
    except UnobtainableError as error:
        say(f"{error} {error.fix}")
        raise typer.Exit(BAD_INPUT) from None
    except UnreachableError as error:
        say(f"{error} What has arrived is kept: run it again to go on.")
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps({"model": model, "folder": str(folder), "commit": folder.name}))
    else:
        print(f"{model} is on disk, at commit {folder.name}.")
    chosen = any(entry.chosen and entry.model == model for entry in models.entries(places, manifest))
    located = Deployment.find(places.located)
    if chosen and places.live and (not located or located.candidates[0].folder != str(folder)):
        services.restart(services.MODEL)


@app.command()
def remove(context: typer.Context, model: Name, as_json: AsJson = False) -> None:
    """Remove a model from the disk. The one in use stays, and so does the one of the image."""
    from aisandbox.instance.fit import models

    need_root(context.obj.places)
    try:
        removed = models.remove(context.obj.places, context.obj.manifest, model)
    except models.InUseError as error:
        say(str(error))
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        print(json.dumps({"model": model, "removed": removed}))
    else:
        print(f"{model} was removed." if removed else f"{model} is not on disk.")
