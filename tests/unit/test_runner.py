"""The runner of the suites: what runs beside what, what it counts, and what it says of failures."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.runner import __main__ as runner
from tests.runner import report
from tests.runner.programs import Recorder
from tests.runner.run import Run
from tests.runner.suites import SUITES, Suite, named

TESTS = """
import subprocess, time, pytest

@pytest.fixture(scope="module")
def slow():
    time.sleep(0.6)

def test_right(slow):
    # It stays until the recorder has seen it, however busy the machine.
    reading = subprocess.Popen(["nft", "--interactive"], stdin=subprocess.PIPE)
    time.sleep(1)
    reading.communicate()

def test_wrong():
    assert 1 == 2, "one is not two"

@pytest.mark.skip(reason="here")
def test_skipped():
    pass

@pytest.fixture
def broken():
    raise RuntimeError("cannot be set up")

def test_without_its_fixture(broken):
    pass
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed suites leave goes with the test."""
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))


def suite(folder: Path, text: str, name: str = "some") -> Suite:
    path = folder / f"test_{name}.py"
    path.write_text(text)
    return Suite(name, (str(path),), 10)


def finish(run: Run) -> Run:
    while run.exit_status is None:
        run.poll()
        time.sleep(0.1)
    return run


def test_a_suite_is_counted_timed_and_explained(tmp_path: Path) -> None:
    recorder = Recorder()
    run = finish(Run(suite(tmp_path, TESTS), tmp_path, []))
    assert run.exit_status == 1 and run.collected == 4
    assert [run.count(outcome) for outcome in ("passed", "failed", "skipped")] == [1, 2, 1]
    assert {name.rpartition("::")[2] for name in run.failed} == {"test_wrong", "test_without_its_fixture"}
    (fixture,) = run.fixtures
    assert "slow (module)" in fixture.name and fixture.seconds > 0.5
    explained = report.failures(run)
    assert "one is not two" in explained and "cannot be set up" in explained
    table = report.table([run], 3, 2)
    assert [line.split()[:3] for line in table.splitlines()[:3]] == [
        ["suite", "tests", "failed"], ["some", "4", "2"], ["all", "4", "2"],
    ]  # fmt: skip
    report.write(tmp_path, [run], 3, 2)
    assert (tmp_path / "report.json").exists() and (tmp_path / "some.xml").exists()
    if run.account.seconds is not None and recorder.names is not None:
        assert run.account.seconds > 0.1
        assert "nft" in recorder.names


def test_an_interrupt_reaches_the_suite(tmp_path: Path) -> None:
    text = "import time, pathlib\ndef test_long():\n    try:\n        time.sleep(60)\n    finally:\n"
    text += f"        pathlib.Path({str(tmp_path)!r}, 'cleaned').touch()\n"
    run = Run(suite(tmp_path, text), tmp_path, [])
    deadline = time.monotonic() + 30
    while not run.collected and time.monotonic() < deadline:
        run.poll()
        time.sleep(0.1)
    time.sleep(0.5)
    run.interrupt()
    assert run.exit_status and (tmp_path / "cleaned").exists()


def test_suites_that_disturb_each_other_do_not_run_at_once(tmp_path: Path) -> None:
    first = Suite("first", (), 5, apart_from=frozenset({"second"}))
    second, third = Suite("second", (), 9), Suite("third", (), 1)
    running = Run(suite(tmp_path, "", "first"), tmp_path, [])
    running.suite = first
    assert runner.startable([second, third], [running], 2) is third
    assert runner.startable([second, third], [running], 1) is None
    assert runner.startable([first, second], [], 2) is second
    running.interrupt()


def test_every_folder_of_tests_belongs_to_a_suite() -> None:
    folders = {path.parent.name for path in Path(__file__).parents[1].glob("*/test_*.py")}
    in_suites = {Path(path).name for suite in SUITES for path in suite.paths}
    assert in_suites == folders
    others = {name for suite in SUITES for name in suite.apart_from}
    assert others <= {suite.name for suite in SUITES}
    assert all(named(name) for name in (*in_suites, *others)) and named("nonsense") is None


def test_an_unknown_suite_is_refused() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.runner", "nonsense"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2 and "no such suite: nonsense" in result.stderr
