"""Rules that judge answers: each is kept by a right answer and broken by a wrong one."""

from __future__ import annotations

from typing import Any

import pytest

from aisandbox.teaching.judging import Rules


@pytest.mark.parametrize(
    ("rules", "right", "wrong"),
    [
        ({"contains": [["Paris", "paree"]]}, "It is PARIS.", "It is Rome."),
        ({"lacks": ["rome"]}, "Paris", "Rome"),
        ({"lines": (3, 3)}, "a\n\nb\nc", "a\nb"),
        ({"words": (1, 2)}, "two words", "more than two"),
        ({"matches": r"^\d+$"}, "x\n42\ny", "x 42"),
        ({"json_keys": ["a"]}, 'Here: {"a": 1} so', '{"b": 1}'),
        ({"json_keys": ["a"]}, '{"a": {"b": "}"}}', "{a: 1}"),
        ({"json_keys": []}, "{}", "none"),
        ({"python": "assert f(2) == 4"}, "```python\ndef f(x):\n    return x * 2\n```", "def f(x): return x"),
        ({"python": "assert f() is None"}, "def f():\n    pass", "Sorry, I cannot."),
    ],
)
def test_a_rule(rules: dict[str, Any], right: str, wrong: str) -> None:
    assert Rules.model_validate(rules).broken(right) == []
    (broken,) = Rules.model_validate(rules).broken(wrong)
    assert broken


def test_code_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aisandbox.teaching.judging.PYTHON_SECONDS", 1)
    assert Rules(python="f()").broken("def f():\n    while True: pass") == ["its code runs for more than 1 s"]


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/shadow').read()",
        "open('/tmp/judged', 'w').write('x' * 100_000)",
        "import os; assert os.environ.get('HOME') is None and os.fork() == 0",
        "x = bytearray(2 << 30)",
    ],
)
def test_code_of_an_answer_has_no_rights(code: str) -> None:
    (broken,) = Rules(python="pass").broken(code)
    assert "Error" in broken


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="contain"):
        Rules.model_validate({"contain": [["x"]]})
