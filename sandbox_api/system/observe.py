"""Watches what the sandbox uses: live, and over time into reports."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
import tarfile
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sandbox_api.errors import SandboxError
from sandbox_api.log import logger
from sandbox_api.settings import Settings
from sandbox_api.system.models import (
    LiveSnapshot,
    Mode,
    ObservationEvent,
    ObservationReport,
    ObservationStartResult,
    ObservationStatus,
    ObservationStopResult,
    ObserveExport,
    ObserveStart,
)
from sandbox_api.system.usage import Meter
from sandbox_api.unicode import dump_model, loads

DURATION_S = 300
INTERVAL_S = {"capture": 1.0, "guardrail": 5.0}
SAMPLES_BYTES = 16 * 2**20
"""A session's samples end there: a report stays small whatever was asked for."""
MOST_REPORTS = 50
MOST_SESSIONS = 10
MOST_PROCESSES = 200
SAMPLED_PROCESSES = 20
SCARCE_PERCENT = 90.0
REPORT_ID = re.compile(r"[0-9a-f]{12}")


class Session:
    """One observation, from start to stop, with its samples in a folder."""

    def __init__(self, request: ObserveStart, folder: Path) -> None:
        self.id = secrets.token_hex(6)
        self.request = request
        self.mode: Mode = request.mode
        self.interval = request.interval_seconds or INTERVAL_S[request.mode]
        self.started = datetime.now(UTC)
        self.ends = self.started + timedelta(seconds=request.duration_seconds or DURATION_S)
        self.folder = folder / self.id
        self.last_sample: datetime | None = None
        self.task: asyncio.Task[None] | None = None

    def described(self) -> dict[str, Any]:
        return {
            "session_id": self.id,
            "mode": self.mode,
            "started_at": self.started,
            "ends_at": self.ends,
            "interval_seconds": self.interval,
            "runtime_dir": str(self.folder),
        }

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done()


