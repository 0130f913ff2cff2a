"""Sessions of one language: names, limits, idle ends, and the order of calls in each."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from sandbox_api.errors import SandboxError
from sandbox_api.settings import Settings

MOST_WAITING = 32
MOST_UNNAMED = 8
"""Sessions that were made without being asked for, and never used again. The oldest is ended when one more comes."""


class Runtime(Protocol):
    """A process that keeps state. A session that has lost its process gets a new one at its next call."""

    alive: bool

    def interrupt(self) -> None: ...

    async def end(self) -> None: ...


R = TypeVar("R", bound=Runtime)


def not_entered(folder: Path, name: str, problem: str) -> SandboxError:
    """Args: name: of the exception (Python) or of the error number (Node.js)."""
    code = "permission_denied" if name in ("PermissionError", "EACCES", "EPERM") else "file_not_found"
    return SandboxError(
        code, f"the working directory {folder} cannot be entered: {problem}", hint="Choose another cwd."
    )


@dataclass
class Session(Generic[R]):
    id: str
    cwd: Path
    idle_s: float
    named: bool
    created: float = field(default_factory=time.time)
    used: float = field(default_factory=time.time)
    runtime: R | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    calls: int = 0
    ended: bool = False
    moved: bool = False

    def enter(self, cwd: Path | None, fresh: bool) -> Path | None:
        """The folder that the process has to go to before this call; None to leave it where its code has gone."""
        self.moved = self.moved or fresh
        return cwd or self.cwd if cwd or self.moved else None

    def entered(self, folder: Path) -> None:
        """The process is in the folder that `enter` gave."""
        self.cwd, self.moved = folder, False

    @property
    def busy(self) -> bool:
        return self.waiting > 0

    async def end(self) -> None:
        self.ended = True
        runtime, self.runtime = self.runtime, None
        if runtime:
            await runtime.end()


class Sessions(Generic[R]):
    """Registry of sessions. `what` names them in messages."""

    def __init__(self, settings: Settings, what: str) -> None:
        self._settings = settings
        self._what = what
        self._sessions: dict[str, Session[R]] = {}
        self._reaper: asyncio.Task[None] | None = None
        self._once = 0

    def start(self) -> None:
        self._reaper = asyncio.create_task(self._reap())

    async def stop(self) -> None:
        if self._reaper:
            self._reaper.cancel()
        await self.end_all()

    def __len__(self) -> int:
        return len(self._sessions)

    def items(self) -> list[tuple[str, Session[R]]]:
        return list(self._sessions.items())

    @staticmethod
    def new_id() -> str:
        return secrets.token_hex(8)

    def get(self, identity: str) -> Session[R]:
        """
        Raises:
            SandboxError: `session_not_found`.
        """
        session = self._sessions.get(identity)
        if session is None:
            raise SandboxError("session_not_found", f"there is no {self._what} session {identity[:100]}")
        return session

    def _check_room(self) -> None:
        if len(self._sessions) + self._once >= self._settings.max_sessions:
            raise SandboxError(
                "limit_reached",
                f"{self._settings.max_sessions} {self._what} sessions exist already",
                hint="End a session, or raise SANDBOX_MAX_SESSIONS.",
            )

    async def obtain(self, identity: str | None, cwd: Path, idle_s: float | None = None) -> tuple[Session[R], bool]:
        """The session of this name, made if need be; a new one without a name. And whether it was made.

        Raises:
            SandboxError: `limit_reached`.
        """
        if identity in self._sessions:
            return self._sessions[identity], False
        if identity is None:
            await self._end_unnamed()
        self._check_room()
        session = Session[R](
            identity or self.new_id(), cwd, idle_s or self._settings.session_idle_s, identity is not None
        )
        self._sessions[session.id] = session
        return session, True

    async def _end_unnamed(self) -> None:
        unnamed = [s for s in self._sessions.values() if not s.named and s.calls <= 1 and not s.busy]
        for session in sorted(unnamed, key=lambda s: s.used)[: max(0, len(unnamed) - MOST_UNNAMED + 1)]:
            await self.end(session.id)

    @contextlib.contextmanager
    def once(self) -> Iterator[None]:
        """Room for a run outside of any session.

        Raises:
            SandboxError: `limit_reached`.
        """
        self._check_room()
        self._once += 1
        try:
            yield
        finally:
            self._once -= 1

    @asynccontextmanager
    async def turn(self, session: Session[R]) -> AsyncIterator[None]:
        """Wait until the calls before this one are done.

        Raises:
            SandboxError: `session_busy`, `session_not_found` when it was ended meanwhile.
        """
        if session.waiting >= MOST_WAITING:
            raise SandboxError("session_busy", f"{session.waiting} calls wait for session {session.id} already")
        session.waiting += 1
        try:
            async with session.lock:
                if session.ended:
                    raise SandboxError("session_not_found", f"session {session.id} was ended while this call waited")
                session.used = time.time()
                session.calls += 1
                try:
                    yield
                finally:
                    session.used = time.time()
        finally:
            session.waiting -= 1

    def interrupt(self, identity: str) -> bool:
        """Interrupt what runs in a session; False when nothing runs."""
        session = self.get(identity)
        if not session.busy or session.runtime is None or not session.runtime.alive:
            return False
        session.runtime.interrupt()
        return True

    async def end(self, identity: str) -> None:
        await self.discard(self.get(identity))

    async def discard(self, session: Session[R]) -> None:
        self._sessions.pop(session.id, None)
        await session.end()

    async def end_all(self) -> list[str]:
        sessions, self._sessions = self._sessions, {}
        await asyncio.gather(*(session.end() for session in sessions.values()))
        return list(sessions)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(min(15.0, self._settings.session_idle_s / 4))
            now = time.time()
            for identity, session in self.items():
                if not session.busy and now - session.used > session.idle_s:
                    with contextlib.suppress(SandboxError):
                        await self.end(identity)
