"""Who a caller is."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass
from typing import Literal

from starlette.requests import HTTPConnection

from sandbox_api.access.attempts import Attempts
from sandbox_api.access.origins import covers
from sandbox_api.access.tickets import Cookies, Grant, Tickets
from sandbox_api.access.tokens import ConfigurationError, InvalidTokenError, Tokens
from sandbox_api.errors import SandboxError
from sandbox_api.health import Health
from sandbox_api.log import logger
from sandbox_api.settings import Settings

KEY_HEADERS = ("x-api-key", "x-aio-api-key")
MOST_CREDENTIALS = 4
"""Keys and tokens of one request; more would be guesses."""
VIEWERS = ("/vnc", "/websockify")
"""The desktop, and nothing that could act in another way."""


@dataclass(frozen=True)
class Caller:
    """
    Args:
        path: everything that the caller may reach lies at it or under it.
        view_only: on the desktop the caller may look, and touch nothing.
    """

    method: Literal["none", "api_key", "jwt", "cookie", "ticket"]
    subject: str = ""
    path: str = "/"
    view_only: bool = False


ANYBODY = Caller("none")


class AccessService:
    """
    Raises:
        ConfigurationError: authentication is on without a key, or with one that cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tickets = Tickets(settings.ticket_ttl_s)
        self.cookies = Cookies()
        self._attempts = Attempts(settings)
        self._tokens = Tokens(settings)
        if settings.auth and not self._tokens.methods:
            raise ConfigurationError(
                "SANDBOX_AUTH is on, but there is no key: set SANDBOX_API_KEYS, SANDBOX_JWT_SECRET, "
                "SANDBOX_JWT_PUBLIC_KEY or SANDBOX_JWKS_URL"
            )

    async def start(self) -> None:
        if not self.settings.auth and self._tokens.methods:
            logger.warning("access", problem="keys are set, but SANDBOX_AUTH is off: nobody is asked for them")
        if self.settings.auth and self._tokens.takes_jwt:
            # Takes a good part of a second; the first caller should not wait for it.
            await asyncio.to_thread(importlib.import_module, "jwt")

    async def stop(self) -> None: ...

    async def health(self) -> Health:
        if not self.settings.auth:
            return Health(status="ready", detail="authentication is off; foreign hosts and origins are refused")
        return Health(status="ready", detail="authentication is on: " + ", ".join(self._tokens.methods))

    async def authenticate(self, connection: HTTPConnection, cookie: str, ticket: str | None = None) -> Caller:
        """The caller, by any credential of the request that is good: API key, JWT, cookie, ticket.

        Args:
            cookie: name of the cookie that tickets are exchanged for.
            ticket: used up when nothing else is good.

        Raises:
            SandboxError: `unauthorized`.
        """
        path, problem = connection.scope["path"], "this needs a credential"
        keys = [value for name in KEY_HEADERS for value in connection.headers.getlist(name)]
        tokens = [token for header in connection.headers.getlist("authorization") if (token := _bearer(header))]
        guessable = len(keys) + len(tokens)  # cookies and tickets are not
        if guessable > MOST_CREDENTIALS:
            raise SandboxError("unauthorized", f"the request has more than {MOST_CREDENTIALS} credentials")
        if guessable:
            await self._attempts.wait(connection)
        for key in keys:
            if self._tokens.knows_key(key):
                return Caller("api_key")
            problem = "the key is not known"
        for token in tokens:
            if self._tokens.knows_key(token):
                return Caller("api_key")
            try:
                return Caller("jwt", await self._tokens.subject(token))
            except InvalidTokenError as error:
                problem = str(error)
        for value in _cookies(connection, cookie):
            grant = self.cookies.read(value)
            if grant and grant.allows(path):
                return Caller("cookie", grant.subject, grant.path, grant.view_only)
            problem = "the session has ended or is for other pages"
        if ticket is not None:
            if grant := self.tickets.redeem(ticket, path):
                return Caller("ticket", grant.subject, grant.path, grant.view_only)
            problem = "the ticket is used, expired or for another address"
        if guessable:
            self._attempts.failed(connection)
        raise SandboxError("unauthorized", problem)

    async def vouch(self, connection: HTTPConnection, token: str) -> None:
        """Check the credential that came in the first message of a websocket.

        Raises:
            SandboxError: `unauthorized`.
        """
        if not self.settings.auth:
            return
        await self._attempts.wait(connection)
        if self._tokens.knows_key(token):
            return
        try:
            await self._tokens.subject(token)
        except InvalidTokenError as error:
            self._attempts.failed(connection)
            raise SandboxError("unauthorized", str(error)) from error

    def is_key(self, authorization: str) -> bool:
        """Whether an `Authorization` header carries one of our API keys."""
        return self._tokens.knows_key(authorization.partition(" ")[2].strip())

    def issue_ticket(self, caller: Caller, path: str, *, view_only: bool = False) -> str:
        """A ticket with no more reach than its caller has.

        Args:
            view_only: it shows the desktop and lets nobody touch it.

        Raises:
            SandboxError: `forbidden`, `invalid_request`, `limit_reached`.
        """
        grant = Grant(caller.path, caller.subject, float("inf"))
        if not Grant("/", "", float("inf")).allows(path):
            raise SandboxError("invalid_request", "the path has dot segments")
        if not grant.allows(path):
            raise SandboxError("forbidden", f"the caller may not reach {path}")
        if view_only and not any(covers(viewer, path) for viewer in VIEWERS):
            raise SandboxError("invalid_request", f"view_only: needs a path under {' or '.join(VIEWERS)}, not {path}")
        return self.tickets.issue(path, caller.subject, view_only=view_only or caller.view_only)


def _bearer(authorization: str) -> str:
    """The token of an `Authorization` header; empty when it is of another kind."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _cookies(connection: HTTPConnection, name: str) -> list[str]:
    """All values of a cookie: browsers send one for each path that fits."""
    parts = (
        part.strip().partition("=") for header in connection.headers.getlist("cookie") for part in header.split(";")
    )
    return [value for key, _, value in parts if key == name]
