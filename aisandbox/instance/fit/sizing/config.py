"""Reading an untrusted `config.json`: every value is checked, and nonsense is named instead of believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aisandbox.instance.errors import UnobtainableError
from aisandbox.instance.fetch.request import MAX_CONFIG_BYTES

MOST = 10**12
"""No honest number in it is larger."""
MOST_WORDS = 10_000
CHOOSE = "Choose another model: sudo aisandbox configure --model ORGANISATION/NAME"
NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where models for more than text keep the part that writes text."""
DEEPEST = 3


def parse(data: bytes) -> dict[str, Any]:
    """The content of an untrusted `config.json` (or `hf_quant_config.json`).

    Raises:
        UnobtainableError: it is too large, not JSON, or no JSON object.
    """
    if len(data) > MAX_CONFIG_BYTES:
        raise broken(f"is larger than {MAX_CONFIG_BYTES // 1024**2} MiB")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # bad JSON, bad UTF-8, numbers of thousands of digits, endless nesting
        raise broken("is not JSON") from None
    if not isinstance(value, dict):
        raise broken("holds no JSON object")
    return value


def broken(how: str) -> UnobtainableError:
    return UnobtainableError(f"The model's config.json {how}, so the model cannot be used.", CHOOSE)


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of the configuration that describes the language model."""
    for _ in range(DEEPEST):
        nested = next((config[key] for key in NESTED if isinstance(config.get(key), dict) and config[key]), None)
        if nested is None:
            break
        config = nested
    return config


def section(config: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The first of the keys that holds an object; empty when none does."""
    return next((config[key] for key in keys if isinstance(config.get(key), dict)), {})


def whole(config: Mapping[str, Any], *keys: str) -> int | None:
    """The whole number under the first of the keys that has one; None when none has.

    Raises:
        UnobtainableError: the value is no whole number, negative, or absurdly large.
    """
    for key in keys:
        value = config.get(key)
        if value is None or isinstance(value, list | dict):  # a list tells each layer's own number
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > MOST:
            raise broken(f"says {key}: {_shown(value)}, which is no sensible number")
        if value < 0 or value != int(value):
            raise broken(f"says {key}: {_shown(value)}, which is no whole number")
        return int(value)
    return None


def number(config: Mapping[str, Any], key: str) -> float | None:
    """The positive number under the key; None when there is none."""
    value = config.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MOST
    return float(value) if good and value is not None else None


def word(config: Mapping[str, Any], *keys: str) -> str | None:
    """The text under the first of the keys that has one."""
    return next((_plain(config[key]) for key in keys if isinstance(config.get(key), str) and config[key]), None)


def words(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts in the list under the key; whatever else is in it is left out."""
    value = config.get(key)
    return (
        tuple(_plain(entry) for entry in value[:MOST_WORDS] if isinstance(entry, str))
        if isinstance(value, list)
        else ()
    )


def _plain(text: str) -> str:
    """Text that can be shown anywhere: short, and without control characters."""
    return "".join(character for character in text[:100] if character.isprintable())


def _shown(value: object) -> str:
    text = json.dumps(value, default=str) if not isinstance(value, int) or abs(value) < MOST else "a huge number"
    return text if len(text) <= 40 else text[:40] + "…"
