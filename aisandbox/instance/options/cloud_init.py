"""Options in user-data and vendor-data, from the files in which cloud-init documents what it was given."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator

from aisandbox.instance.options.source import SECTION, Source, guards_named, mapping, parse, read_text
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem

MAX_BYTES = 1024 * 1024
"""More than any cloud takes as user-data."""


def read(places: Places, keys: Collection[str]) -> Iterator[Source]:
    """Our section of what cloud-init has merged, then user-data that holds nothing but our options.

    Newer versions document one file that holds user-data and vendor-data merged; before, each has its own.
    """
    combined = places.cloud_run / "combined-cloud-config.json"
    if combined.exists():
        text = _text(combined.read_bytes())
        try:
            section = json.loads(text).get(SECTION)
        except (ValueError, AttributeError, RecursionError):
            section = None
        yield mapping(section, "user-data", text)
    else:
        for file, name in (
            ("cloud-config.txt", "user-data"),
            ("vendor2-cloud-config.txt", "vendor-data"),
            ("vendor-cloud-config.txt", "vendor-data"),
        ):
            path = places.cloud_instance / file
            if path.exists():
                text = _text(path.read_bytes())
                value, _ = parse(text, name)
                yield mapping(value.get(SECTION) if isinstance(value, dict) else None, name, text)
    if raw := raw_user_data(places):
        yield from bare(raw, "user-data", keys)


def raw_user_data(places: Places) -> bytes:
    """The user-data as it was given; empty when cloud-init has none."""
    try:
        return (places.cloud_instance / "user-data.txt").read_bytes()[:MAX_BYTES]
    except OSError:
        return b""


def bare(raw: bytes, name: str, keys: Collection[str]) -> Iterator[Source]:
    """Options in user-data that is bare YAML or JSON, which cloud-init takes no notice of.

    Other programs' user-data, scripts and whatever cloud-init handles are none of ours: at least half of the keys
    must be options.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    if text.startswith(("#", "Content-Type:", "MIME-Version:", "From ")) or not re.search(
        rf"""^[{{\s]*["']?({SECTION}|{"|".join(keys)})["']?\s*:""", text, re.MULTILINE
    ):
        return
    value, fault = parse(text, name)
    if isinstance(value, dict) and SECTION in value:
        yield mapping(value[SECTION], name, text)
    elif fault or (isinstance(value, dict) and 2 * len(value.keys() & set(keys)) >= len(value)):
        yield read_text(text, name)


def ignored_parts(places: Places) -> Iterator[Source]:
    """Parts of the user-data that cloud-init silently leaves out of what it merges."""
    try:
        message_text = _text((places.cloud_instance / "user-data.txt.i").read_bytes())
    except OSError:
        return
    if SECTION not in message_text and "cloud-config" not in message_text:
        return
    import email  # only needed with user-data

    parts = [part for part in email.message_from_string(message_text).walk() if not part.is_multipart()]
    for part in parts:
        payload = part.get_payload(decode=True)
        text = payload.decode(errors="replace") if isinstance(payload, bytes) else ""
        name = "user-data" if len(parts) == 1 else f"user-data, {part.get_filename('part')}"
        if part.get_content_type() == "text/cloud-config":
            _, fault = parse(text, name)
            if fault:
                yield Source(name, problems=(fault,), lost=guards_named(text) if SECTION in text else frozenset())
        elif (
            len(parts) > 1
            and re.search(rf"^{SECTION}:", text, re.MULTILINE)
            and not text.startswith(("#!", "## template:"))
        ):
            reason = f"its {SECTION} section is ignored, because the first line is not #cloud-config"
            fix = "Make #cloud-config the first line of this part of the user-data."
            fault = Problem(reason=reason, fix=fix, source=name)
            yield Source(name, problems=(fault,), lost=guards_named(text))


def _text(raw: bytes) -> str:
    return raw[:MAX_BYTES].decode(errors="replace")
