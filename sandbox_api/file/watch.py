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
from pathlib import Path

from anyio import to_thread

from sandbox_api.errors import SandboxError
from sandbox_api.file.failures import from_os_error, shown
from sandbox_api.file.folder import TEMPORARY
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
        # Editors and our own writes replace a file by another one; that is told as a write, not as a creation.
        self._known: set[str] = set()

    def start(self) -> None:
        """Returns when nothing that happens from now on is missed. Blocks.

        Raises:
            OSError: it cannot be watched.
        """
        from watchfiles._rust_notify import RustNotify

        folder = stat.S_ISDIR(self._real.stat().st_mode)
        # A file that is replaced takes a watch on itself along; its folder sees the new one.
        watched = self._real if folder else self._real.parent
        recursive = folder and self.request.recursive
        notify = RustNotify([str(watched)], False, False, 0, recursive, True)
        if folder:
            budget = Budget(SNAPSHOT_S)
            for entry, _ in walk(str(watched), budget, lambda _, parts: recursive and not self._exclude.match(parts)):
                self._known.add(entry.path)
                if len(self._known) >= MOST_KNOWN:
                    break
        else:
            self._known.add(str(self._real))
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

    def _events(self, changes: set[tuple[int, str]], folder: bool) -> list[tuple[EventType, str, bool]]:
        events: list[tuple[EventType, str, bool]] = []
        seen: dict[str, set[int]] = {}
        for change, path in sorted(changes, key=lambda item: item[1]):
            if self._wanted(path, folder):
                seen.setdefault(path, set()).add(change)
        for path, kinds in seen.items():
            try:
                is_folder = Path(path).is_dir()
                exists = os.path.lexists(path)
            except OSError:
                is_folder = exists = False
            if not exists:
                if path not in self._known and 1 in kinds:
                    events.append(("create", path, False))
                self._known.discard(path)
                events.append(("remove", path, False))
            elif path in self._known:
                events.append(("write", path, is_folder))
            else:
                if len(self._known) < MOST_KNOWN:
                    self._known.add(path)
                events.append(("create", path, is_folder))
                if 2 in kinds and not is_folder:
                    events.append(("write", path, False))
        return events

    def _wanted(self, path: str, folder: bool) -> bool:
        if not folder:
            return path == str(self._real)
        try:
            parts = Path(path).relative_to(self._real).parts
        except ValueError:
            return False
        if any(part.startswith(TEMPORARY) for part in parts) or self._exclude.match(parts):
            return False
        return not self._include or self._include.match(parts)

    def _publish(self, events: list[tuple[EventType, str, bool]]) -> None:
        now = time.time()
        for kind, path, is_folder in events:
            self.seq += 1
            self.events.append(
                FileEvent(seq=self.seq, type=kind, path=shown(path), is_directory=is_folder, timestamp=now)
            )
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
        before = _look(real)
        if before and request.accept_existing:
            return _happened(request, "create", before)
        while (left := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(WAIT_LOOK_S, left))
            now = _look(real)  # one system call: quicker than a thread
            kind = _difference(before, now)
            if kind in request.event_types:
                return _happened(request, kind, now)
            before = now
        return WaitResult(path=request.path, triggered=False, timed_out=True)


def _look(real: Path) -> os.stat_result | None:
    try:
        return os.lstat(real)
    except OSError:
        return None


def _difference(before: os.stat_result | None, now: os.stat_result | None) -> EventType | None:
    if before is None or now is None:
        return None if before is now else "create" if now else "remove"
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (now.st_ino, now.st_size, now.st_mtime_ns):
        return "write"
    return "chmod" if before.st_mode != now.st_mode else None


def _happened(request: WaitRequest, kind: EventType, found: os.stat_result | None) -> WaitResult:
    is_folder = found is not None and stat.S_ISDIR(found.st_mode)
    event = FileEvent(seq=1, type=kind, path=request.path, is_directory=is_folder, timestamp=time.time())
    return WaitResult(path=request.path, triggered=True, event=event)
