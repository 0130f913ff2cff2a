"""Which programs lie behind the entry, how they are, and how to reach them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from sandbox_api.addresses import public_base, websocket_base
from sandbox_api.entry import cdp
from sandbox_api.entry.upstreams import Upstreams
from sandbox_api.errors import SandboxError
from sandbox_api.forward import Target
from sandbox_api.health import Health
from sandbox_api.unicode import loads

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from sandbox_api.settings import Settings

STARTING_S = 90.0
"""For so long after it was last up, or after our own start, a program that does not answer counts as starting."""
PROBE_S = 3.0


class EntryService:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._upstreams = Upstreams()
        self._last_up: dict[str, float] = {}
        self._started = time.monotonic()
        first, _, last = settings.proxy_ports.partition("-")
        self._ports = range(int(first), int(last or first) + 1)

    async def start(self) -> None:
        self._started = time.monotonic()

    async def stop(self) -> None:
        await self._upstreams.close()

    async def health(self) -> Health:
        return Health(status="ready", detail=f"ports {self.settings.proxy_ports} under /proxy/{{port}}/")

    async def jupyter_health(self) -> Health:
        return await self._probe("jupyter", self.settings.jupyter_socket, "/jupyter/api", "/jupyter/lab")

    async def code_server_health(self) -> Health:
        return await self._probe("code-server", self.settings.code_server_socket, "/healthz", "/code-server/")

    async def cdp_health(self) -> Health:
        """Of the browser's DevTools; `version` is the browser's."""
        if not self.settings.cdp_url:
            return Health(status="unavailable", detail="no browser on this host: SANDBOX_CDP_URL is not set")
        try:
            version = await self._version()
        except SandboxError as error:
            return self._down("browser", error.message)
        self._last_up["browser"] = time.monotonic()
        return Health(status="ready", version=version.get("Browser"), address="/cdp")

    async def _probe(self, name: str, socket: Path | None, path: str, address: str) -> Health:
        import_name = f"SANDBOX_{name.upper().replace('-', '_')}_SOCKET"
        if not socket:
            return Health(status="unavailable", detail=f"no {name} on this host: {import_name} is not set")
        if not socket.exists():  # spares the client's import on hosts where nothing has started
            return self._down(name, f"{name} has not opened its socket")
        session = await self._upstreams.session(socket)
        import aiohttp

        try:
            async with session.get(f"http://localhost{path}", timeout=aiohttp.ClientTimeout(total=PROBE_S)) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return self._down(name, f"{name} does not answer: {error}")
        if answer.status >= 500:
            return self._down(name, f"{name} answers {answer.status}")
        self._last_up[name] = time.monotonic()
        version = loads(body).get("version") if name == "jupyter" and answer.status == 200 else None
        return Health(status="ready", version=version, address=address)

    def _down(self, name: str, detail: str) -> Health:
        since = max(self._last_up.get(name, 0), self._started)
        return Health(status="starting" if time.monotonic() - since < STARTING_S else "failed", detail=detail)

    async def jupyter(self, connection: HTTPConnection) -> Target:
        """Raises SandboxError `service_unavailable` when this host has none."""
        return await self._unix(connection, "Jupyter", self.settings.jupyter_socket, "/jupyter", keeps_mount=True)

    async def code_server(self, connection: HTTPConnection) -> Target:
        """Raises SandboxError `service_unavailable` when this host has none."""
        socket = self.settings.code_server_socket
        return await self._unix(connection, "code-server", socket, "/code-server", keeps_mount=False)

    async def _unix(
        self, connection: HTTPConnection, name: str, socket: Path | None, mount: str, *, keeps_mount: bool
    ) -> Target:
        if not socket:
            raise SandboxError(
                "service_unavailable",
                f"there is no {name} on this host",
                hint=f"Use the container or the appliance, which have {name}.",
            )
        public = public_base(connection, self.settings)
        parts = urlsplit(public)
        # They compare the page's origin with the host that they are called by: both stay the caller's.
        return Target(
            name,
            await self._upstreams.session(socket),
            base="http://localhost",
            host=parts.netloc,
            origin=f"{parts.scheme}://{parts.netloc}",
            public=public,
            mount=mount,
            keeps_mount=keeps_mount,
        )

    async def port(self, connection: HTTPConnection, port: int, *, absolute: bool) -> Target:
        """A program of the user's on loopback.

        Args:
            absolute: the program expects /absproxy/{port} in its paths.

        Raises:
            SandboxError: `port_forbidden`.
        """
        own = {self.settings.port, (connection.scope.get("server") or ("", 0))[1], *self.settings.denied_ports}
        if self.settings.cdp_url:
            own.add(urlsplit(self.settings.cdp_url).port or 80)
        if port in own or port not in self._ports:
            raise SandboxError(
                "port_forbidden",
                f"port {port} is not reachable this way; ports {self.settings.proxy_ports} are, except the sandbox's",
            )
        # Development servers answer only those who call them localhost.
        host = f"localhost:{port}"
        return Target(
            f"the program on port {port}",
            await self._upstreams.session(),
            base=f"http://{host}",
            host=host,
            origin=f"http://{host}",
            public=public_base(connection, self.settings),
            mount=f"/absproxy/{port}" if absolute else f"/proxy/{port}",
            keeps_mount=absolute,
            refused="port_closed",
        )

    def cdp_base(self) -> str:
        """Address of DevTools without a slash at the end.

        Raises:
            SandboxError: `browser_unavailable` when this host has no browser.
        """
        if not self.settings.cdp_url:
            raise SandboxError(
                "browser_unavailable",
                "there is no browser on this host",
                hint="Use the container or the appliance, or set SANDBOX_CDP_URL.",
            )
        return self.settings.cdp_url.rstrip("/")

    async def cdp_session(self) -> ClientSession:
        return await self._upstreams.session()

    def cdp_endpoint(self, connection: HTTPConnection) -> tuple[str, str]:
        """Addresses of DevTools for this caller: over HTTP, and of the browser's websocket.

        Both hold across restarts of the browser: any id leads to the one that runs.
        """
        return (
            public_base(connection, self.settings) + cdp.MOUNT,
            websocket_base(connection, self.settings) + cdp.MOUNT + "/devtools/browser/current",
        )

    async def _version(self) -> dict[str, Any]:
        _, body = await cdp.ask(await self.cdp_session(), self.cdp_base(), "GET", "/json/version")
        try:
            version: dict[str, Any] = loads(body)
        except ValueError as error:
            raise SandboxError("browser_unavailable", "the browser's DevTools returned an unparsable answer") from error
        return version

    async def browser_ws(self) -> str:
        """Direct websocket address of the browser that runs now; asked each time, in about 2 ms.

        Raises:
            SandboxError: `browser_unavailable`.
        """
        return f"ws://{urlsplit(self.cdp_base()).netloc}{await self.browser_path()}"

    async def browser_path(self) -> str:
        """The path of that address."""
        return cdp.browser_path(await self._version())

    async def cdp_target(self, connection: HTTPConnection) -> Target:
        """Raises SandboxError `browser_unavailable` when this host has no browser."""
        base = self.cdp_base()
        host = urlsplit(base).netloc
        return Target(
            "the browser",
            await self.cdp_session(),
            base=base,
            host=host,
            origin=None,  # Chromium refuses every web page; whose pages may call, the guard has decided
            public=public_base(connection, self.settings),
            mount=cdp.MOUNT,
            keeps_mount=False,
            refused="browser_unavailable",
        )
