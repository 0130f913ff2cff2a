"""Text that is not valid Unicode: lone surrogates, which neither JSON nor UTF-8 can encode.

Python uses them for file names in another encoding, JavaScript for half of a pair that was cut. Output has U+FFFD
instead.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


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


def loads(raw: bytes | str) -> Any:
    """JSON that another program wrote; bytes that are not UTF-8 are replaced as well.

    Raises:
        ValueError: it is not JSON.
    """
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
    value = json.loads(text)
    return replace_surrogates_deep(value) if ESCAPED_SURROGATE.search(text) else value


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
