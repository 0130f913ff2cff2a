"""One Python kernel: a process of ipykernel, spoken to over ZMQ directly."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox_api import family, privileges
from sandbox_api.code import process as processes
from sandbox_api.code.output import Collector, as_count, as_mapping, as_text
from sandbox_api.code.wire import LARGEST, Channel, Codec, Message
from sandbox_api.environment import child_environment
from sandbox_api.settings import Settings

START_S = 60.0
END_S = 5.0
IDLE_GRACE_S = 1.0
"""How long the last outputs may come after the reply; when none come, ZMQ has dropped them."""
ENTERED = "entered"
PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
# No history database: every execution would write to it.
ARGUMENTS = ("-m", "ipykernel_launcher", "--HistoryManager.enabled=False")
# What IPython otherwise does at the first execution, result, output and error.
WARM_UP = """
import sys as _s
print(end=" "); print(end=" ", file=_s.stderr)
try: 1 / 0
except ZeroDivisionError: get_ipython().InteractiveTB.text(*_s.exc_info())
get_ipython().display_formatter.format(_s)
del _s
"""
# jupyter_client cannot encode lone surrogates: the message is dropped, even a reply. Escaped, they get through, and our
# side replaces them.
PACK = """
def _pack():
    import json
    session = get_ipython().kernel.session
    packed = session.pack
    def pack(message):
        try:
            return packed(message)
        except UnicodeEncodeError:
            return json.dumps(message, default=str).encode()
    session.pack = pack
_pack()
del _pack
"""
# What programs write to the kernel's own descriptors comes to IPython by a pipe and a thread. After code that ran
# programs, wait until all of it has come, so that it belongs to that code and not to the next.
SETTLE = """
def _settle():
    import array, fcntl, resource, termios, time
    seen = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
    def settle():
        nonlocal seen
        ran = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
        for descriptor in (1, 2):
            for _ in range(100):
                waiting = array.array("i", [0])
                try:
                    fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
                except OSError:  # no pipe: the code has put something else there
                    break
                if not waiting[0]:
                    break
                seen = -1
                time.sleep(0.001)
        if ran != seen:
            seen = ran
            time.sleep(0.003)
    get_ipython().events.register("post_execute", settle)
_settle()
del _settle
"""


class KernelDied(Exception):
    """The kernel's process has ended; the message says how."""


class Run:
    """One execution: done when the kernel has replied and is idle, so that all outputs are there."""

    def __init__(self, identity: str, collector: Collector | None) -> None:
        self.identity = identity
        self.collector = collector
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reply: dict[str, Any] = {}
        self.idle = False
        self.lost = False
        self.heard = 0.0
        self.count: int | None = None

    def settle(self, error: Exception | None = None) -> None:
        if self.done.done():
            return
        if error:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)


