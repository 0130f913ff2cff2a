"""One-time tickets, and the signed cookies that pages exchange them for."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass

from sandbox_api.access.origins import covers
from sandbox_api.errors import SandboxError

MOST_TICKETS = 1000


@dataclass(frozen=True)
class Grant:
    """What a ticket or a cookie allows: everything at and under `path`, until `expires` (time.time()).

    `view_only`: the desktop's viewer may look, and touch nothing.
    """

    path: str
    subject: str
    expires: float
    view_only: bool = False

    def allows(self, path: str) -> bool:
        return time.time() < self.expires and covers(self.path, path)


class Tickets:
    """Kept in memory by their digests; each works once."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._grants: dict[bytes, Grant] = {}

    def issue(self, path: str, subject: str, *, view_only: bool = False) -> str:
        """A ticket for `path` and what lies under it.

        Raises:
            SandboxError: `limit_reached` while too many are unused.
        """
        now = time.time()
        self._grants = {digest: grant for digest, grant in self._grants.items() if grant.expires > now}
        if len(self._grants) >= MOST_TICKETS:
            raise SandboxError("limit_reached", f"{MOST_TICKETS} tickets are unused", hint="Wait until some expire.")
        ticket = secrets.token_urlsafe(32)
        self._grants[self._digest(ticket)] = Grant(path, subject, now + self._ttl_s, view_only)
        return ticket

    def redeem(self, ticket: str, path: str) -> Grant | None:
        """Use it up. None when it is unknown, used, expired, or for another path."""
        grant = self._grants.pop(self._digest(ticket), None)
        return grant if grant and grant.allows(path) else None

    @staticmethod
    def _digest(ticket: str) -> bytes:
        return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()


class Cookies:
    """Values of cookies, signed with a key that only this process knows.

    The key is in no file: commands run as the same user could read it and sign for themselves. So a restart ends the
    sessions of pages.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def sign(self, path: str, subject: str, ttl_s: float, *, view_only: bool = False) -> str:
        grant = [path, subject, time.time() + ttl_s, view_only]
        content = json.dumps(grant).encode().hex()
        return f"{content}.{self._signature(content)}"

    def read(self, value: str) -> Grant | None:
        content, _, signature = value.rpartition(".")
        if not value.isascii() or not hmac.compare_digest(self._signature(content), signature):
            return None
        return Grant(*json.loads(bytes.fromhex(content)))

    def _signature(self, content: str) -> str:
        return hmac.new(self._key, content.encode(), hashlib.sha256).hexdigest()
