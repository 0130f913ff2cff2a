"""The command that tells programs how to reach this instance's API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from aisandbox.instance.commands.console import BAD_INPUT, need_root, say


def connect(
    context: typer.Context,
    client: Annotated[str | None, typer.Argument(help="Its name. Without one, all of them are listed.")] = None,
    file: Annotated[Path | None, typer.Option("--write", metavar="FILE", help="Write it to a new file.")] = None,
) -> None:
    """Show what to tell a client (an editor, a coding agent, a library) to use this instance."""
    from aisandbox.instance.choose import access, configure, options
    from aisandbox.instance.observe import clients, status

    if client is None:
        for name, known in clients.CLIENTS.items():
            print(f"{name:12} {known.label}")
        return
    if client not in clients.CLIENTS:
        say(f"There is no client {client}. Known are {', '.join(clients.CLIENTS)}; others need what openai shows.")
        raise typer.Exit(BAD_INPUT)
    places, manifest = context.obj.places, context.obj.manifest
    need_root(places)
    choice, _ = options.read(places, manifest)
    key = access.api_key(choice, configure.secrets_of(places))
    try:
        overview = status.compose(places, manifest)
        text = clients.told(places, client, clients.connection(manifest, overview, key))
    except clients.NotServingError:
        say("The model does not answer yet, so its limits are unknown. See: sudo aisandbox status --wait 600")
        raise typer.Exit(1) from None
    place = clients.CLIENTS[client].place
    if file is None:
        print(text, end="")
        say(f"\nFor {place}.")
        return
    try:
        _write(file, text)
    except FileExistsError:
        say(f"{file} is there already, and stays as it is. Print the text without --write, and add it by hand.")
        raise typer.Exit(1) from None
    except OSError as error:
        say(f"{file} cannot be written: {error.strerror}.")
        raise typer.Exit(1) from None
    say(f"Wrote {file}, readable to you only. It belongs into {place}.")


def _write(file: Path, text: str) -> None:
    """Write a new file for whoever called, by sudo or not: the key is in it."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as target:
        if os.geteuid() == 0 and "SUDO_UID" in os.environ:
            os.fchown(target.fileno(), int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
        target.write(text)
