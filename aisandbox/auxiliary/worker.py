"""A process with a model: started when it is first asked, ended when nobody has asked for a while.

What loads models takes hundreds of megabytes; the service itself, which only waits, has none of it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ParamSpec, TypeVar

from aisandbox.auxiliary.errors import WorkerError
from aisandbox.instance.serve.engine_watch import die_with_parent

P = ParamSpec("P")
R = TypeVar("R")
IDLE_S = 600.0


class Worker:
    """Runs functions, one at a time, in a process that has loaded a model.

    Args:
        load: prepares the process, given the model's folder.
    """

    def __init__(self, load: Callable[[Path], None], folder: Path, idle_s: float = IDLE_S) -> None:
        self._load, self._folder, self._idle_s = load, folder, idle_s
        self._pool: ProcessPoolExecutor | None = None
        self._asked = 0
        self._end: asyncio.TimerHandle | None = None

    async def ask(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns there, in its turn.

        Raises:
            WorkerError: the process ended; the next request starts another.
        """
        if self._end:
            self._end.cancel()
        if not self._pool:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, _begin, (self._load, self._folder))
        pool = self._pool
        self._asked += 1
        try:
            return await asyncio.wrap_future(pool.submit(function, *args, **kwargs))
        except BrokenProcessPool as error:
            if self._pool is pool:
                self.stop()
            raise WorkerError(f"the process of the model in {self._folder.name} ended") from error
        finally:
            self._asked -= 1
            if not self._asked and self._pool:
                self._end = asyncio.get_running_loop().call_later(self._idle_s, self.stop)

    def stop(self) -> None:
        """End the process once it has done what it does."""
        if self._end:
            self._end.cancel()
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def end_all() -> None:
    """End the processes of all workers at once."""
    for child in multiprocessing.active_children():
        child.kill()


def _begin(load: Callable[[Path], None], folder: Path) -> None:
    die_with_parent()
    # An interrupt reaches both; the service ends this process itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"})
    # Threads that spin while they wait for each other take the processor from the chat's model.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    load(folder)
