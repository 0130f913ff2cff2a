"""`make fuzz`: its targets hold for a few inputs each, and what it finds is shown."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest
from hypothesis import strategies as st

from tests.fuzz import __main__ as command
from tests.fuzz.search import Property, Search, TooSlow, bounded
from tests.fuzz.targets import TARGETS, Target

FEW = 20


@pytest.mark.parametrize("target", [target for target in TARGETS if not target.starts_servers], ids=lambda t: t.name)
def test_a_few_inputs(target: Target) -> None:
    search = Search(0, most=FEW)
    target.run(search)
    assert search.tried


def below_a_hundred(number: int) -> None:
    assert number < 100, "too large"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Target:
    module = ModuleType("broken")
    module.PROPERTIES = (Property(below_a_hundred, {"number": st.integers()}),)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tests.fuzz.broken", module)
    return Target("broken", "numbers", "broken")


def test_a_find_is_shown_with_its_smallest_input(broken: Target, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--seconds", "0", "--seed", "7"], (broken,)) == 1
    output = capsys.readouterr().out
    assert "AssertionError: too large" in output and "{'number': 100}" in output
    assert "broken: numbers, for 0 s from seed 7" in output and output.endswith("1 targets, 1 with finds: broken\n")


def test_only_the_named_targets_are_tried(broken: Target, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["brokne"], (broken,))
    assert "no such target: brokne; the targets are broken" in capsys.readouterr().err
    assert command.main(["--seconds", "0", "--seed", "0", "environment"]) == 0
    assert re.search(r"environment: nothing found in \d+ inputs", capsys.readouterr().out)


def test_an_input_that_takes_for_ever_is_a_find() -> None:
    with pytest.raises(TooSlow), bounded(0.05):
        re.search("(a*)*b", "a" * 60)


def test_rounds_go_on_until_the_time_is_over() -> None:
    class SecondRound(Exception):
        pass

    def holds(number: int) -> None:
        if search.tried > FEW:
            raise SecondRound

    search = Search(600, most=FEW)
    with pytest.raises(SecondRound):
        search.rounds((Property(holds, {"number": st.integers()}),))
    search = Search(0, most=FEW)
    search.rounds((Property(holds, {"number": st.integers()}),))
    assert 0 < search.tried <= FEW
