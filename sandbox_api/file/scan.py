"""Searches files for a Python regular expression: a program of its own, so that a search can be killed.

Reads one JSON object from standard input: pattern, flags, files, multiline, before, after. Writes one JSON list a
line: ["match", file, line number from 1, text, [lines before], [lines after]], ["file", path] for each file searched,
or ["error", message].
"""

from __future__ import annotations

import collections
import io
import json
import re
import sys
from typing import IO, Any

Job = dict[str, Any]
LONGEST_LINE = 4000
LONGEST_READ = 2**20


def cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…"


def _send(*what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")


def _line(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")


def _by_lines(stream: IO[bytes], path: str, pattern: re.Pattern[str], job: Job) -> None:
    before: collections.deque[str] = collections.deque(maxlen=job["before"])
    number = 1
    waiting: list[list[Any]] = []  # matches that still get lines after them
    for raw in iter(lambda: stream.readline(LONGEST_READ), b""):
        line = _line(raw)
        for match in waiting:
            match[5].append(cut(line))
        if pattern.search(line):
            waiting.append(["match", path, number, cut(line), list(before), []])
        while waiting and len(waiting[0][5]) >= job["after"]:
            _send(*waiting.pop(0))
        before.append(cut(line))
        number += raw.endswith(b"\n")
    for match in waiting:
        _send(*match)


def _at_once(stream: IO[bytes], path: str, pattern: re.Pattern[str], job: Job) -> None:
    text = stream.read().decode("utf-8", "replace")
    lines = text.split("\n")
    place = number = 0
    for match in pattern.finditer(text):
        number += text.count("\n", place, match.start())
        place = match.start()
        last = number + text.count("\n", place, max(place, match.end() - 1))
        before = [cut(line) for line in lines[max(0, number - job["before"]) : number]]
        after = [cut(line) for line in lines[last + 1 : last + 1 + job["after"]]]
        _send("match", path, number + 1, cut("\n".join(lines[number : last + 1])), before, after)


def _search(path: str, pattern: re.Pattern[str], job: Job) -> None:
    try:
        with open(path, "rb") as stream:
            if b"\0" in stream.read(8192):
                return
            stream.seek(0)
            (_at_once if job["multiline"] else _by_lines)(stream, path, pattern, job)
    except OSError:
        return


def main() -> None:
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # what was found is sent even if the rest must be killed
    job = json.loads(sys.stdin.readline())
    try:
        pattern = re.compile(job["pattern"], job["flags"])
    except (re.error, OverflowError, RecursionError) as error:
        _send("error", str(error))
        return
    for path in job["files"]:
        _search(path, pattern, job)
        _send("file", path)


if __name__ == "__main__":
    main()