class Observer:
    def __init__(self, settings: Settings) -> None:
        self.folder = settings.cache / "observe"
        self.meter = Meter(settings)
        self.events: deque[ObservationEvent] = deque(maxlen=50)
        self._noted = 0
        self._scarce: set[str] = set()
        self._kills: int | None = None
        self._sessions: dict[str, Session] = {}
        self._exports: dict[str, str] = {}
        self._lock = asyncio.Lock()

    @property
    def _session(self) -> Session | None:
        return next(reversed(self._sessions.values()), None)

    @property
    def mode(self) -> Mode:
        return self._session.mode if self._session and self._session.running else "off"

    def _shot(self, processes: int, disk: bool) -> LiveSnapshot:
        shot = LiveSnapshot(
            captured_at=datetime.now(UTC),
            mode=self.mode,
            cgroup=self.meter.totals(),
            disk=self.meter.disks() if disk else [],
            top_processes=self.meter.processes(processes) if processes else [],
        )
        self._notice(shot)
        return shot

    def _notice(self, shot: LiveSnapshot) -> None:
        """Note what has become scarce, once until it is no longer."""
        readings = {"memory": shot.cgroup.mem_usage_pct or 0.0}
        readings |= {f"disk {disk.path}": disk.usage_pct for disk in shot.disk}
        for what, percent in readings.items():
            if percent < SCARCE_PERCENT:
                self._scarce.discard(what)
            elif what not in self._scarce:
                self._scarce.add(what)
                self._note(shot, "scarce", f"{what}: {percent} % used")
        kills = shot.cgroup.oom_kill
        if kills is not None and self._kills is not None and kills > self._kills:
            self._note(shot, "oom_kill", "the kernel ended a process for lack of memory")
        self._kills = kills

    def _note(self, shot: LiveSnapshot, kind: str, message: str) -> None:
        self.events.append(ObservationEvent(ts=shot.captured_at, type=kind, message=message))
        self._noted += 1

    async def live(self, rows: int) -> LiveSnapshot:
        async with self._lock:
            shot = await asyncio.to_thread(self._shot, min(rows, MOST_PROCESSES), True)
        shot.recent_events = list(self.events)
        return shot

    async def status(self) -> ObservationStatus:
        reports = len(await self.reports())
        session = self._session
        if session is None:
            return ObservationStatus(mode="off", running=False, report_count=reports)
        facts = {**session.described(), "mode": self.mode, "last_sample_at": session.last_sample}
        return ObservationStatus(running=session.running, report_count=reports, **facts)

    async def start(self, request: ObserveStart) -> ObservationStartResult:
        """Begin to sample; the same idempotency key again gives the same session.

        Raises:
            SandboxError: `conflict`, another session runs.
        """
        session = self._session
        key = request.idempotency_key
        repeated = session is not None and key is not None and key == session.request.idempotency_key
        if session is None or not repeated:
            if session and session.running:
                raise SandboxError("conflict", f"session {session.id} runs", hint="Stop it first.")
            folder = self.folder / "sessions"
            if not self._sessions:  # what is there is of an earlier run of the server
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            session = Session(request, folder)
            await asyncio.to_thread(session.folder.mkdir, parents=True)
            self._sessions[session.id] = session
            session.task = asyncio.create_task(self._sample(session))
            while len(self._sessions) > MOST_SESSIONS:
                oldest = self._sessions.pop(next(iter(self._sessions)))
                await asyncio.to_thread(shutil.rmtree, oldest.folder, ignore_errors=True)
        return ObservationStartResult(**session.described())

    async def _sample(self, session: Session) -> None:
        """Write a line a sample until the session's time or room is over."""
        wanted = session.request.include_processes
        processes = SAMPLED_PROCESSES if (session.mode == "capture" if wanted is None else wanted) else 0
        room, seen = SAMPLES_BYTES, self._noted
        deadline = time.monotonic() + (session.ends - session.started).total_seconds()
        while room > 0 and (left := deadline - time.monotonic()) > 0:
            try:
                async with self._lock:
                    shot = await asyncio.to_thread(self._shot, processes, session.request.include_disk)
                session.last_sample = shot.captured_at
                fresh, seen = self._noted - seen, self._noted
                shot.recent_events = list(self.events)[-fresh:] if fresh else []
                if session.mode == "capture" or shot.recent_events:
                    line = dump_model(shot) + b"\n"
                    room -= len(line)
                    await asyncio.to_thread(self._append, session.folder / "samples.jsonl", line)
            except OSError as error:
                logger.warning("observation", session=session.id, problem=str(error))
            await asyncio.sleep(min(session.interval, left))

    @staticmethod
    def _append(path: Path, line: bytes) -> None:
        with path.open("ab") as file:
            file.write(line)

    def _find(self, session_id: str | None) -> Session:
        session = self._sessions.get(session_id) if session_id else self._session
        if session is None:
            raise SandboxError("session_not_found", f"no observation {session_id or 'was started'}")
        return session

    async def stop(self, session_id: str | None) -> ObservationStopResult:
        """Raises: SandboxError: `session_not_found`."""
        session = self._find(session_id)
        stopped = session.running
        await self._end(session)
        return ObservationStopResult(session_id=session.id, stopped=stopped, report_ready=True)

    @staticmethod
    async def _end(session: Session) -> None:
        if session.task:
            session.task.cancel()
            await asyncio.gather(session.task, return_exceptions=True)

    async def close(self) -> None:
        for session in self._sessions.values():
            await self._end(session)

    async def export(self, request: ObserveExport) -> ObservationReport:
        """Pack a session's samples; without any session, one sample of now.

        Raises:
            SandboxError: `session_not_found`, `limit_reached`.
        """
        if request.idempotency_key and (known := self._exports.get(request.idempotency_key)):
            return await self.report(known)
        session = self._find(request.session_id) if request.session_id or self._session else None
        reports = await self.reports()
        if len(reports) >= MOST_REPORTS:
            raise SandboxError("limit_reached", f"there are {MOST_REPORTS} reports", hint="Delete one of them.")
        report = secrets.token_hex(6)
        about = {
            "report_id": report,
            "session_id": session.id if session else None,
            "reason": request.reason,
            "created_at": datetime.now(UTC).isoformat(),
        }
        shot = await self.live(MOST_PROCESSES)
        await asyncio.to_thread(self._pack, report, about, session, shot)
        if request.idempotency_key:
            self._exports[request.idempotency_key] = report
            while len(self._exports) > MOST_REPORTS:
                del self._exports[next(iter(self._exports))]
        return await self.report(report)

    def _pack(self, report: str, about: dict[str, str | None], session: Session | None, shot: LiveSnapshot) -> None:
        folder = self.folder / "reports" / report
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(about))
        (folder / "now.json").write_bytes(dump_model(shot))
        with tarfile.open(folder / "report.tar.gz", "w:gz") as archive:
            archive.add(folder / "report.json", "report.json")
            archive.add(folder / "now.json", "now.json")
            if session and (session.folder / "samples.jsonl").exists():
                archive.add(session.folder / "samples.jsonl", "samples.jsonl")

    async def reports(self) -> list[ObservationReport]:
        return await asyncio.to_thread(self._reports)

    def _reports(self) -> list[ObservationReport]:
        found = [self._read(path) for path in (self.folder / "reports").glob("*/report.json")]
        return sorted((report for report in found if report), key=lambda report: report.created_at)

    @staticmethod
    def _read(path: Path) -> ObservationReport | None:
        archive = path.with_name("report.tar.gz")
        try:
            about = loads(path.read_text())
            return ObservationReport(**about, path=str(archive), size_bytes=archive.stat().st_size)
        except (OSError, ValueError):
            return None

    async def report(self, report_id: str) -> ObservationReport:
        """Raises: SandboxError: `report_not_found`."""
        path = self.folder / "reports" / report_id / "report.json"
        found = await asyncio.to_thread(self._read, path) if REPORT_ID.fullmatch(report_id) else None
        if found is None:
            raise SandboxError("report_not_found", f"there is no report {report_id}")
        return found

    async def delete(self, report_id: str) -> ObservationReport:
        """Raises: SandboxError: `report_not_found`."""
        report = await self.report(report_id)
        await asyncio.to_thread(shutil.rmtree, self.folder / "reports" / report_id)
        return report
