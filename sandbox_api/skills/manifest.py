"""Reads SKILL.md: front matter between lines of three dashes, then text."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from sandbox_api.unicode import MOST_DEPTH

FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
LONGEST = 2**16
WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


def parse(text: str, *, strict: bool = False) -> tuple[dict[str, Any], str]:
    """Front matter and the rest. Numbers and dates stay the text that they are written as.

    Raises:
        ValueError: the front matter is not YAML, and `strict`; the message says where.
    """
    found = FRONT_MATTER.match(text)
    if not found:
        return {}, text
    rest = "\n".join(text[found.end() :].splitlines()).lstrip("\n")
    try:
        return _fields(found[1]), rest
    except ValueError:
        if strict:
            raise
        return {}, rest


def _fields(front_matter: str) -> dict[str, Any]:
    import yaml

    if len(front_matter) > LONGEST:
        raise ValueError(f"more than {LONGEST} characters")
    try:
        fields = yaml.load(front_matter, _loader())  # noqa: S506 - a loader of texts, lists and mappings
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(fields, dict | None):
        raise ValueError("not a mapping of names to values")
    return fields or {}


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.BaseLoader):
        """Knows truth values and null besides, and no aliases: a few lines of them can stand for gigabytes."""

        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases are not supported")
            if self.depth > MOST_DEPTH:
                raise yaml.YAMLError("nested too deep")
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_scalar(self, node: yaml.ScalarNode) -> Any:
            text = super().construct_scalar(node)
            return text if node.style else WORDS.get(text.lower(), text)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            pairs = ((self.construct_object(key, deep=True), value) for key, value in node.value)
            return {str(key): self.construct_object(value, deep=True) for key, value in pairs}

    return Loader
