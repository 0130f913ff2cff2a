"""Check images, root file systems and hosts for what no marketplace accepts."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from aisandbox import manifest
from aisandbox.builder.errors import BuildError
from aisandbox.check import Report, Settings, Stage, print_report, run


class StageOption(StrEnum):
    image = "image"
    instance = "instance"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(check)
    app.command(hidden=True)(check_program)
    app.command()(size)


TargetOption = Annotated[str | None, typer.Option(help="Also what this platform asks for, and its waivers.")]
SubjectArgument = Annotated[
    str | None, typer.Argument(help="An image file, a folder, or USER@HOST; the baked image without it.")
]
FlavourOption = Annotated[str, typer.Option(help="Of the baked image: cpu or cuda.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Do not ask package mirrors for security updates.")]


def check(
    subject: SubjectArgument = None,
    target: TargetOption = None,
    stage: Annotated[
        StageOption | None,
        typer.Option(help="image: before the first boot (files and folders); instance: in use (hosts)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    offline: OfflineOption = False,
    key: Annotated[Path | None, typer.Option(help="Private SSH key for a host.")] = None,
    port: Annotated[int, typer.Option(help="SSH port of a host.", min=1, max=65535)] = 22,
    known_hosts: Annotated[Path | None, typer.Option(help="File with the keys of known hosts.")] = None,
    flavour: FlavourOption = "cpu",
    engine: Annotated[
        bool, typer.Option("--engine", help="Only the engine of the flavour cuda, once the layer vllm is baked.")
    ] = False,
) -> None:
    """Check an image file, a folder or a host. Exit code 1 means that it must not be handed out."""
    from aisandbox.builder import checking, engine_proof
    from aisandbox.builder.layers import TOP

    if engine and flavour != "cuda":
        fix = "make check FLAVOUR=cuda ENGINE=yes"
        raise BuildError("only the flavour cuda has checks of the engine by itself", fix)
    host = bool(subject and "@" in subject and not Path(subject).exists())
    if host and str(subject).startswith("-"):
        raise BuildError(f"{subject} is no host", "USER@HOST")
    chosen: Stage = stage.value if stage else ("instance" if host else "image")
    settings = _settings(target, chosen, offline)
    if subject and host:
        _show(checking.check_host(subject, settings.but(live=True), key, port, known_hosts), as_json)
    if os.geteuid() != 0:
        raise BuildError("looking at everything needs root", f"sudo make check SUBJECT={subject or ''}")
    if not os.environ.get(checking.PRIVATE):
        raise typer.Exit(checking.in_private_namespace(sys.argv[1:]))
    if subject:
        _show(checking.check_path(Path(subject), settings), as_json)
    with checking.baked(flavour, "vllm" if engine else TOP) as root:
        report = checking.check_engine(root, settings) if engine else run(root, settings, subject="the baked image")
        if flavour == "cuda":
            report = replace(report, results=(*report.results, *engine_proof.results(root)))
    _show(report, as_json)


def _show(report: Report, as_json: bool) -> NoReturn:
    print_report(report, as_json)
    raise typer.Exit(int(report.failed))


def check_program(output: Path, target: TargetOption = None, offline: OfflineOption = False) -> None:
    """Write the check of an image that is still running, as one file for python3; sysprep sends it to builders."""
    from aisandbox.builder import checking

    settings = _settings(target, "image", offline).but(live=True)
    output.write_bytes(checking.program(settings, "the machine that bakes"))


def size(
    folder: Annotated[Path | None, typer.Argument(help="A root file system; the baked image without it.")] = None,
    flavour: FlavourOption = "cpu",
    lines: Annotated[int, typer.Option(help="How many of the largest of each kind.", min=1)] = 15,
) -> None:
    """Show what makes an image large: by folder, Debian package, environment and kind of file."""
    from aisandbox.builder import checking, sizes

    if folder and not folder.is_dir():
        raise BuildError(f"{folder} is no folder", "name a root file system, or nothing for the baked image")
    if folder:
        print(sizes.report(folder, lines))
    elif not os.environ.get(checking.PRIVATE):
        raise typer.Exit(checking.in_private_namespace(sys.argv[1:]))
    else:
        with checking.baked(flavour) as root:
            print(sizes.report(root, lines))


def _settings(target: str | None, stage: Stage, offline: bool) -> Settings:
    product = manifest.load()
    if target and target not in product.targets:
        raise BuildError(f"there is no target {target}", f"one of {', '.join(sorted(product.targets))}")
    return Settings.of(product, target=target, stage=stage, online=not offline)
