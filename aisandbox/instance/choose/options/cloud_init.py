"""Options in user-data and vendor-data, from the files in which cloud-init documents what it was given."""

from __future__ import annotations

import base64
import codecs
import json
import re
import zlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import yaml

from aisandbox.instance.choose.options.source import (
    SECTION,
    YAML_ERRORS,
    Source,
    guards_named,
    is_section,
    mapping,
    parse,
    read_text,
    section,
)
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem

if TYPE_CHECKING:
    from email.message import Message

MAX_BYTES = 1024 * 1024
"""More than any cloud takes as user-data."""
MAX_ENCODINGS = 3
"""Encodings, one in another, that are undone."""
CLOUD_CONFIG = "#cloud-config"
HANDLED = (
    CLOUD_CONFIG,
    "#!",
    "#cloud-boothook",
    "#include",
    "#part-handler",
    "#upstart-job",
    "## template:",
    "content-type:",
    "mime-version:",
    "from ",
)
"""How user-data starts that cloud-init understands, in lower case."""


def read(places: Places, keys: Collection[str]) -> Iterator[Source]:
    """Our section of what cloud-init has merged, then user-data that holds nothing but our options.

    Newer versions document one file that holds user-data and vendor-data merged; before, each has its own.
    """
    combined = places.cloud_run / "combined-cloud-config.json"
    if combined.exists():
        text = _text(combined.read_bytes())
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            fault = Problem(reason=f"not JSON: {error}", fix="Restart the instance.", source=str(combined))
            yield Source("user-data", problems=(fault,), lost=guards_named(text))
        else:
            yield mapping(_as_typed(section(document, keys), places, keys), "user-data", text)
    else:
        for file, name in (
            ("cloud-config.txt", "user-data"),
            ("vendor2-cloud-config.txt", "vendor-data"),
            ("vendor-cloud-config.txt", "vendor-data"),
        ):
            path = places.cloud_instance / file
            if path.exists():
                text = _text(path.read_bytes())
                try:
                    document = yaml.safe_load(text)
                except YAML_ERRORS:
                    document = parse(text, name)[0]
                yield mapping(_as_typed(section(document, keys), places, keys), name, text)
    if raw := raw_user_data(places):
        yield from bare(raw, "user-data", keys)


def _as_typed(options: Any, places: Places, keys: Collection[str]) -> Any:
    """The options with the text of those values that cloud-init read as a number, a date or a truth value."""
    if not isinstance(options, dict) or all(isinstance(value, str) for value in options.values()):
        return options
    typed: dict[str, Any] = {}
    for text, _ in _parts(places):
        try:
            read = section(yaml.safe_load(text), keys)
        except YAML_ERRORS:
            continue
        written = section(parse(text, "")[0], keys)
        if isinstance(read, dict) and isinstance(written, dict):
            known = options.keys() & read.keys() & written.keys()
            typed |= {key: written[key] for key in known if _same(options[key], read[key])}
    return {**options, **typed}


def _same(one: object, other: object) -> bool:
    try:
        return one == other
    except RecursionError:  # YAML can make a list that holds itself
        return False


def raw_user_data(places: Places) -> bytes:
    """The user-data as it was given; empty when cloud-init has none."""
    try:
        return (places.cloud_instance / "user-data.txt").read_bytes()[:MAX_BYTES]
    except OSError:
        return b""


def bare(raw: bytes, name: str, keys: Collection[str]) -> Iterator[Source]:
    """Options in user-data that cloud-init takes no notice of.

    It is bare YAML or JSON, its first line is nearly `#cloud-config`, or it was encoded once more than the cloud
    decodes. Other programs' user-data, scripts and whatever cloud-init handles are none of ours: at least half of the
    keys must be options.
    """
    text, encoded = _decoded(raw)
    start = text.lstrip().lower()
    if start.startswith(HANDLED) and not (encoded and start.startswith(CLOUD_CONFIG)):
        return
    words = "|".join(re.escape(key) for key in keys)
    if not re.search(rf"""^[{{ \t]*["']?(ai[\s_-]?sandbox|{words})["']?\s*:""", text, re.MULTILINE | re.IGNORECASE):
        return
    value, fault = parse(text, name)
    if isinstance(value, dict) and any(map(is_section, value)):
        yield mapping(section(value, keys), name, text)
    elif fault or (isinstance(value, dict) and 2 * sum(_normal(key) in keys for key in value) >= len(value)):
        yield read_text(text, name)


def _normal(key: object) -> str:
    return str(key).lower().replace("-", "_")


def _decoded(raw: bytes) -> tuple[str, bool]:
    """The text, and whether it was encoded in a way that cloud-init does not undo."""
    raw = _unzipped(raw)
    encoded = False
    for _ in range(MAX_ENCODINGS):
        inner = _inner(raw)
        if inner is None:
            break
        raw, encoded = _unzipped(inner), True
    return raw[:MAX_BYTES].decode(errors="replace"), encoded


def _inner(raw: bytes) -> bytes | None:
    """What a byte order mark, UTF-16 or base64 hides; None for anything else."""
    if raw.startswith(codecs.BOM_UTF8):
        return raw.removeprefix(codecs.BOM_UTF8)
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace").encode()
    for place, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(raw) >= 4 and not any(raw[place:64:2]) and all(raw[1 - place : 64 : 2]):
            return raw.decode(encoding, errors="replace").encode()
    packed = b"".join(raw.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    # One letter beyond groups of four holds no byte: it is a word.
    if re.fullmatch(rb"[A-Za-z0-9+/]{16,}", packed) and len(packed) % 4 != 1:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4))
    return None


def _unzipped(raw: bytes) -> bytes:
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(raw, MAX_BYTES)
    except zlib.error:
        return raw


def ignored_parts(places: Places) -> Iterator[Source]:
    """Parts of the user-data that cloud-init silently leaves out of what it merges."""
    parts = list(_parts(places))
    for text, part in parts:
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


def _parts(places: Places) -> Iterator[tuple[str, Message]]:
    """The parts of the user-data as cloud-init has unpacked them, with their headers, if any may be ours."""
    try:
        message_text = _text((places.cloud_instance / "user-data.txt.i").read_bytes())
    except OSError:
        return
    if SECTION not in message_text and "cloud-config" not in message_text:
        return
    import email  # only needed with user-data

    for part in email.message_from_string(message_text).walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            yield (payload.decode(errors="replace") if isinstance(payload, bytes) else ""), part


def _text(raw: bytes) -> str:
    return raw[:MAX_BYTES].decode(errors="replace")
