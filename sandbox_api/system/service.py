"""Gathers what the sandbox is, and how its parts are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sandbox_api import __version__
from sandbox_api.health import HEALTH_S, Capabilities, Health
from sandbox_api.settings import Settings
from sandbox_api.shell.service import ShellService
from sandbox_api.system import facts
from sandbox_api.system.hooks import Hooks
from sandbox_api.system.models import Overview, Package, RuntimeEnv, SandboxDetail, ToolCategory
from sandbox_api.system.observe import Observer

T = TypeVar("T")
PORTS_FRESH_S = 5.0
PACKAGES_FRESH_S = 30.0
NEEDED = ("shell", "file", "code")
"""What `ready` means: the parts that work on any host."""
OWN_PAGES = {
    "api": "/v1",
    "docs": "/v1/docs",
    "openapi": "/v1/openapi.json",
    "guide": "/llms.txt",
    "dashboard": "/",
    "terminal": "/terminal",
}


class TTLCache:
    """The result of a slow question, asked again when it is old. Concurrent callers share one question."""

    def __init__(self, fresh_s: float = float("inf")) -> None:
        self._fresh_s = fresh_s
        self._task: asyncio.Task[Any] | None = None
        self._until = 0.0

    async def get(self, ask: Callable[[], T]) -> T:
        """Raises: whatever `ask` raises, which runs in a thread."""
        now = asyncio.get_running_loop().time()
        failed = self._task is not None and self._task.done() and self._task.exception() is not None
        if self._task is None or failed or (self._task.done() and now >= self._until):
            self._task, self._until = asyncio.create_task(asyncio.to_thread(ask)), now + self._fresh_s
        answer: T = await asyncio.shield(self._task)
        return answer


class SystemService:
    def __init__(self, settings: Settings, shell: ShellService, capabilities: Capabilities) -> None:
        self._settings = settings
        self._capabilities = capabilities
        self.observer = Observer(settings)
        self.hooks = Hooks(shell)
        self._runtime, self._tools, self._ports = TTLCache(), TTLCache(), TTLCache(PORTS_FRESH_S)
        self._python, self._node = TTLCache(PACKAGES_FRESH_S), TTLCache(PACKAGES_FRESH_S)
        self._system = facts.system(settings)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        await self.hooks.run("shutdown")
        await self.observer.close()

    async def health(self) -> Health:
        return Health(status="ready", version=__version__, address="/v1/sandbox")

    async def missing(self, wanted: tuple[str, ...]) -> dict[str, Health]:
        """Those of the wanted parts that are not ready; an unknown name is unavailable."""
        found = await self._capabilities.health()
        unknown = Health(status="unavailable", detail="there is no such part")
        asked = {name: found.get(name, unknown) for name in dict.fromkeys((*NEEDED, *wanted))}
        return {name: health for name, health in asked.items() if health.status != "ready"}

    async def _soon(self, answer: Coroutine[Any, Any, T], default: T) -> T:
        """The answer if it comes in time: facts must not hold up the state of the parts."""
        try:
            return await asyncio.wait_for(answer, HEALTH_S)
        except TimeoutError:
            return default

    async def overview(self, base: str) -> tuple[Overview, SandboxDetail]:
        """State, versions, addresses under `base`, limits, settings; and the machine."""
        settings = self._settings
        capabilities, runtime, tools, ports = await asyncio.gather(
            self._capabilities.health(),
            self._soon(self._runtime.get(lambda: facts.runtime(settings)), RuntimeEnv(python=[], nodejs=[])),
            self._soon(self._tools.get(lambda: facts.tools(settings)), list[ToolCategory]()),
            self._soon(self._ports.get(facts.listening_ports), list[str]()),
        )
        system = self._system.model_copy(update={"occupied_ports": ports})
        versions = {"sandbox": __version__}
        versions |= {name: spec.ver for name in ("python", "nodejs") for spec in getattr(runtime, name)[:1] if spec.ver}
        versions |= {name: health.version for name, health in capabilities.items() if health.version}
        addresses = {name: base + path for name, path in OWN_PAGES.items()}
        for name, health in capabilities.items():
            if health.address:
                addresses[name] = base + health.address if health.address.startswith("/") else health.address
        public = settings.public()
        limits = {
            name: value
            for name, value in public.items()
            if name.endswith(("_bytes", "_chars", "_s")) or name.startswith("max_")
        }
        overview = Overview(
            ready=all(capabilities[name].status == "ready" for name in NEEDED),
            capabilities=capabilities,
            versions=versions,
            addresses=addresses,
            limits=limits,
            settings=public,
            workspace=str(settings.workspace_path),
        )
        return overview, SandboxDetail(system=system, runtime=runtime, utils=tools)

    async def python_packages(self) -> list[Package]:
        return await self._python.get(lambda: facts.python_packages(self._settings))

    async def node_packages(self) -> list[Package]:
        return await self._node.get(lambda: facts.node_packages(self._settings))
