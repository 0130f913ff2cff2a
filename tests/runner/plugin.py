"""A pytest plugin that writes a line of JSON for every test and slow fixture to the file $AISANDBOX_TEST_EVENTS."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.fixtures import FixtureDef, SubRequest

FILE = Path(os.environ["AISANDBOX_TEST_EVENTS"])
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ


def _write(event: str, **facts: object) -> None:
    # One write of a short line: those of several processes do not mix.
    with FILE.open("a") as file:
        file.write(json.dumps({"event": event, **facts}) + "\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.items and not (IS_WORKER and os.environ["PYTEST_XDIST_WORKER"] != "gw0"):
        _write("collected", tests=len(session.items))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: FixtureDef[object], request: SubRequest) -> Iterator[None]:
    start = time.monotonic()
    try:
        return (yield)
    finally:
        seconds = time.monotonic() - start
        if seconds > 0.5:
            place = fixturedef.baseid or "tests"
            _write("fixture", name=f"{place}::{fixturedef.argname} ({fixturedef.scope})", seconds=round(seconds, 2))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if IS_WORKER:
        return
    if report.when == "call" or report.outcome != "passed":
        _write("test", name=report.nodeid, outcome=report.outcome, when=report.when, seconds=round(report.duration, 2))
