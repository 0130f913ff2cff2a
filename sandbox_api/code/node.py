"""JavaScript: fresh Node.js processes, or sessions that each keep one."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from sandbox_api import privileges
from sandbox_api.code import process as processes
from sandbox_api.code.models import Execution, NodeInfo, NodePackage
from sandbox_api.code.node_process import GRACE_S, PIPES_S, NodeDied, NodeSession, Process, parser_of
from sandbox_api.code.output import Collector, as_count, as_mapping, as_text
from sandbox_api.code.sessions import Session, Sessions, not_entered
from sandbox_api.environment import child_environment
from sandbox_api.errors import SandboxError
from sandbox_api.health import Health
from sandbox_api.settings import Settings
from sandbox_api.unicode import dumps, loads

ONCE = Path(__file__).with_name("once.js")
START_S = 20.0
NO_PARSER = "In sessions, imports need the library acorn: set SANDBOX_WEB_ASSETS, or use require()."
ERROR = re.compile(r"^(?:Uncaught )?(?P<ename>[A-Z]\w*)(?: \[[A-Z_]+\])?: (?P<evalue>.*)$", re.MULTILINE)


class NodeRuntime:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.sessions: Sessions[NodeSession] = Sessions(settings, "JavaScript")
        self._running: set[Process] = set()
        self._probing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Future[Any]] = set()
        self._number = 0
        self.version: str | None = None
        self._problem = ""

    # Life

    async def start(self) -> None:
        self.sessions.start()
        if self._settings.node is None:
            self._problem = "no Node.js was found; install it, or set SANDBOX_NODE"
        else:
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        code, output = await self._ask(str(self._settings.node), "--version")
        if code:
            self._problem = f"{self._settings.node} does not work: {output[:300]}"
        else:
            self.version = output.removeprefix("v")

    async def _ask(self, *command: str) -> tuple[int, str]:
        try:
            process = await asyncio.create_subprocess_exec(
                *privileges.dropped(command), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL, env=child_environment(self._settings),
            )  # fmt: skip
        except OSError as error:
            return 127, str(error.strerror)
        try:
            output, _ = await asyncio.wait_for(process.communicate(), START_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            return 124, "no answer"
        return process.returncode or 0, output.decode(errors="replace").strip()

    async def stop(self) -> None:
        if self._probing:
            self._probing.cancel()
        await self.sessions.stop()
        await asyncio.gather(*(process.finish() for process in list(self._running)), *self._tasks)

    async def health(self) -> Health:
        if self._problem:
            return Health(status="unavailable", detail=self._problem)
        return Health(status="ready" if self.version else "starting", version=self.version)

    def _check(self) -> None:
        if self._problem:
            raise SandboxError("code_unavailable", f"JavaScript is not available: {self._problem}")

    # Executions

    async def execute(
        self,
        code: str,
        *,
        session_id: str | None,
        cwd: Path | None,
        timeout: float | None,
        stateful: bool,
        stdin: str | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Execution:
        """Run code in a process of its own, or in a session.

        Raises:
            SandboxError: `code_unavailable`, `kernel_failed` (with the outputs so far), `limit_reached`,
                `session_busy`, `invalid_request` for a file's path.
        """
        self._check()
        seconds = timeout or self._settings.code_timeout_s
        if stateful:
            if stdin or files:
                raise SandboxError("invalid_request", "stdin and files are for stateless executions")
            return await self._in_session(code, session_id, cwd, seconds)
        with self.sessions.once():
            return await self._once(code, cwd or self._settings.workspace_path, seconds, stdin, files or {})

    async def _once(
        self, code: str, cwd: Path, seconds: float, stdin: str | None, files: Mapping[str, str]
    ) -> Execution:
        answer, collector = Execution(status="ok", code=code), Collector(self._settings)
        folders: list[Path] = []
        process = Process()
        process.pipes.sink = collector.stream
        start = time.monotonic()
        try:
            self._settings.cache.mkdir(parents=True, exist_ok=True, mode=0o700)  # code may have deleted it
            job = Path(tempfile.mkdtemp(prefix="once-", dir=self._settings.cache))
            folders.append(job)
            await asyncio.to_thread(self._write_job, job, code)
            if files:
                cwd = await asyncio.to_thread(_write_files, cwd, files)
                folders.append(cwd)
            options: dict[str, Any] = {"stdin": asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL}
            arguments = ["--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", str(ONCE), str(job)]
            await process.spawn(self._settings, arguments, cwd, **options)
            self._running.add(process)
            if stdin and (pipe := process.transport.get_pipe_transport(0)):
                writer = cast(asyncio.WriteTransport, pipe)
                writer.write(stdin.encode())
                writer.write_eof()
            await asyncio.wait({process.pipes.ended}, timeout=seconds)
            timed_out = not process.pipes.ended.done()
            if not timed_out:
                await asyncio.wait({process.pipes.closed}, timeout=PIPES_S)
                answer.exit_code = process.returncode or 0
            await process.finish()
            result = await asyncio.to_thread(_read_value, job)
        finally:
            if process in self._running:
                self._running.discard(process)
                await process.finish()
            for folder in folders:
                await asyncio.to_thread(shutil.rmtree, folder, True)
        if result:
            collector.rich(result, is_result=True)
        if timed_out:
            answer.time_out(seconds, "the process was ended")
        elif answer.exit_code:
            answer.status = "error"
            if answer.exit_code < 0:
                answer.note = f"The process is gone: {processes.cause(answer.exit_code)}."
                answer.exit_code = 128 - answer.exit_code
            written = str(collector.fields()["stderr"])
            found = next(iter(ERROR.finditer(written)), None)
            name, value = (found["ename"], found["evalue"]) if found else ("Exit", f"exit code {answer.exit_code}")
            collector.fail({"ename": name, "evalue": value, "traceback": written.splitlines()})
        return collector.completed(answer, start)

    def _write_job(self, folder: Path, code: str) -> None:
        job = {"code": code, "parser": parser_of(self._settings), "limit": self._settings.answer_output_chars}
        (folder / "job.json").write_bytes(dumps(job))

    async def _in_session(self, code: str, session_id: str | None, cwd: Path | None, seconds: float) -> Execution:
        session, new = await self.sessions.obtain(session_id, cwd or self._settings.workspace_path)
        async with self.sessions.turn(session):
            answer = Execution(status="ok", code=code, session_id=session.id, new_session=new)
            node = session.runtime
            fresh = node is None or not node.alive
            folder = session.enter(cwd, fresh)
            if node is None or fresh:
                node = session.runtime = NodeSession(self._settings)
                try:
                    await node.start(folder or session.cwd)
                except BaseException:
                    session.runtime = None
                    raise
            try:
                return await self._run(node, code, folder, seconds, answer, session)
            finally:
                if not node.alive:
                    session.runtime = None
                    task = asyncio.ensure_future(node.end())
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _run(
        self,
        node: NodeSession,
        code: str,
        cwd: Path | None,
        seconds: float,
        answer: Execution,
        session: Session[NodeSession],
    ) -> Execution:
        collector = node.outputs
        self._number += 1
        start = time.monotonic()
        request = {"id": self._number, "code": code, "cwd": str(cwd) if cwd else None}
        work = asyncio.ensure_future(node.send(request))
        reply: dict[str, Any] = {}
        timed_out = False
        try:
            await asyncio.wait({work}, timeout=seconds)
            if not work.done():
                timed_out = True
                node.interrupt()
                await asyncio.wait({work}, timeout=GRACE_S)
            if work.done():
                reply = work.result()
            else:
                answer.restarted = True
                await node.end()
        except NodeDied as error:
            answer.restarted, answer.exit_code = True, 1
            if not timed_out:
                answer.status = "error"
                data = collector.completed(answer, start)
                raise SandboxError("kernel_failed", str(error), data=data.model_dump(mode="json")) from error
        except asyncio.CancelledError:
            await node.end()
            raise
        finally:
            node.renew_outputs()
            if not work.done():
                work.cancel()
            work.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        if cwd and (refused := as_mapping(reply.get("refused"))):
            raise not_entered(cwd, as_text(refused.get("code", "")), as_text(refused.get("message", "")))
        if cwd and reply:
            session.entered(cwd)
        answer.execution_count = as_count(reply.get("count"))
        if error_ := as_mapping(reply.get("error")):
            collector.fail(error_)
            answer.status, answer.exit_code = "error", 1
            if "import" in code and parser_of(self._settings) is None:
                answer.note = NO_PARSER
        elif data_ := reply.get("data"):
            collector.rich(data_, count=answer.execution_count, is_result=True)
        if timed_out:
            answer.time_out(seconds)
        return collector.completed(answer, start)

    # Information

    async def info(self) -> NodeInfo:
        self._check()
        if self._probing:
            await self._probing
        self._check()
        assert self._settings.node is not None and self.version is not None
        modules = [
            place / "node_modules"
            for place in (self._settings.node.parent.parent / "lib", self._settings.node.parent.parent)
        ]
        found = next((place for place in modules if place.is_dir()), None)
        everywhere = await asyncio.to_thread(_packages, found)
        here = await asyncio.to_thread(_packages, self._settings.workspace_path / "node_modules")
        npm = next((package.version for package in everywhere if package.name == "npm"), "")
        major = f"node{self.version.split('.')[0]}"
        return NodeInfo(
            node_version=f"v{self.version}",
            npm_version=npm,
            description="Node.js: fresh processes, or sessions that keep their state.",
            runtime_directory=str(self._settings.workspace_path),
            global_npm_directory=str(found) if found else None,
            runtime_packages=here,
            global_packages=everywhere,
            available_versions=[major],
            current_version=major,
        )

    async def check_version(self, wanted: str | None) -> None:
        """
        Raises:
            SandboxError: `code_unavailable`: another version is installed.
        """
        self._check()
        if wanted is None:
            return
        if self._probing:
            await self._probing
        major = (self.version or "").split(".")[0]
        if wanted.lower().removeprefix("node").removeprefix("v").split(".")[0] != major:
            raise SandboxError(
                "code_unavailable",
                f"Node.js {wanted[:20]} is not installed",
                hint=f"Omit the version, or use node{major}.",
            )


def _write_files(cwd: Path, files: Mapping[str, str]) -> Path:
    """A temporary folder in `cwd`, where modules of `cwd` are found, with the files.

    Raises:
        SandboxError: `invalid_request` for a path, `permission_denied`, `io_error`.
    """
    for name in files:
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name or ":" in name:
            raise SandboxError("invalid_request", f"a file's path must be relative and stay inside: {name[:200]}")
    try:
        folder = Path(tempfile.mkdtemp(prefix=".node-", dir=cwd))
    except OSError as error:
        raise SandboxError("permission_denied", f"cannot write to {cwd}: {error.strerror}") from error
    try:
        for name, text in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="")
    except (OSError, UnicodeEncodeError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise SandboxError("io_error", f"a file cannot be written: {error}") from error
        raise
    return folder


def _read_value(job: Path) -> dict[str, Any] | None:
    """The value that the code left, if any."""
    try:
        value = loads((job / "value.json").read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _packages(folder: Path | None) -> list[NodePackage]:
    """Names and versions of the packages in a node_modules folder; at most 1000."""
    packages: list[NodePackage] = []
    if folder is None or not folder.is_dir():
        return packages
    with contextlib.suppress(OSError):
        for manifest in sorted([*folder.glob("*/package.json"), *folder.glob("@*/*/package.json")])[:1000]:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                version = loads(manifest.read_text(encoding="utf-8")).get("version", "")
                name = manifest.parent.relative_to(folder).as_posix()
                packages.append(NodePackage(name=name, version=str(version)))
    return packages