class Kernel:
    """Runs one piece of code at a time; callers see to the order."""

    def __init__(self, settings: Settings, folder: Path, context: Any) -> None:
        self._settings = settings
        self._context = context
        self._name = secrets.token_hex(4)
        self._folder = folder
        self._run: Run | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._channels: list[Channel] = []
        self.alive = False
        self.version = ""
        self._mark = family.new_mark()

    # Start and end

    def _connection(self) -> dict[str, Any]:
        # The folder is ours alone, so that messages need no signature.
        place = {"transport": "ipc", "ip": str(self._folder / self._name), "key": ""}
        return {**place, "signature_scheme": "hmac-sha256", **{name: n for n, name in enumerate(PORTS, 1)}}

    async def start(self, cwd: Path) -> None:
        """Start the process, and return when it has executed its first code.

        Raises:
            KernelDied: it did not come up.
        """
        connection = self._connection()
        file = self._folder / f"{self._name}.json"
        extra = {
            "IPYTHONDIR": str(self._settings.cache / "ipython"),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "PYTHONUNBUFFERED": "1",
            "JPY_PARENT_PID": str(os.getpid()),  # the kernel ends itself when we are gone
            family.VARIABLE: self._mark,
        }
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as output:
            json.dump(connection, output)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *privileges.dropped([str(self._settings.python), *ARGUMENTS, "-f", str(file)]),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
                cwd=cwd, env=child_environment(self._settings, extra), **processes.OWN_GROUP,
            )  # fmt: skip
        except OSError as error:
            raise KernelDied(f"{self._settings.python} cannot be started: {error}") from error
        self.alive = True
        self._watch = asyncio.create_task(self._wait_for_end(self._process))
        self._codec = Codec()
        self._connection_info = connection
        try:
            async with asyncio.timeout(START_S):
                self._shell = self._open("shell")
                self._iopub = self._open("iopub")
                await self._hear()
                await self.execute(WARM_UP + PACK + SETTLE, None).done
        except TimeoutError as error:
            await self.end()
            raise KernelDied(f"the kernel did not answer within {START_S:.0f} s") from error
        except BaseException:
            await self.end()
            raise

    def _open(self, name: str) -> Channel:
        import zmq

        info = self._connection_info
        kind = zmq.SUB if name == "iopub" else zmq.DEALER
        made = self._context.socket(kind)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.MAXMSGSIZE, LARGEST)
        if kind == zmq.SUB:
            made.setsockopt(zmq.SUBSCRIBE, b"")
        port = info[f"{name}_port"]
        made.connect(f"ipc://{info['ip']}-{port}")
        channel = Channel(made, self._on_iopub if kind == zmq.SUB else self._on_shell)
        self._channels.append(channel)
        return channel

    async def _hear(self) -> None:
        """Ask until the kernel's published messages reach us: a subscription takes a moment, and nothing tells when."""
        patience = 0.05
        while True:
            run = self._send("kernel_info_request", {}, None)
            await asyncio.wait({run.done}, timeout=patience)
            if run.done.done():
                run.done.result()
                if run.idle and not run.lost:
                    self.version = as_text(as_mapping(run.reply.get("language_info")).get("version", ""))
                    return
            patience = min(1.0, patience * 1.5)

    async def _wait_for_end(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self.alive = False
        if self._run:
            # What it wrote last may still lie in the sockets.
            await asyncio.sleep(0.05)
            self._run.settle(KernelDied(f"the Python kernel is gone: {processes.cause(code)}"))

    async def end(self) -> None:
        """Kill the process and all that it started."""
        self.alive = False
        if self._process:
            running = self._process.returncode is None
            await processes.kill(self._process.pid if running else None, self._mark)
        if self._watch:
            await asyncio.wait({self._watch}, timeout=END_S)
            self._watch.cancel()
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        for path in self._folder.glob(f"{self._name}*"):
            path.unlink(missing_ok=True)

    # Executions

    def _send(self, kind: str, content: dict[str, Any], collector: Collector | None) -> Run:
        identity, frames = self._codec.pack(kind, content)
        self._run = run = Run(identity, collector)
        # A failure may come when nobody looks at this run any more.
        run.done.add_done_callback(lambda done: done.exception() if not done.cancelled() else None)
        self._shell.send(frames)
        return run

    def execute(self, code: str, collector: Collector | None) -> Run:
        """Start to execute; without a collector silently. Wait for `Run.done`."""
        return self._request(code, collector)

    def enter(self, folder: Path) -> Run:
        """Start to change to a folder. Wait for `Run.done`, then see `refusal`."""
        # An expression beside the code assigns no name in the user's namespace.
        return self._request("", None, {ENTERED: f"__import__('os').chdir({str(folder)!r})"})

    @staticmethod
    def refusal(run: Run) -> tuple[str, str] | None:
        """Name and text of the exception, if a folder could not be entered."""
        outcome = as_mapping(as_mapping(run.reply.get("user_expressions")).get(ENTERED))
        if outcome.get("status") != "error":
            return None
        return as_text(outcome.get("ename", "")), as_text(outcome.get("evalue", ""))

    def _request(self, code: str, collector: Collector | None, expressions: Mapping[str, str] | None = None) -> Run:
        silent = collector is None
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": expressions or {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        run = self._send("execute_request", content, collector)
        if not self.alive:
            run.settle(KernelDied("the Python kernel is gone"))
        return run

    def interrupt(self) -> None:
        if self._process and self.alive:
            processes.interrupt(self._process.pid)

    async def reconnect(self) -> None:
        """Subscribe anew, after ZMQ dropped the connection at a message that was too large."""
        self._iopub.close()
        self._channels.remove(self._iopub)
        self._iopub = self._open("iopub")
        await self._hear()

    def _on_shell(self, frames: list[bytes]) -> None:
        message, run = self._codec.unpack(frames), self._run
        if message is None or run is None or message.parent != run.identity:
            return
        run.reply = message.content
        if run.idle:
            run.settle()
        else:
            asyncio.get_running_loop().call_later(IDLE_GRACE_S, self._give_up, run)

    def _give_up(self, run: Run) -> None:
        if run.done.done():
            return
        loop = asyncio.get_running_loop()
        if loop.time() - run.heard < IDLE_GRACE_S:
            loop.call_later(IDLE_GRACE_S, self._give_up, run)
        else:
            run.lost = True
            run.settle()

    def _on_iopub(self, frames: list[bytes]) -> None:
        message, run = self._codec.unpack(frames), self._run
        if message is None or run is None:
            return
        if message.parent != run.identity:
            # Threads and programs of earlier calls go on writing; the call that is there gets it.
            if message.kind == "stream" and run.collector:
                self._collect(message, run, run.collector)
            return
        run.heard = asyncio.get_running_loop().time()
        if message.kind == "status":
            if message.content.get("execution_state") == "idle":
                run.idle = True
                if run.reply:
                    run.settle()
        elif run.collector:
            self._collect(message, run, run.collector)

    @staticmethod
    def _collect(message: Message, run: Run, collector: Collector) -> None:
        content = message.content
        match message.kind:
            case "stream":
                name = "stderr" if content.get("name") == "stderr" else "stdout"
                collector.stream(name, as_text(content.get("text", "")))
            case "execute_result":
                count = content.get("execution_count")
                collector.rich(content.get("data"), content.get("metadata"), count=count, is_result=True)
            case "display_data" | "update_display_data":
                display = as_mapping(content.get("transient")).get("display_id")
                update = message.kind.startswith("update")
                collector.rich(content.get("data"), content.get("metadata"), display=display, update=update)
            case "error":
                collector.fail(content)
            case "clear_output":
                collector.clear(bool(content.get("wait")))
            case "execute_input":
                run.count = as_count(content.get("execution_count"))
