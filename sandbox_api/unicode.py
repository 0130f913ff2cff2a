"""Text of other programs: escape sequences, and lone surrogates, which neither JSON nor UTF-8 can encode.

Python uses them for file names in another encoding, JavaScript for half of a pair that was cut. Output has U+FFFD
instead.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Escape sequences of terminals: colours, titles."""
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
MOST_DEPTH = 100
"""Levels of nested JSON that are read. Pydantic writes some 250, and an answer has levels of its own."""


def replace_surrogates(text: str) -> str:
    """Text with every lone surrogate replaced; pairs become the character that they stand for."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def replace_surrogates_deep(value: Any) -> Any:
    """Replace the lone surrogates in a JSON value, names of fields included."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {replace_surrogates_deep(name): replace_surrogates_deep(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [replace_surrogates_deep(inner) for inner in value]
    return value


def loads(raw: bytes | str, most_depth: int | None = MOST_DEPTH) -> Any:
    """JSON that another program wrote; bytes that are not UTF-8 are replaced as well.

    Args:
        most_depth: None reads as deep as Python can; such a value may be too deep to be sent on.

    Raises:
        ValueError: it is not JSON, or nested too deep.
    """
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
    try:
        value = json.loads(text)
        if most_depth is not None and is_deeper(value, most_depth):
            raise ValueError("JSON nested too deep")
        return replace_surrogates_deep(value) if ESCAPED_SURROGATE.search(text) else value
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in more levels than these."""
    nested = [[value]]
    for _ in range(levels + 1):
        nested = [
            list(inner.values()) if isinstance(inner, dict) else inner
            for outer in nested
            for inner in outer
            if isinstance(inner, dict | list)
        ]
        if not nested:
            return False
    return True


def dumps(value: Any) -> bytes:
    """A value as JSON."""
    try:
        return to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:
        return to_json(replace_surrogates_deep(value), inf_nan_mode="null")


def dump_model(model: BaseModel) -> bytes:
    """A model as JSON."""
    try:
        return model.model_dump_json().encode()
    except PydanticSerializationError:
        return dumps(model.model_dump())
