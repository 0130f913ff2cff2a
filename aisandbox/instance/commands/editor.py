"""Editing the options file in the user's editor, as safely as visudo."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from aisandbox.instance.choose import editing
from aisandbox.instance.commands.console import BAD_INPUT, say

if TYPE_CHECKING:
    from aisandbox.instance.choose.editing import Edit
    from aisandbox.instance.places import Places
    from aisandbox.manifest import Manifest

VARIABLES = ("SUDO_EDITOR", "VISUAL", "EDITOR")
PROGRAMS = ("sensible-editor", "nano", "vim", "vi")


def edit(places: Places, manifest: Manifest) -> Edit:
    """The checked text that the user has written. It is kept, and named, whenever it cannot be taken."""
    base = editing.current(places)
    draft = editing.draft(places, base or editing.HEADER + _menu(manifest))
    try:
        while True:
            _run(draft)
            text = draft.read_text(encoding="utf-8", errors="replace")
            try:
                change = editing.checked(places, manifest, text, base)
            except editing.InvalidTextError as invalid:
                for mistake in invalid.mistakes:
                    say(mistake)
                if not _again():
                    _keep(draft)
            else:
                draft.unlink()
                return change
    except (OSError, KeyboardInterrupt) as error:
        say(f"The editor could not be used: {error}" if isinstance(error, OSError) else "Interrupted.")
        _keep(draft)


def _menu(manifest: Manifest) -> str:
    return "".join(
        f"\n# {option.help}\n#{option.key}: {'' if option.example is None else option.example}\n"
        for option in manifest.options
    )


def _run(draft: Path) -> None:
    chosen = next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None)
    program = shlex.split(chosen) if chosen else [next((p for p in PROGRAMS if shutil.which(p)), "vi")]
    status = subprocess.call([*program, str(draft)])
    if status:
        raise OSError(f"{program[0]} ended with status {status}")


def _again() -> bool:
    """Whether to go on editing; without a terminal nobody can."""
    while _has_terminal():
        match input("What now? (e)dit again, e(x)it without changes: ").strip().lower():
            case "e" | "":
                return True
            case "x":
                break
    return False


def _has_terminal() -> bool:
    return sys.stdin.isatty()


def _keep(draft: Path) -> NoReturn:
    say(f"Nothing was changed. Your text is kept until the next restart: {draft}")
    raise typer.Exit(BAD_INPUT)
