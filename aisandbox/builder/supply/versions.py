"""Order of versions: Debian's, and npm's with its ranges."""

from __future__ import annotations

import re
from functools import total_ordering
from itertools import zip_longest

SEMVER = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")
COMPARATOR = re.compile(r"(>=|<=|>|<|=|\^|~)?(.+)")


@total_ordering
class Debian:
    """A version as dpkg orders it."""

    def __init__(self, text: str) -> None:
        epoch, colon, rest = text.partition(":")
        if not colon:
            epoch, rest = "0", text
        upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
        self._parts = (int(epoch) if epoch.isdigit() else 0, upstream, revision)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Debian) and self._compare(other) == 0

    def __hash__(self) -> int:
        raise TypeError("equal versions can be written in several ways")

    def __lt__(self, other: Debian) -> bool:
        return self._compare(other) < 0

    def _compare(self, other: Debian) -> int:
        if self._parts[0] != other._parts[0]:
            return self._parts[0] - other._parts[0]
        return _compare(self._parts[1], other._parts[1]) or _compare(self._parts[2], other._parts[2])


def _compare(a: str, b: str) -> int:
    """Text and numbers in turn: letters before other characters, `~` before the end."""
    for (text_a, number_a), (text_b, number_b) in zip_longest(_chunks(a), _chunks(b), fillvalue=("", "")):
        for weight_a, weight_b in zip_longest(map(_weight, text_a), map(_weight, text_b), fillvalue=0):
            if weight_a != weight_b:
                return weight_a - weight_b
        if difference := int(number_a or "0") - int(number_b or "0"):
            return difference
    return 0


def _chunks(text: str) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in re.finditer(r"(\D*)(\d*)", text) if match[0]]


def _weight(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256


Key = tuple[int, int, int, tuple[tuple[int, int, str], ...]]
LAST: tuple[tuple[int, int, str], ...] = ((2, 0, ""),)
"""No pre-release: after all of them."""


def semver(text: str) -> Key | None:
    """A version of npm in a form that can be compared; None when it is none."""
    match = SEMVER.fullmatch(text.strip())
    if not match:
        return None
    release = (int(match[1]), int(match[2] or 0), int(match[3] or 0))
    if not match[4]:
        return (*release, LAST)
    return (*release, tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in match[4].split(".")))


def in_range(version: str, ranges: str) -> bool:
    """Whether a version of npm lies in a range as advisories write them; True when either cannot be understood."""
    key = semver(version)
    if key is None:
        return True
    return any(_in_all(key, part.strip()) for part in ranges.split("||"))


def _in_all(key: Key, comparators: str) -> bool:
    for word in re.sub(r"(>=|<=|>|<|=)\s+", r"\1", comparators).split():
        match = COMPARATOR.fullmatch(word)
        assert match
        operator, bound = match[1] or "=", semver(match[2])
        if match[2] in ("*", "x"):
            continue
        if bound is None or operator in "^~":
            # Advisories do not write these; to report one too many is better than one too few.
            continue
        holds = {">=": key >= bound, "<=": key <= bound, ">": key > bound, "<": key < bound, "=": key == bound}
        if not holds[operator]:
            return False
    return True
