"""Phases of a long command, shown as bars with elapsed time on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Phases:
    """Shows phases side by side. Use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=self.console,
            refresh_per_second=4,
            disable=not self.console.is_terminal,
        )
        self._start = time.monotonic()

    def __enter__(self) -> Phases:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, name: str, text: str) -> None:
        """A line that stays."""
        elapsed = time.monotonic() - self._start
        self.console.print(f"[{elapsed:6.1f} s] {name}: {text}", highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def phase(self, name: str, seconds: float, detail: Callable[[], str] = str) -> Iterator[None]:
        """One phase. The bar follows the expected `seconds`; `detail` tells what is going on right now."""
        task = self._progress.add_task(name, total=1.0, detail="")
        done = threading.Event()
        start = time.monotonic()
        watcher = threading.Thread(target=self._watch, args=(task, start, seconds, detail, done), daemon=True)
        self.note(name, f"started (about {seconds:.0f} s)")
        watcher.start()
        try:
            yield
        except BaseException:
            self.note(name, f"failed after {time.monotonic() - start:.1f} s")
            raise
        else:
            self._progress.update(task, completed=1.0, detail="done")
            self.note(name, f"done in {time.monotonic() - start:.1f} s")
        finally:
            done.set()
            watcher.join()
            self._progress.remove_task(task)

    def _watch(
        self, task: TaskID, start: float, seconds: float, detail: Callable[[], str], done: threading.Event
    ) -> None:
        while not done.wait(0.25):
            # Approaches, and never claims, the end: an estimate is not a fact.
            share = (time.monotonic() - start) / max(seconds, 1.0)
            self._progress.update(task, completed=min(share, 0.98), detail=detail()[:60])
