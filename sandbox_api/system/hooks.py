"""Commands that run when the sandbox ends."""

from __future__ import annotations

import asyncio
from itertools import groupby

from sandbox_api.errors import SandboxError
from sandbox_api.log import logger
from sandbox_api.shell.service import ShellService
from sandbox_api.system.models import Hook, RegisterHook

MOST = 32
PATIENCE_S = 60.0
"""For all hooks of an event together."""
GRACE_S = 3.0
"""Between a hook's timeout and its end by force."""


class Hooks:
    """In memory: a new server begins without hooks."""

    def __init__(self, shell: ShellService) -> None:
        self._shell = shell
        self._hooks: dict[str, Hook] = {}

    def register(self, request: RegisterHook) -> Hook:
        """Raises: SandboxError: `limit_reached`."""
        if request.name not in self._hooks and len(self._hooks) >= MOST:
            raise SandboxError("limit_reached", f"there are {MOST} hooks", hint="Remove one of them.")
        hook = self._hooks[request.name] = Hook(**request.model_dump())
        return hook

    def list(self, event: str) -> list[Hook]:
        """In the order in which they run."""
        return sorted((hook for hook in self._hooks.values() if hook.event == event), key=lambda hook: hook.priority)

    def remove(self, name: str) -> Hook:
        """Raises: SandboxError: `hook_not_found`."""
        if name not in self._hooks:
            raise SandboxError("hook_not_found", f"there is no hook {name}")
        return self._hooks.pop(name)

    async def run(self, event: str) -> None:
        """Run an event's hooks by priority, those of the same one together. A hook that fails stops nothing.

        Each runs once: they are forgotten then.
        """
        hooks = self.list(event)
        for hook in hooks:
            del self._hooks[hook.name]
        try:
            async with asyncio.timeout(PATIENCE_S):
                for _, together in groupby(hooks, key=lambda hook: hook.priority):
                    await asyncio.gather(*map(self._run, together))
        except TimeoutError:
            logger.warning("hooks", event=event, problem=f"not done within {PATIENCE_S:.0f} s")

    async def _run(self, hook: Hook) -> None:
        try:
            command = await self._shell.run(hook.command, timeout=hook.timeout + GRACE_S, hard_timeout=hook.timeout)
        except SandboxError as error:
            logger.warning("hook", name=hook.name, problem=error.message)
        else:
            logger.info("hook", name=hook.name, status=command.status, exit_code=command.exit_code)
