"""The environment of what runs in the sandbox."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sandbox_api.settings import KEY, PREFIX, SECRETS, Settings

KEPT = {"SANDBOX_ROOT", "SANDBOX_WORKSPACE"}
WITHHELD = (PREFIX, "JPY_", "INVOCATION_ID", "NOTIFY_SOCKET", "CREDENTIALS_")


def child_environment(settings: Settings, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of a command, kernel or terminal: ours without our settings (keys and secrets are among them).

    Args:
        extra: what the request adds; it wins.
    """
    variables = {
        name: value for name, value in os.environ.items() if name in KEPT or not name.upper().startswith(WITHHELD)
    }
    variables["SANDBOX_ROOT"] = str(settings.root)
    variables["SANDBOX_WORKSPACE"] = str(settings.workspace_path)
    variables.setdefault("HOME", str(settings.root))
    variables.setdefault("LANG", "C.UTF-8")
    if settings.display:
        variables["DISPLAY"] = settings.display
    # The kernels' Python and Node come first, so that shells and code see the same programs and packages.
    programs = [str(program.parent) for program in (settings.python, settings.node) if program]
    found = variables.get("PATH", os.defpath).split(os.pathsep)
    variables["PATH"] = os.pathsep.join(dict.fromkeys([*programs, *found]))
    return {**variables, **(extra or {})}


def withdraw_secrets() -> None:
    """Take the secrets out of our own environment, once the settings are read.

    Libraries start programs of their own with all of it: Playwright its driver, whose environment commands of the same
    user can read.
    """
    secrets = {KEY, *(f"{PREFIX}{name.upper()}" for name in SECRETS)}
    for name in [name for name in os.environ if name.upper() in secrets]:
        del os.environ[name]


def prepare(settings: Settings) -> None:
    """Create the places that the sandbox writes to.

    Raises:
        OSError: one of them cannot be created.
    """
    settings.workspace_path.mkdir(parents=True, exist_ok=True)
    settings.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    Path(settings.cache).chmod(0o700)
