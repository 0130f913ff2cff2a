"""Watching files and folders: events are gathered in bounded queues until they are fetched."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from anyio import to_thread

from sandbox_api import quotas
from sandbox_api.errors import SandboxError
from sandbox_api.file.failures import from_os_error, shown
from sandbox_api.file.folder import DRAFT
from sandbox_api.file.models import (
    EventType,
    FileEvent,
    PollRequest,
    PollResult,
    WaitRequest,
    WaitResult,
    WatchInfo,
    WatchRequest,
)
from sandbox_api.file.patterns import Names
from sandbox_api.file.tree import Budget, iso, walk
from sandbox_api.log import logger

MOST_EVENTS = 10_000
MOST_KNOWN = 50_000
STEP_MS = 25
STOP_LOOK_MS = 1000
WAIT_LOOK_S = 0.05
KEEP_ALIVE_S = 15.0
SNAPSHOT_S = 2.0


FULL_WATCHES, FULL_INSTANCES = "OS file watch limit reached", "Too many open files"
"""What watchfiles says, which passes on no errno."""
WATCHES = "as many files and folders as may be are watched"
ADDED, MODIFIED = 1, 2
"""Kinds of changes, as watchfiles numbers them."""


class State(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size: int
    mtime: int
    ctime: int
    mode: int

    @classmethod
    def of(cls, path: str) -> State | None:
        try:
            found = os.lstat(path)
        except OSError:
            return None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def identity(self) -> tuple[int, int, int]:
        """The same after a move. The inode alone is not enough: file systems reuse those of deleted files."""
        return self.inode, self.size, self.mtime

    def changes(self, now: State) -> list[EventType]:
        """What happened since; `write` if nothing else can be said."""
        if self.inode != now.inode:
            return ["write"]
        attributes: list[EventType] = ["chmod"] if self.mode != now.mode else []
        if self.is_folder or self.identity == now.identity:
            touched = self.ctime != now.ctime and not self.is_folder
            return attributes or ["chmod" if touched else "write"]
        return ["write", *attributes]


class Event(NamedTuple):
    kind: EventType
    path: str
    is_folder: bool
    new_path: str | None = None


class Watcher:
    """One watched path. Its thread ends when `stop` is set."""

    def __init__(self, real: Path, request: WatchRequest) -> None:
        self.id = secrets.token_hex(8)
        self.request = request
        self.created = self.used = time.time()
        self.events: deque[FileEvent] = deque(maxlen=MOST_EVENTS)
        self.seq = 0
        self.stopped = threading.Event()
        self.news = asyncio.Event()
        self._real = real
        self._loop = asyncio.get_running_loop()
        self._exclude, self._include = Names(request.exclude), Names(request.include_patterns)
        # Editors and our own writes replace a file by another one; that is reported as a write, not as a creation.
        self._known: dict[str, State] = {}

    def start(self) -> None:
        """Returns when nothing that happens from now on is missed. Blocks.

        Raises:
            OSError: it cannot be watched.
        """
        folder = stat.S_ISDIR(self._real.stat().st_mode)
        # A file that is replaced takes a watch on itself along; its folder sees the new one.
        watched = self._real if folder else self._real.parent
        recursive = folder and self.request.recursive
        notify = _notify(str(watched), recursive)
        if folder:
            budget = Budget(SNAPSHOT_S)
            for entry, _ in walk(str(watched), budget, lambda _, parts: recursive and not self._exclude.match(parts)):
                if state := State.of(entry.path):
                    self._known[entry.path] = state
                if len(self._known) >= MOST_KNOWN:
                    break
        elif state := State.of(str(self._real)):
            self._known[str(self._real)] = state
        threading.Thread(target=self._run, args=(notify, folder), name=f"watch-{self.id}", daemon=True).start()

    def _run(self, notify: object, folder: bool) -> None:
        try:
            while not self.stopped.is_set():
                changes = notify.watch(  # type: ignore[attr-defined]
                    self.request.debounce, STEP_MS, STOP_LOOK_MS, self.stopped
                )
                if isinstance(changes, set):
                    events = self._events(changes, folder)
                    if events:
                        self._loop.call_soon_threadsafe(self._publish, events)
        except Exception:
            logger.exception("watch", watcher=self.id)
        finally:
            notify.close()  # type: ignore[attr-defined]

    def _events(self, changes: set[tuple[int, str]], folder: bool) -> list[Event]:
        """What has happened, from what the operating system said and what is there now."""
        kinds: dict[str, set[int]] = {}
        for change, path in changes:
            kinds.setdefault(path, set()).add(change)
        now = {path: State.of(path) for path in kinds}
        # A file that was moved within a folder is the same at another path.
        arrived = {state.identity: path for path, state in now.items() if state and path not in self._known}
        gone: list[Event] = []
        there: list[Event] = []
        for path in sorted(path for path in kinds if self._wanted(path, folder)):
            if (state := now[path]) is None:
                gone += self._left(path, ADDED in kinds[path], arrived)
            else:
                there += self._found(path, state, MODIFIED in kinds[path])
        for parent in {os.path.dirname(path) for path in kinds} & self._known.keys():  # noqa: PTH120 - of text
            if state := State.of(parent):
                self._known[parent] = state
        return gone + there

    def _left(self, path: str, was_added: bool, arrived: dict[tuple[int, int, int], str]) -> list[Event]:
        before = self._known.pop(path, None)
        if before is None:
            created = [Event("create", path, False)] if was_added else []
            return [*created, Event("remove", path, False)]
        new = arrived.get(before.identity)
        if new is None:
            return [Event("remove", path, before.is_folder)]
        if before.is_folder:
            for inner in [known for known in self._known if known.startswith(f"{path}/")]:
                self._known[new + inner.removeprefix(path)] = self._known.pop(inner)
        return [Event("rename", path, before.is_folder, new)]

    def _found(self, path: str, state: State, was_modified: bool) -> list[Event]:
        before = self._known.get(path)
        if before is not None or len(self._known) < MOST_KNOWN:
            self._known[path] = state
        if before is None:
            written = [Event("write", path, False)] if was_modified and not state.is_folder else []
            return [Event("create", path, state.is_folder), *written]
        return [Event(kind, path, state.is_folder) for kind in before.changes(state)]

    def _wanted(self, path: str, folder: bool) -> bool:
        if not folder:
            return path == str(self._real)
        try:
            parts = Path(path).relative_to(self._real).parts
        except ValueError:
            return False
        # Skip drafts, except those that an earlier server left behind: they are known from the start.
        if path not in self._known and any(DRAFT.fullmatch(part) for part in parts):
            return False
        if self._exclude.match(parts):
            return False
        return not self._include or self._include.match(parts)

    def _publish(self, events: list[Event]) -> None:
        now = time.time()
        for event in events:
            self.seq += 1
            new = shown(event.new_path) if event.new_path else None
            self.events.append(
                FileEvent(
                    seq=self.seq, type=event.kind, path=shown(event.path), is_directory=event.is_folder,
                    timestamp=now, new_path=new,
                )
            )  # fmt: skip
        self.wake()

    def wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def stop(self) -> None:
        self.stopped.set()
        self.wake()

    def after(self, cursor: int, limit: int) -> PollResult:
        """Events after the cursor, which are kept until they are pushed out by later ones."""
        self.used = time.time()
        first = self.events[0].seq if self.events else self.seq + 1
        skipped = max(0, cursor + 1 - first)
        found = [self.events[place] for place in range(skipped, min(len(self.events), skipped + limit))]
        last = found[-1].seq if found else max(min(cursor, self.seq), first - 1)
        return PollResult(
            watcher_id=self.id, events=found, cursor=last, has_more=last < self.seq, lost=max(0, first - 1 - cursor)
        )

    async def news_or(self, seconds: float) -> None:
        """Until there is an event, the watcher is stopped, or the time is over."""
        try:
            await asyncio.wait_for(self.news.wait(), seconds)
        except TimeoutError:
            return

    @property
    def info(self) -> WatchInfo:
        return WatchInfo(
            watcher_id=self.id, path=self.request.path, recursive=self.request.recursive,
            created_time=iso(self.created), cursor=self.seq,
        )  # fmt: skip


def _notify(path: str, recursive: bool) -> Any:
    """Raises: SandboxError: `quota_exceeded`; OSError."""
    from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

    try:
        try:
            return RustNotify([path], False, False, 0, recursive, False)
        except PermissionError:
            # Watch what may be read. Not so at first: it would keep quiet about the quota, too.
            return RustNotify([path], False, False, 0, recursive, True)
    except (OSError, WatchfilesRustInternalError) as error:
        if FULL_WATCHES in str(error):
            raise quotas.exceeded("file_watches", f"{WATCHES} (fs.inotify.max_user_watches)") from error
        if FULL_INSTANCES in str(error):
            raise quotas.exceeded("file_watches", f"{WATCHES} (fs.inotify.max_user_instances, ulimit -n)") from error
        raise


class Watchers:
    """All watchers, bounded in number; those that nobody asks are stopped after a while.

    Args:
        most: watchers, and waits, at the same time.
        idle_s: life of a watcher that nobody asks.
    """

    def __init__(self, most: int, idle_s: float) -> None:
        self._most = most
        self._idle_s = idle_s
        self._watchers: dict[str, Watcher] = {}
        self._waits = 0

    def all(self) -> list[WatchInfo]:
        self._drop_idle()
        return [watcher.info for watcher in self._watchers.values()]

    async def create(self, real: Path, request: WatchRequest) -> WatchInfo:
        self._drop_idle()
        if len(self._watchers) >= self._most:
            raise SandboxError("limit_reached", f"there are {self._most} watchers already (SANDBOX_MAX_WATCHERS)")
        watcher = Watcher(real, request)
        self._watchers[watcher.id] = watcher
        try:
            await to_thread.run_sync(watcher.start)
        except BaseException as error:
            self._watchers.pop(watcher.id, None)
            watcher.stop()
            if isinstance(error, OSError):
                raise from_os_error(error, request.path) from error
            raise
        return watcher.info

    def get(self, watcher_id: str) -> Watcher:
        """Raises `watcher_not_found`."""
        watcher = self._watchers.get(watcher_id)
        if watcher is None:
            raise SandboxError("watcher_not_found", f"there is no watcher {watcher_id[:80]}")
        return watcher

    async def poll(self, watcher_id: str, request: PollRequest) -> PollResult:
        watcher = self.get(watcher_id)
        deadline = time.monotonic() + request.timeout
        while True:
            result = watcher.after(request.cursor, request.limit)
            left = deadline - time.monotonic()
            if result.events or left <= 0 or watcher.stopped.is_set():
                return result
            await watcher.news_or(left)

    async def stream(self, watcher: Watcher, cursor: int) -> AsyncIterator[str]:
        """Server-sent events; their ids are cursors."""
        while True:
            result = watcher.after(cursor, 1000)
            cursor = result.cursor
            for event in result.events:
                yield f"id: {event.seq}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
            if watcher.stopped.is_set():
                yield "event: end\ndata: {}\n\n"
                return
            if not result.events:
                before = watcher.seq
                await watcher.news_or(KEEP_ALIVE_S)
                if watcher.seq == before:
                    yield ": still here\n\n"

    def drop(self, watcher_id: str) -> None:
        self.get(watcher_id).stop()
        del self._watchers[watcher_id]

    def stop(self) -> None:
        for watcher_id in tuple(self._watchers):
            self.drop(watcher_id)

    def _drop_idle(self) -> None:
        for watcher in tuple(self._watchers.values()):
            if time.time() - watcher.used > self._idle_s:
                self.drop(watcher.id)

    async def wait(self, real: Path, request: WaitRequest) -> WaitResult:
        """Until something happens to one path, which need not exist: it is looked at again and again, as no
        notification covers folders that do not exist yet."""
        if self._waits >= self._most:
            raise SandboxError("limit_reached", f"{self._most} requests wait for files already (SANDBOX_MAX_WATCHERS)")
        self._waits += 1
        try:
            return await self._wait(real, request)
        finally:
            self._waits -= 1

    async def _wait(self, real: Path, request: WaitRequest) -> WaitResult:
        deadline = time.monotonic() + request.timeout
        with _Polled(real) as polled:
            if polled.found and request.accept_existing:
                return _happened(request, "create", polled.found)
            while (left := deadline - time.monotonic()) > 0:
                await asyncio.sleep(min(WAIT_LOOK_S, left))
                kind, found = polled.again()  # some system calls: quicker than a thread
                if kind in request.event_types:
                    return _happened(request, kind, found)
        return WaitResult(path=request.path, triggered=False, timed_out=True)


def _look(real: Path) -> os.stat_result | None:
    try:
        return os.lstat(real)
    except OSError:
        return None


class _Polled:
    """A path that is polled. Its file is held open, to tell a move from a deletion."""

    def __init__(self, real: Path) -> None:
        self._real = real
        self._held = -1
        self.found = self._look()

    def __enter__(self) -> _Polled:
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _look(self) -> os.stat_result | None:
        found = _look(self._real)
        if found and (self._held < 0 or os.fstat(self._held).st_ino != found.st_ino):
            self._let_go()
            with suppress(OSError):
                self._held = os.open(self._real, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        return found

    def again(self) -> tuple[EventType | None, os.stat_result | None]:
        """What has happened since the last look, and what is there."""
        before, self.found = self.found, self._look()
        if before is None or self.found is None:
            if before is self.found:
                return None, None
            return ("remove" if self._is_deleted(before) else "rename") if before else "create", self.found
        if (before.st_ino, before.st_size, before.st_mtime_ns) != (
            self.found.st_ino, self.found.st_size, self.found.st_mtime_ns,
        ):  # fmt: skip
            return "write", self.found
        return "chmod" if before.st_mode != self.found.st_mode else None, self.found

    def _is_deleted(self, before: os.stat_result) -> bool:
        """A file that was moved away has as many names as before."""
        links = os.fstat(self._held).st_nlink if self._held >= 0 else 0
        self._let_go()
        return not links or links < before.st_nlink and not stat.S_ISDIR(before.st_mode)


def _happened(request: WaitRequest, kind: EventType, found: os.stat_result | None) -> WaitResult:
    is_folder = found is not None and stat.S_ISDIR(found.st_mode)
    event = FileEvent(seq=1, type=kind, path=request.path, is_directory=is_folder, timestamp=time.time())
    return WaitResult(path=request.path, triggered=True, event=event)
