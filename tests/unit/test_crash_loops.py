"""Services that crash again and again: how that is told, and how they are slowed down."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from aisandbox.instance.run import services
from aisandbox.instance.run.services import Crashes, Unit

BACKOFF = Path(services.__file__).with_name("backoff.sh")


def unit(restarts: int = 5, active: str = "activating", up_s: float | None = None) -> Unit:
    return Unit(
        name="x.service", active=active, sub="auto-restart", result="exit-code", restarts=restarts, entered_s=up_s
    )


def test_a_crash_loop_is_told_with_number_error_and_pace() -> None:
    crashes = Crashes((10.0, 40.0, 70.0, 100.0, 130.0), "ValueError: it is broken")
    assert services.describe_loop(unit(), crashes, 132.0) == (
        "x.service has crashed 5 times in 2 minutes; last error: ValueError: it is broken; it is tried again every 30 s"
    )


@pytest.mark.parametrize(
    ("times", "now", "looping"),
    [
        ((1.0, 2.0), 3.0, False),  # not often enough
        ((1.0, 2.0, 3.0), 4.0, True),
        ((1.0, 2.0, 3.0), 62.0, True),  # it runs, but not for long
        ((1.0, 2.0, 3.0), 64.0, False),
        ((1.0, 2.0, 3.0), 602.5, False),
        ((0.0, 100.0, 200.0), 399.0, True),  # its runs before were as long
        ((0.0, 100.0, 200.0), 401.0, False),
        ((0.0, 1000.0, 2000.0, 3000.0), 3001.0, False),  # a crash now and then is none
    ],
)
def test_a_run_that_is_long_enough_ends_the_loop(times: tuple[float, ...], now: float, looping: bool) -> None:
    assert bool(services.describe_loop(unit(active="active", up_s=1), Crashes(times), now)) is looping


@pytest.mark.parametrize(
    ("active", "up_s", "looping"),
    [("activating", None, True), ("failed", None, True), ("active", 5.0, True), ("active", 61.0, False)],
)
def test_without_the_journal_systemds_count_must_do(active: str, up_s: float | None, looping: bool) -> None:
    told = services.describe_loop(unit(active=active, up_s=up_s), Crashes(), 1000.0)
    assert told == ("x.service has crashed 5 times; it is tried again by itself" if looping else None)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([], ""),
        (["all is well"], ""),
        (["Traceback (most recent call last):", "ModuleNotFoundError: No module named 'x'", "bye"], "No module named"),
        (["nginx: [emerg] bind() to 0.0.0.0:3000 failed (98: Address in use)", "nginx: test failed"], "nginx: [emerg]"),
        (["ValueError: api_key=abcdefghijkl is wrong"], "api_key=********"),
        (["fatal: " + "x" * 999], "fatal: x"),
    ],
)
def test_the_last_words_name_the_error_and_no_secret(lines: list[str], error: str) -> None:
    found = services.last_words(lines)
    assert error in found
    assert bool(found) == bool(error)
    assert len(found) <= services.LONGEST_ERROR


def command(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_a_loop_is_read_from_systemd_and_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "Id=loop.service\nLoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\n"
    command(tmp_path, "systemctl", f"cat <<'E'\n{shown}NRestarts=3\nActiveEnterTimestampMonotonic=5\nE")
    now_us = int(Path("/proc/uptime").read_text().split(".")[0]) * 10**6
    failures = "\n".join(json.dumps({"__MONOTONIC_TIMESTAMP": str(now_us - ago * 10**6)}) for ago in (22, 12, 2))
    said = json.dumps({"MESSAGE": "RuntimeError: no luck"})
    (tmp_path / "failures").write_text(failures)
    (tmp_path / "said").write_text(said)
    command(
        tmp_path, "journalctl", f'case "$*" in *MESSAGE_ID=*) cat {tmp_path}/failures;; *) cat {tmp_path}/said;; esac'
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (found,) = services.units(("loop.service",))
    assert found.up_s is None
    assert found.entered_s
    assert "entered_s" not in found.model_dump()
    told = services.crash_loop(found)
    assert told
    assert told.startswith("loop.service has crashed 3 times in 2")
    assert told.endswith("last error: RuntimeError: no luck; it is tried again every 10 s")


@pytest.mark.parametrize(("restarts", "up_s"), [(2, None), (9, 601.0)])
def test_most_units_cost_no_look_into_the_journal(
    restarts: int, up_s: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path, "journalctl", f"touch {tmp_path}/asked")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert services.crash_loop(unit(restarts=restarts, active="active", up_s=up_s)) is None
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("restarts", "entered", "exited", "waits"),
    [
        ("0", "0", "0", False),  # the first start
        ("4", "100", "200", False),
        ("5", "100", "200", True),
        ("5", "100", "40000200", False),  # it had run for 40 s
        ("5", "200", "100", False),  # cannot be
        ("", "", "", False),  # systemd cannot be asked
    ],
)
def test_a_service_in_a_loop_waits_before_it_starts(
    tmp_path: Path, restarts: str, entered: str, exited: str, waits: bool
) -> None:
    shown = f"NRestarts={restarts}\nActiveEnterTimestampMonotonic={entered}\nActiveExitTimestampMonotonic={exited}"
    command(tmp_path, "systemctl", f"cat <<'E'\n{shown}\nE" if restarts else "exit 1")
    command(tmp_path, "sleep", f'echo "$1" > {tmp_path}/slept')
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    result = subprocess.run(["sh", BACKOFF, "x.service"], env=environment, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert (tmp_path / "slept").exists() is waits
    assert ("the next try is in 28 s" in result.stdout) is waits
