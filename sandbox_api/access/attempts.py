"""Slows down callers who guess keys."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection

from sandbox_api.addresses import caller_address
from sandbox_api.settings import Settings

FREE = 20
"""Wrong credentials of one address that cost nothing, for scripts with an old key and for people who mistype."""
COST_S = 1.0
"""Each wrong credential is paid off in this time."""
LONGEST_S = 2.0
MOST_OWED_S = 60.0
MOST_ADDRESSES = 10_000
IPV6_NETWORK = 64
"""Bits of an IPv6 address that one person has a single value of."""


class Attempts:
    """Counts wrong credentials by address. Whoever sent many waits before the next one is looked at.

    Good ones from there wait as well, as the answer would tell them apart before the wait is over. Nobody is shut out:
    the wait is short, and other addresses have none.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._paid_off: dict[str, float] = {}
        """By address, the one that failed last at the end."""

    async def wait(self, connection: HTTPConnection) -> None:
        """Before a credential is looked at that could be guessed."""
        owed = self._owed(self._network(connection))
        if owed > FREE * COST_S:
            await self._sleep(min(owed - FREE * COST_S, LONGEST_S))

    def failed(self, connection: HTTPConnection) -> None:
        """Count a wrong credential."""
        network = self._network(connection)
        owed = min(self._owed(network) + COST_S, MOST_OWED_S)
        self._paid_off.pop(network, None)
        self._paid_off[network] = self._clock() + owed
        if len(self._paid_off) > MOST_ADDRESSES:
            del self._paid_off[next(iter(self._paid_off))]

    def _owed(self, network: str) -> float:
        return max(self._paid_off.get(network, 0.0) - self._clock(), 0.0)

    def _network(self, connection: HTTPConnection) -> str:
        address = caller_address(connection, self._settings)
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return address
        if parsed.version == 4:
            return address
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, IPV6_NETWORK), strict=False))
