"""The command that finds out what is wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aisandbox.instance.commands.console import say

if TYPE_CHECKING:
    from aisandbox.instance.observe.doctor import Diagnosis
    from aisandbox.instance.observe.probes.instance import Instance
    from aisandbox.instance.places import Places
    from aisandbox.manifest import Manifest

MARKS = {"ok": ("ok", "green"), "skipped": ("--", ""), "warning": ("!", "yellow"), "failed": ("FAILED", "red")}


def doctor(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="Where --bundle writes the archive.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Also write an archive for support, without secrets and prompts.")
    ] = False,
) -> None:
    """Check this instance, and say what is wrong, why, and what mends it. Ends with 1 if something failed."""
    from aisandbox.instance.observe import doctor as doctors

    looked_at = instance(context.obj.places, context.obj.manifest)
    diagnosis = doctors.examine(looked_at)
    if as_json:
        print(diagnosis.model_dump_json(indent=1))
    else:
        _show(diagnosis)
    if bundle:
        from aisandbox.instance.observe.doctor import bundle as bundles

        target = file or Path(time.strftime("aisandbox-support-%Y%m%dT%H%M%S.tar.gz", time.gmtime()))
        try:
            count = bundles.write(looked_at, diagnosis, target)
        except OSError as error:
            say(f"The archive {target} cannot be written: {error.strerror}. Name another file.")
            raise typer.Exit(1) from None
        say(f"Wrote {target} with {count} files. Secrets are masked; look through it before you pass it on.")
    raise typer.Exit(0 if diagnosis.healthy else 1)


def instance(places: Places, manifest: Manifest) -> Instance:
    """The instance as probes look at it, with what only those who decide know."""
    from aisandbox.instance.choose import options
    from aisandbox.instance.fit import hardware
    from aisandbox.instance.observe.probes.instance import Instance, Owners

    def given(places: Places, manifest: Manifest) -> list[Mapping[str, Any]]:
        return [source.values for source in options.sources(places, manifest)]

    return Instance(places, manifest, Owners(hardware.find, given, hardware.CUDA, hardware.LEAST_DRIVER))


def _show(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for result in diagnosis.results:
        for finding in result.findings:
            mark, colour = MARKS[finding.severity]
            console.print(Text.assemble(f"{result.check:14}", (f"{mark:7}", colour), finding.text))
            for part in (finding.cause, finding.fix):
                if part:
                    console.print(Text(f"{'':21}{part}"))
    if not diagnosis.complete:
        say("Some checks need root. For all of them: sudo aisandbox doctor")
