"""Rules by which answers are judged, without another model: facts that must stand in them, and forms that they keep."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from typing import Any

from pydantic import BaseModel, ConfigDict

PYTHON_SECONDS = 10
PYTHON_MEMORY = 2**30
NOBODY = 65534


class Rules(BaseModel):
    """What a right answer keeps; an answer is right when it keeps all of it.

    Attributes:
        contains: of each list at least one text stands in the answer, whatever its case.
        lacks: none of these stands in it.
        lines: least and most lines that are not empty.
        words: least and most words.
        matches: a regular expression that is found in it.
        json_keys: the first object in it parses as JSON and has these keys.
        python: its code runs, followed by these statements.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    contains: list[list[str]] = []
    lacks: list[str] = []
    lines: tuple[int, int] | None = None
    words: tuple[int, int] | None = None
    matches: str | None = None
    json_keys: list[str] | None = None
    python: str | None = None

    def broken(self, answer: str) -> list[str]:
        """The rules that the answer breaks, in words; none means that it is right."""
        lower = answer.lower()
        lines, words = [line for line in answer.splitlines() if line.strip()], answer.split()
        found = [f"lacks {' or '.join(texts)}" for texts in self.contains if not any(t.lower() in lower for t in texts)]
        found += [f"contains {text}" for text in self.lacks if text.lower() in lower]
        for name, counted, bounds in (("lines", lines, self.lines), ("words", words, self.words)):
            if bounds and not bounds[0] <= len(counted) <= bounds[1]:
                found.append(f"{len(counted)} {name} instead of {bounds[0]} to {bounds[1]}")
        if self.matches and not re.search(self.matches, answer, re.IGNORECASE | re.MULTILINE | re.DOTALL):
            found.append(f"does not match {self.matches}")
        if self.json_keys is not None and (wrong := _wrong_json(answer, self.json_keys)):
            found.append(wrong)
        if self.python is not None and (wrong := _wrong_python(answer, self.python)):
            found.append(wrong)
        return found


def _wrong_json(answer: str, keys: list[str]) -> str | None:
    start = answer.find("{")
    try:
        value: Any = json.JSONDecoder().raw_decode(answer[start:])[0] if start >= 0 else None
    except json.JSONDecodeError as error:
        return f"is not JSON: {error}"
    if not isinstance(value, dict):
        return "holds no JSON object"
    missing = [key for key in keys if key not in value]
    return f"has no {', '.join(missing)}" if missing else None


def _confine() -> None:
    for limit, most in (
        (resource.RLIMIT_AS, PYTHON_MEMORY),
        (resource.RLIMIT_CPU, PYTHON_SECONDS + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (most, most))


def _wrong_python(answer: str, statements: str) -> str | None:
    """What goes wrong with the answer's code, run in a process of its own that has no settings, secrets or rights."""
    block = re.search(r"```(?:python)?\s*\n(.*?)```", answer, re.DOTALL | re.IGNORECASE)
    code = f"{block[1] if block else answer}\n{statements}\n"
    try:
        done = subprocess.run(
            [os.path.realpath(sys.executable), "-I", "-c", code],
            capture_output=True, text=True, timeout=PYTHON_SECONDS, check=False,
            cwd="/", env={}, preexec_fn=_confine, user=NOBODY if os.geteuid() == 0 else None,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"its code runs for more than {PYTHON_SECONDS} s"
    return f"its code fails: {done.stderr.strip().splitlines()[-1:]}" if done.returncode else None
