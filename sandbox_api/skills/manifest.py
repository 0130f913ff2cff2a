"""Reads SKILL.md: front matter between lines of three dashes, then text."""

from __future__ import annotations

import re
from typing import Any

FENCE = "---"
FIELD = re.compile(r"([A-Za-z_][\w.-]*)\s*:\s*(.*)")
SCALARS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}


def parse(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and the rest.

    The front matter is the part of YAML that skills use: `key: value`, lists by dashes or brackets, indented text
    after `|` or `>`, and one level of keys below a key. Anything else in it is skipped.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != FENCE:
        return {}, text
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == FENCE), None)
    if end is None:
        return {}, text
    return _fields(lines[1:end]), "\n".join(lines[end + 1 :]).lstrip("\n")


def _fields(lines: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    position = 0
    while position < len(lines):
        found = FIELD.fullmatch(lines[position].rstrip())
        position += 1
        if not found:
            continue
        block = []
        while position < len(lines) and (not lines[position].strip() or lines[position][0] in " \t-"):
            block.append(lines[position])
            position += 1
        name, value = found.groups()
        fields[name] = _block(value, block) if block else _scalar(value)
    return fields


def _block(value: str, lines: list[str]) -> Any:
    texts = [line.strip() for line in lines]
    if value[:1] in ("|", ">"):
        return ("\n" if value[0] == "|" else " ").join(texts).strip()
    if value:
        return _scalar(" ".join([value, *texts]).strip())
    items = [text for text in texts if text and not text.startswith("#")]
    if items and all(item.startswith("-") for item in items):
        return [_scalar(item[1:]) for item in items]
    pairs = [found.groups() for item in items if (found := FIELD.fullmatch(item))]
    return {name: _scalar(text) for name, text in pairs} if pairs else " ".join(items) or None


def _scalar(text: str) -> Any:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    text = text.split(" #")[0].rstrip()
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(part) for part in text[1:-1].split(",") if part.strip()]
    return SCALARS.get(text.lower(), text)
