"""How programs behind the entry are reached: connections that are kept, one pool for each place."""

from __future__ import annotations

import asyncio
import importlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import BaseConnector, ClientSession

CONNECT_S = 5.0
KEEP_S = 4.0
"""Less than programs commonly keep an idle connection, so that ours are not the ones that find it closed."""
READ_BYTES = 256 * 1024
LONGEST_LINE = 64 * 1024
LOOPBACK = (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))


class Upstreams:
    def __init__(self) -> None:
        self._sessions: dict[Path | None, ClientSession] = {}
        self._import = asyncio.Lock()

    async def session(self, unix: Path | None = None) -> ClientSession:
        """For a unix socket, or for loopback, where both addresses are tried: programs listen on either.

        Names are not looked up: whatever the host is called in an address, the connection goes to this machine.
        """
        if unix not in self._sessions:
            async with self._import:  # heavy, so it is left until somebody needs it
                await asyncio.to_thread(importlib.import_module, "aiohttp")
                if unix not in self._sessions:
                    self._sessions[unix] = self._open(unix)
        return self._sessions[unix]

    @staticmethod
    def _open(unix: Path | None) -> ClientSession:
        import aiohttp
        from aiohttp.abc import AbstractResolver, ResolveResult

        class Loopback(AbstractResolver):
            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
            ) -> list[ResolveResult]:
                return [
                    ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)
                    for address, kind in LOOPBACK
                ]

            async def close(self) -> None: ...

        connector: BaseConnector
        if unix:
            connector = aiohttp.UnixConnector(str(unix), limit=0, keepalive_timeout=KEEP_S)
        else:
            connector = aiohttp.TCPConnector(
                limit=0, resolver=Loopback(), use_dns_cache=False, keepalive_timeout=KEEP_S, happy_eyeballs_delay=None
            )
        return aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            read_bufsize=READ_BYTES,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            trust_env=False,
        )

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
