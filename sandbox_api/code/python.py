"""Python: sessions of kernels, and one kernel that is always warm for the next of them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from sandbox_api import privileges
from sandbox_api.code.kernel import Kernel, KernelDied, Run
from sandbox_api.code.models import Execution
from sandbox_api.code.output import TEXT, Collector, as_mapping, as_text
from sandbox_api.code.sessions import Session, Sessions, not_entered
from sandbox_api.errors import SandboxError
from sandbox_api.head_tail import clipped
from sandbox_api.health import Health
from sandbox_api.log import logger
from sandbox_api.settings import Settings
from sandbox_api.unicode import ANSI

GRACE_S = 3.0
"""Time to obey an interrupt."""
LONGEST_SOCKET_FOLDER = 80
"""Characters; the path of a unix socket has at most 107."""
PROBE = "import ipykernel, platform; print(platform.python_version(), ipykernel.__version__)"


class PythonRuntime:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.sessions: Sessions[Kernel] = Sessions(settings, "Python")
        self._warm: asyncio.Task[Kernel] | None = None
        self._kernels: set[Kernel] = set()
        self._folder: Path | None = None
        self._context: Any = None
        self._stopping = False
        self._failure = ""
        self._unavailable = ""
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Future[Any]] = set()
        self.version: str | None = None
        self.ipykernel: str | None = None

    # Life

    async def start(self) -> None:
        self.sessions.start()
        self._warm_up()

    async def stop(self) -> None:
        self._stopping = True
        if self._warm:
            self._warm.cancel()
            await asyncio.wait({self._warm}, timeout=10)
        await self.sessions.stop()
        await asyncio.gather(*(kernel.end() for kernel in list(self._kernels)), *self._tasks)
        if self._context is not None:
            self._context.destroy(linger=0)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def health(self) -> Health:
        if self._unavailable:
            return Health(status="unavailable", detail=self._unavailable)
        if self._failure:
            return Health(status="failed", detail=self._failure, version=self.version)
        ready = self.version is not None and self._warm is not None and (self._warm.done() or len(self._kernels) > 1)
        detail = "" if ready else "the first kernel is starting"
        return Health(status="ready" if ready else "starting", detail=detail, version=self.version)

    # Kernels

    def _warm_up(self) -> None:
        if not self._stopping and self._warm is None:
            self._warm = asyncio.create_task(self._new())
            # Health reports a failure, and so does the call that gets this task.
            self._warm.add_done_callback(lambda task: None if task.cancelled() else task.exception())

    async def _open(self) -> None:
        async with self._opening:
            if self._context is None:
                self._folder = await asyncio.to_thread(self._make_folder)
                self._context = await asyncio.to_thread(_context)
            if self.version is None:
                await self._probe()

    def _make_folder(self) -> Path:
        """Where connection files and sockets lie; only we can enter it."""
        place = self._settings.cache / "kernels"
        if len(str(place)) > LONGEST_SOCKET_FOLDER:
            return Path(tempfile.mkdtemp(prefix="sandbox-"))
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Path(tempfile.mkdtemp(dir=place))

    async def _probe(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *privileges.dropped([str(self._settings.python), "-c", PROBE]),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            self._unavailable = f"{self._settings.python} cannot be started: {error.strerror}"
            raise SandboxError("code_unavailable", self._unavailable) from error
        answer, problem = await process.communicate()
        if process.returncode:
            last = problem.decode(errors="replace").strip().rsplit("\n", 1)[-1]
            self._unavailable = f"{self._settings.python} has no usable ipykernel ({clipped(last, 300)})"
            raise SandboxError(
                "code_unavailable", self._unavailable, hint="pip install ipykernel there, or set SANDBOX_PYTHON."
            )
        self._unavailable = ""
        self.version, self.ipykernel = answer.decode().split()

    async def _new(self) -> Kernel:
        await self._open()
        assert self._folder is not None
        kernel = Kernel(self._settings, self._folder, self._context)
        self._kernels.add(kernel)
        try:
            await kernel.start(self._settings.workspace_path)
        except KernelDied as error:
            self._kernels.discard(kernel)
            self._failure = str(error)
            logger.warning("kernel failed to start", reason=str(error))
            raise SandboxError("kernel_failed", str(error)) from error
        except BaseException:
            self._kernels.discard(kernel)
            raise
        self._failure = ""
        return kernel

    async def _take(self) -> Kernel:
        """The warm kernel, or a new one when another call was faster.

        Raises:
            SandboxError: `code_unavailable`, `kernel_failed`.
        """
        if self._stopping:
            raise SandboxError("code_unavailable", "the sandbox is stopping")
        while True:
            task, self._warm = self._warm, None
            try:
                kernel = await (task or self._new())
            finally:
                self._warm_up()
            if kernel.alive:
                return kernel
            await self._discard(kernel)

    async def _discard(self, kernel: Kernel) -> None:
        await kernel.end()
        self._kernels.discard(kernel)

    # Executions

    async def execute(
        self, code: str, *, session_id: str | None, cwd: Path | None, timeout: float | None, stateful: bool
    ) -> Execution:
        """Run code in a session, or in a kernel of its own that ends with it.

        Raises:
            SandboxError: `code_unavailable`, `kernel_failed` (with the outputs so far), `limit_reached`,
                `session_busy`.
        """
        seconds = timeout or self._settings.code_timeout_s
        if not stateful:
            with self.sessions.once():
                kernel = await self._take()
                try:
                    return await self._run(kernel, code, cwd, seconds, Execution(status="ok", code=code))
                finally:
                    # The answer need not wait for the end of a process.
                    self._later(self._discard(kernel))
        session, new = await self.sessions.obtain(session_id, cwd or self._settings.workspace_path)
        async with self.sessions.turn(session):
            answer = Execution(status="ok", code=code, session_id=session.id, new_session=new)
            try:
                kernel, fresh = await self._kernel_of(session)
            except SandboxError:
                if new:
                    await self.sessions.discard(session)
                raise
            folder = session.enter(cwd, fresh)
            try:
                return await self._run(kernel, code, folder, seconds, answer, session)
            finally:
                if not kernel.alive:
                    session.runtime = None
                    self._later(self._discard(kernel))

    async def create(self, session_id: str | None, cwd: Path | None) -> tuple[Session[Kernel], bool]:
        """A session with a kernel that is ready; and whether it was made.

        Raises:
            SandboxError: `code_unavailable`, `kernel_failed`, `limit_reached`.
        """
        identity = session_id or self.sessions.new_id()
        session, new = await self.sessions.obtain(identity, cwd or self._settings.workspace_path)
        if new:
            try:
                async with self.sessions.turn(session):
                    await self._kernel_of(session)
                    session.moved = True
            except BaseException:
                await self.sessions.discard(session)
                raise
        return session, new

    async def _kernel_of(self, session: Session[Kernel]) -> tuple[Kernel, bool]:
        if session.runtime and session.runtime.alive:
            return session.runtime, False
        kernel = await self._take()
        if session.ended:
            self._later(self._discard(kernel))
            raise SandboxError("session_not_found", f"session {session.id} was ended")
        session.runtime = kernel
        return kernel, True

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _finish(kernel: Kernel, run: Run, seconds: float, answer: Execution) -> None:
        """Wait for a run. When its time is over, it is interrupted and the answer's status is `timeout`.

        Raises:
            KernelDied: the kernel has ended.
        """
        await asyncio.wait({run.done}, timeout=max(0.0, seconds))
        if not run.done.done():
            answer.status = "timeout"
            kernel.interrupt()
            await asyncio.wait({run.done}, timeout=GRACE_S)
        if run.done.done():
            run.done.result()
        else:
            answer.restarted = True
            await kernel.end()

    async def _run(
        self,
        kernel: Kernel,
        code: str,
        cwd: Path | None,
        seconds: float,
        answer: Execution,
        session: Session[Kernel] | None = None,
    ) -> Execution:
        collector = Collector(self._settings)
        start = time.monotonic()
        run: Run | None = None
        try:
            if cwd:
                entering = kernel.enter(cwd)
                await self._finish(kernel, entering, seconds, answer)
                if answer.status == "ok":
                    if refusal := kernel.refusal(entering):
                        raise not_entered(cwd, *refusal)
                    if session:
                        session.entered(cwd)
            if answer.status == "ok":
                run = kernel.execute(code, collector)
                await self._finish(kernel, run, seconds - (time.monotonic() - start), answer)
        except KernelDied as error:
            if answer.status == "ok":
                answer.status, answer.restarted, answer.exit_code = "error", True, 1
                data = collector.completed(answer, start)
                raise SandboxError("kernel_failed", str(error), data=data.model_dump(mode="json")) from error
            answer.restarted = True
        except asyncio.CancelledError:
            await kernel.end()
            raise
        if answer.status == "timeout":
            answer.time_out(seconds)
        if run is not None:
            await self._read_reply(kernel, run, collector, answer)
        return collector.completed(answer, start)

    @staticmethod
    async def _read_reply(kernel: Kernel, run: Run, collector: Collector, answer: Execution) -> None:
        """What the kernel says beside the outputs."""
        answer.execution_count = run.count
        if run.lost:
            answer.note = answer.note or "Output was lost: it came faster, or was larger, than can be sent."
            if kernel.alive:
                await kernel.reconnect()
        if answer.status == "ok" and run.reply.get("status") == "error":
            answer.status, answer.exit_code = "error", 1
            if run.reply.get("ename") == "StdinNotImplementedError":
                answer.note = "There is no standard input here: put the values into the code."
        payloads = run.reply.get("payload")
        for payload in map(as_mapping, payloads if isinstance(payloads, list) else ()):
            # Help (`name?`) comes this way.
            if payload.get("source") == "page" and (text := as_mapping(payload.get("data")).get(TEXT)):
                collector.stream("stdout", ANSI.sub("", as_text(text)))
            elif payload.get("source") == "ask_exit":
                answer.restarted = True
                await kernel.end()


def _context() -> Any:
    """ZMQ's own context; its import is not for the event loop."""
    import zmq

    return zmq.Context(io_threads=1)
