"""Glob patterns over paths, matched part by part while a tree is walked, so that hopeless folders are not entered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache

from sandbox_api.errors import SandboxError

MOST_ALTERNATIVES = 64
ANY_DEPTH = "**"


def alternatives(pattern: str) -> list[str]:
    """`{a,b}.txt` as `a.txt` and `b.txt`.

    Raises:
        SandboxError: `invalid_request` for more than 64.
    """
    done: list[str] = []
    todo = [pattern]
    while todo:
        if len(done) + len(todo) > MOST_ALTERNATIVES:
            raise SandboxError("invalid_request", f"the pattern stands for more than {MOST_ALTERNATIVES} others")
        now = todo.pop()
        # The innermost braces come first, so that nested ones resolve.
        if found := re.search(r"\{([^{}]*,[^{}]*)\}", now):
            todo += [now[: found.start()] + choice + now[found.end() :] for choice in found[1].split(",")]
        else:
            done.append(now)
    return done


@lru_cache(maxsize=512)
def _part(pattern: str) -> re.Pattern[str]:
    # The translation has no backtracking between its stars: matching takes linear time.
    return re.compile(translate(pattern))


States = frozenset[tuple[str, ...]]
"""What is left to match, as pattern parts, for each way in which the path so far has matched."""


class Pattern:
    """`start`, then `step` for every part of a path; `matched` tells whether it may end there."""

    def __init__(self, pattern: str, *, hidden: bool = True) -> None:
        self.hidden = hidden
        ways = (tuple(part for part in way.split("/") if part) for way in alternatives(pattern.removeprefix("./")))
        self.start = self._closed(way for way in ways if way)

    @staticmethod
    def _closed(ways: Iterable[tuple[str, ...]]) -> States:
        result: set[tuple[str, ...]] = set()
        for way in ways:
            result.add(way)
            while way and way[0] == ANY_DEPTH:
                way = way[1:]
                result.add(way)
        return frozenset(result)

    def step(self, states: States, name: str) -> States:
        dotted = name.startswith(".") and not self.hidden
        after = []
        for way in states:
            if not way:
                continue
            first = way[0]
            if first == ANY_DEPTH:
                if not dotted:
                    after.append(way)
            elif (not dotted or first.startswith(".")) and _part(first).match(name):
                after.append(way[1:])
        return self._closed(after)

    @staticmethod
    def matched(states: States) -> bool:
        return () in states


class Names:
    """Whether a path below a folder matches one of several patterns: by any part, or as a whole if it has a slash."""

    def __init__(self, patterns: list[str]) -> None:
        flat = [way for pattern in patterns for way in alternatives(pattern.strip("/"))]
        self.parts = [_part(way) for way in flat if "/" not in way]
        self.wholes = [Pattern(way) for way in flat if "/" in way]

    def __bool__(self) -> bool:
        return bool(self.parts or self.wholes)

    def match(self, parts: tuple[str, ...]) -> bool:
        """Args: parts: those of the relative path."""
        return any(pattern.match(part) for pattern in self.parts for part in parts) or any(
            self._reaches(pattern, parts) for pattern in self.wholes
        )

    @staticmethod
    def _reaches(pattern: Pattern, parts: tuple[str, ...]) -> bool:
        states = pattern.start
        for part in parts:
            states = pattern.step(states, part)
            # Also what lies below a folder that matches.
            if pattern.matched(states):
                return True
        return False
