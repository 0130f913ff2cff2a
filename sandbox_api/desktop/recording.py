"""Films the desktop with ffmpeg."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from sandbox_api import privileges
from sandbox_api.desktop.models import RecordRequest, RecordResult
from sandbox_api.environment import child_environment
from sandbox_api.errors import SandboxError
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings

FORMATS = {".mp4": "mp4", ".mkv": "matroska"}
START_S = 0.4
"""Within this time ffmpeg has failed, if it is going to: no display, no encoder, no space."""
END_S = 20.0


class Recording:
    """At most one at a time. A file has its final form once `stop` has answered."""

    def __init__(self, settings: Settings, paths: Confinement) -> None:
        self._settings = settings
        self._paths = paths
        self._process: asyncio.subprocess.Process | None = None
        self._path: Path | None = None
        self._started = 0.0
        self._ended: float | None = None
        self._watch: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    def _target(self, wanted: str | None) -> Path:
        name = time.strftime("recordings/recording_%Y%m%d_%H%M%S.mp4")
        path = self._paths.resolve(wanted or str(self._settings.workspace_path / name))
        if path.suffix.lower() not in FORMATS:
            raise SandboxError("invalid_request", f"{path.name} does not end in {' or '.join(FORMATS)}")
        if path.is_dir():
            raise SandboxError("not_a_file", f"{path} is a folder")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise SandboxError("not_a_directory", f"{path.parent} is not a folder") from error
        except OSError as error:
            raise SandboxError("permission_denied", f"cannot create {path.parent}: {error.strerror}") from error
        self._paths.reserve.check(path.parent)
        return path

    async def start(self, request: RecordRequest, width: int, height: int) -> RecordResult:
        """Args: width and height of the screen in pixels."""
        async with self._lock:
            if self._running:
                raise SandboxError("conflict", f"{self._path} is being recorded", hint="Stop that recording first.")
            path = await asyncio.to_thread(self._target, request.save_path)
            # H.264 in its common form takes even numbers only.
            size = [number - number % 2 or 2 for number in (request.width or width, request.height or height)]
            arguments = [
                "ffmpeg", "-nostdin", "-y", "-loglevel", "error",
                "-f", "x11grab", "-framerate", str(request.fps), "-i", self._settings.display or "",
                "-t", str(request.max_duration), "-vf", f"scale={size[0]}:{size[1]}", "-threads", "1",
                "-c:v", "libx264", "-preset", "ultrafast", "-crf", str(request.crf), "-pix_fmt", "yuv420p",
                "-fs", str(self._settings.upload_bytes), "-f", FORMATS[path.suffix.lower()], f"file:{path}",
            ]  # fmt: skip
            environment = child_environment(self._settings)
            try:
                process = await asyncio.create_subprocess_exec(
                    *privileges.dropped(arguments, environment),
                    stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE, env=environment,
                )  # fmt: skip
            except FileNotFoundError as error:
                raise SandboxError("display_unavailable", "ffmpeg is not installed") from error
            self._process, self._path, self._started, self._ended = process, path, time.monotonic(), None
            self._watch = asyncio.create_task(self._follow(process))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._watch), START_S)
            if process.returncode:
                words = (await process.stderr.read(2000)).decode(errors="replace").strip() if process.stderr else ""
                self._path = None
                raise SandboxError("display_unavailable", f"the recording did not start: {words}")
            return self._result("recording")

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self._ended = time.monotonic()

    @property
    def _running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def _result(self, status: str) -> RecordResult:
        duration = (self._ended or time.monotonic()) - self._started if self._path else 0
        return RecordResult.model_validate(
            {
                "status": status,
                "save_path": str(self._path) if self._path else None,
                "duration": round(duration, 2),
                "file_size_bytes": self._path.stat().st_size if self._path and self._path.exists() else None,
            }
        )

    def status(self) -> RecordResult:
        return self._result("recording" if self._running else "stopped" if self._path else "idle")

    async def stop(self) -> RecordResult:
        """End it and wait until the file is whole. Without one, answers the last state."""
        async with self._lock:
            if self._running and self._process:
                self._process.terminate()  # ffmpeg then writes the file's index
                try:
                    await asyncio.wait_for(self._process.wait(), END_S)
                except TimeoutError:
                    self._process.kill()
            if self._watch:
                await self._watch
            return self.status()
