"""Runs test suites side by side, shows their progress, and ends with a table of what they cost.

Everything that they print goes to build/test-report/, one log and one JUnit file per suite, and so does the table.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

from aisandbox.manifest import REPOSITORY
from tests.runner import cpu, report
from tests.runner.programs import LIST, Recorder, beyond_debian, listed
from tests.runner.report import duration
from tests.runner.run import Run
from tests.runner.suites import SUITES, Suite, named

FOLDER = REPOSITORY / "build" / "test-report"
SHOW_SECONDS = 30.0


def startable(waiting: list[Suite], running: list[Run], jobs: int) -> Suite | None:
    """The longest suite that may start now."""
    if len(running) >= jobs:
        return None
    busy = [run.suite for run in running]
    free = [
        suite for suite in waiting
        if not any(other.name in suite.apart_from or suite.name in other.apart_from for other in busy)
    ]  # fmt: skip
    return max(free, key=lambda suite: suite.seconds, default=None)


def run_all(suites: list[Suite], jobs: int, arguments: list[str], folder: Path) -> list[Run]:
    """Run the suites, at most `jobs` at a time; returns all of them, finished."""
    waiting, running, finished = list(suites), list[Run](), list[Run]()
    start = shown = time.monotonic()

    def say(text: str) -> None:
        print(f"[{duration(time.monotonic() - start):>11}] {text}", flush=True)

    try:
        while waiting or running:
            while suite := startable(waiting, running, jobs):
                waiting.remove(suite)
                running.append(Run(suite, folder, arguments))
                say(f"{suite.name}: started (about {duration(suite.seconds)})")
            time.sleep(1)
            for run in list(running):
                for name in run.poll():
                    say(f"FAILED {name}")
                if run.exit_status is not None:
                    running.remove(run)
                    finished.append(run)
                    say(f"{run.suite.name}: {_result(run)} in {duration(run.seconds)}")
            if time.monotonic() - shown > SHOW_SECONDS:
                shown = time.monotonic()
                say(", ".join(f"{run.suite.name} {len(run.outcomes)}/{run.collected or '?'}" for run in running))
    except KeyboardInterrupt:
        say("interrupted: removing machines and containers of the tests")
        # What is under way ends in order, however often somebody presses the key.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for run in running:
            run.interrupt()
        raise
    return finished


def _result(run: Run) -> str:
    if run.exit_status:
        failed = f"{len(run.failed)} of {len(run.outcomes)} failed" if run.failed else f"ended with {run.exit_status}"
        return f"{failed} (its temporary files: {run.temporary})"
    return f"{len(run.outcomes)} passed"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.runner", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of: {', '.join(s.name for s in SUITES)}; all")
    parser.add_argument("--jobs", type=int, default=3, help="suites side by side (3)")
    parser.add_argument("--pytest", default="", help="further words for pytest, such as -k name")
    chosen = parser.parse_args()
    suites = list[Suite]()
    for name in chosen.suites:
        suite = named(name)
        if not suite:
            parser.error(f"no such suite: {name}")
        suites.append(suite)
    suites = suites or list(SUITES)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    # A shell's `&` has interrupts ignored; whoever ends the run gets the machines removed.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start, busy = time.monotonic(), cpu.busy_seconds()
    recorder = Recorder()
    try:
        runs = run_all(suites, chosen.jobs, shlex.split(chosen.pytest), FOLDER)
    except KeyboardInterrupt:
        return 130
    seconds, busy = time.monotonic() - start, cpu.busy_seconds() - busy
    broken = [run for run in runs if run.exit_status]
    for run in broken:
        print(f"\n===== {run.suite.name} ({run.log.relative_to(REPOSITORY)})\n{report.failures(run)}")
    report.write(FOLDER, runs, seconds, busy)
    print(f"\n{report.table(runs, seconds, busy)}\n")
    print(f"The same and every suite's log: {FOLDER.relative_to(REPOSITORY)}/")
    started = beyond_debian(recorder.names or set())
    new = sorted(started - listed())
    if new:
        print(
            f"The tests start programs that {LIST.relative_to(REPOSITORY)} does not list: {', '.join(new)}\n"
            "  fix: add them there, and the packages that bring them to scripts/setup.sh"
        )
    (FOLDER / "programs.txt").write_text("".join(f"{name}\n" for name in sorted(started)))
    passed, failed = sum(run.count("passed") for run in runs), sum(len(run.failed) for run in runs)
    skipped = sum(run.count("skipped") for run in runs)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if broken or new or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
