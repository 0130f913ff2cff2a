"""Gathers how every part is, and what the sandbox is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from sandbox_api.services import Services

from sandbox_api import __version__
from sandbox_api.health import Health
from sandbox_api.log import logger
from sandbox_api.system import facts
from sandbox_api.system.hooks import Hooks
from sandbox_api.system.models import Overview, Package, RuntimeEnv, SandboxDetail, ToolCategory
from sandbox_api.system.observe import Observer

T = TypeVar("T")
HEALTH_S = 0.8
"""A part that has not said by then how it is, has failed."""
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


class Kept:
    """The result of a slow question, asked again when it is old; callers at the same time share one asking."""

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
    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings
        self.observer = Observer(self._settings)
        self.hooks = Hooks(services.shell)
        self._runtime, self._tools = Kept(), Kept()
        self._ports, self._python, self._node = Kept(PORTS_FRESH_S), Kept(PACKAGES_FRESH_S), Kept(PACKAGES_FRESH_S)
        self._system = facts.system(self._settings)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        await self.hooks.run("shutdown")
        await self.observer.close()

    async def health(self) -> Health:
        return Health(status="ready", version=__version__, address="/v1/sandbox")

    def _questions(self) -> dict[str, Callable[[], Awaitable[Health]]]:
        services = self._services
        return {
            "shell": services.shell.health,
            "file": services.file.health,
            "code": services.code.health,
            "browser": services.browser.health,
            "desktop": services.desktop.health,
            "vnc": services.desktop.vnc_health,
            "cdp": services.entry.cdp_health,
            "jupyter": services.entry.jupyter_health,
            "code-server": services.entry.code_server_health,
            "proxy": services.entry.health,
            "mcp": services.mcp.health,
            "skills": services.skills.health,
            "util": services.util.health,
            "auth": services.access.health,
        }

    async def capabilities(self) -> dict[str, Health]:
        """How every part is, asked at the same time. One that hangs or raises counts as failed."""
        tasks = {name: asyncio.ensure_future(ask()) for name, ask in self._questions().items()}
        await asyncio.wait(tasks.values(), timeout=HEALTH_S)
        return {name: self._outcome(name, task) for name, task in tasks.items()}

    @staticmethod
    def _outcome(name: str, task: asyncio.Future[Health]) -> Health:
        if not task.done():
            # Not awaited: what does not answer may not let itself be cancelled either.
            task.cancel()
            return Health(status="failed", detail=f"no answer within {HEALTH_S} s")
        if error := task.exception():
            logger.warning("health", part=name, problem=repr(error))
            return Health(status="failed", detail=f"{type(error).__name__}: {error}")
        return task.result()

    async def missing(self, wanted: tuple[str, ...]) -> dict[str, Health]:
        """Those of the wanted parts that are not ready; an unknown name is unavailable."""
        found = await self.capabilities()
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
            self.capabilities(),
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
