"""testinfra's way into the open root file system, the one that Ansible takes. A plugin of molecule's verifier."""

from __future__ import annotations

import shlex
from typing import Any

from testinfra import backend
from testinfra.backend.base import BaseBackend, CommandResult

from aisandbox.builder.container import NSENTER


class ContainerBackend(BaseBackend):  # type: ignore[misc]
    """Runs commands in the container that $AISANDBOX_CONTAINER_PID names."""

    NAME = "container"

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(name, *args, **kwargs)

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        return self.run_local(f"{shlex.quote(str(NSENTER))} / /bin/sh -c %s", self.get_command(command, *args))


backend.BACKENDS[ContainerBackend.NAME] = f"{__name__}.{ContainerBackend.__name__}"
