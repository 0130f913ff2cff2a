"""No guard fails open: whatever is wrong with a guard, and wherever it is given, its door is shut."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Callable
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aisandbox.instance import access, options
from aisandbox.instance.options import InvalidOptionError
from aisandbox.instance.options.source import GUARDS
from aisandbox.instance.places import Places
from aisandbox.manifest import load
from tests.support import appliance

MANIFEST = load()
KEY = "long-enough-for-a-key"

Write = Callable[[Places, str], None]
"""Gives a text of `aisandbox:` and what stands in it to an instance."""


def own_file(places: Places, text: str) -> None:
    appliance.options(places, text)


def raw(encode: Callable[[str], bytes]) -> Write:
    """User-data that cloud-init makes nothing of."""

    def write(places: Places, text: str) -> None:
        places.cloud_instance.mkdir(parents=True, exist_ok=True)
        (places.cloud_instance / "user-data.txt").write_bytes(encode(text))

    return write


def merged(file: str) -> Write:
    """User-data as cloud-init keeps it, before and after it has merged the parts."""

    def write(places: Places, text: str) -> None:
        text = f"#cloud-config\n{text}"
        raw(str.encode)(places, text)
        message = MIMEMultipart()
        message.attach(MIMEText(text, "cloud-config"))
        appliance.cloud_config(places, message.as_string(), "user-data.txt.i")
        try:
            document = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            document = {}
        if file == "cloud-config.txt":
            appliance.cloud_config(places, f"#cloud-config\n{yaml.safe_dump(document)}")
        else:
            places.cloud_run.mkdir(parents=True, exist_ok=True)
            (places.cloud_run / file).write_text(json.dumps(document, default=str))

    return write


SOURCES: dict[str, Write] = {
    "own file": own_file,
    "merged": merged("combined-cloud-config.json"),
    "merged, older": merged("cloud-config.txt"),
    "bare": raw(str.encode),
    "nearly cloud-config": raw(lambda text: f"# cloud-config\n{text}".encode()),
    "byte order mark": raw(lambda text: f"#cloud-config\n{text}".encode("utf-8-sig")),
    "UTF-16": raw(lambda text: f"#cloud-config\r\n{text}".encode("utf-16")),
    "UTF-16 without a mark": raw(lambda text: f"#cloud-config\n{text}".encode("utf-16-be")),
    "base64": raw(lambda text: base64.b64encode(f"#cloud-config\n{text}".encode())),
    "base64 of base64, wrapped": raw(lambda text: base64.encodebytes(base64.b64encode(text.encode()))),
    "base64 of gzip": raw(lambda text: base64.b64encode(gzip.compress(f"#cloud-config\n{text}".encode()))),
    "gzip": raw(lambda text: gzip.compress(text.encode())),
    "Latin-1": raw(lambda text: f"# für mich\n{text}".encode("latin-1", errors="replace")),
}


def chosen(tmp_path: Path, source: str, text: str) -> options.Choice:
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    places = appliance.make(tmp_path)
    SOURCES[source](places, text)
    return options.read(places, MANIFEST)[0]


def shut(choice: options.Choice, guard: str) -> bool:
    in_force = access.of(choice)
    return {
        "api_key": in_force.api_key,
        "chat_password": in_force.chat_login,
        "allowed_cidrs": bool(in_force.allowed_cidrs),
        "sandbox": in_force.sandbox == "off",
    }[guard]


def wrong(guard: str, value: object) -> bool:
    """Whether somebody who gives this value has made a mistake, and none that means the default."""
    try:
        options.check(MANIFEST.options_by_key[guard], value)
    except InvalidOptionError as mistake:
        return not mistake.usable
    return False


ANYTHING = st.recursive(
    st.text(max_size=20) | st.integers() | st.booleans() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize("source", SOURCES)
@given(guard=st.sampled_from(sorted(GUARDS)), value=ANYTHING)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_wrong_value_shuts_the_door(tmp_path: Path, source: str, guard: str, value: Any) -> None:
    text = yaml.safe_dump({"aisandbox": {guard: value}}, allow_unicode=True)
    typed = yaml.load(text, yaml.BaseLoader)["aisandbox"][guard]  # noqa: S506 - it makes nothing but text
    if wrong(guard, typed) and wrong(guard, value):
        assert shut(chosen(tmp_path / "root", source, text), guard)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "text",
    [
        f"aisandbox: {{api_key: {KEY}",
        f"aisandbox:\n  options:\n    api_key: {KEY}\n",
        f"aisandbox:\n  - api_key: {KEY}\n",
        f"aisandbox:\n  api-key: {KEY}\n",
        f"aisandbox:\n  API_KEY: {KEY}\n",
        f"aisandbox:\n  key: {KEY}\n",
        f"aisandbox:\n  apikey: {KEY}\n",
        f"aisandbox:\n\tapi_key: {KEY}\n",
        f"aisandbox: 'api_key={KEY}'\n",
        "aisandbox:\n  api_key: 0123456789012345\n",
        f"AI-Sandbox:\n  api_key: {KEY}\n",
        f"aisandbox:\napi_key: {KEY}\n",
    ],
)
def test_a_wrong_form_shuts_the_door_or_counts(tmp_path: Path, source: str, text: str) -> None:
    assert shut(chosen(tmp_path / "root", source, text), "api_key")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("value", ["off", "Off", "OFF", "no", "No", "n", "false", "FALSE", "'off'", '"no"'])
def test_off_is_off_in_every_spelling(tmp_path: Path, source: str, value: str) -> None:
    choice = chosen(tmp_path / "root", source, f"aisandbox:\n  sandbox: {value}\n")
    assert (choice.sandbox, choice.closed) == ("off", frozenset())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "password", ["012345670123", "1_000_000_000", "0x1234567890", "2026-11-29", "1234567890.50", "190:20:30.15"]
)
def test_a_password_is_what_was_typed(tmp_path: Path, source: str, password: str) -> None:
    choice = chosen(tmp_path / "root", source, f"aisandbox:\n  chat_password: {password}\n")
    assert choice.chat_password and choice.chat_password.get_secret_value() == password


def test_a_number_whose_text_is_unknown_is_refused(tmp_path: Path) -> None:
    """As in vendor-data, whose parts no instance keeps in a form that it could look up."""
    places = appliance.make(tmp_path)
    places.cloud_run.mkdir(parents=True, exist_ok=True)
    file = places.cloud_run / "combined-cloud-config.json"
    file.write_text('{"aisandbox": {"chat_password": 1402433619, "sandbox": false}}')
    choice, (changed, closed) = options.read(places, MANIFEST)
    assert choice.closed == {"chat_password"} and choice.sandbox == "off"
    assert "in quotes" in changed.fix and closed.option == "chat_password"
    file.write_text('{"aisandbox": {"api_key": ')
    assert options.read(places, MANIFEST)[0].closed == {"api_key"}


@pytest.mark.parametrize(
    "content",
    [b"aWduaXRpb24gaXMgbm90IG91cnMgYXQgYWxs", "just text".encode("utf-16"), b"\x1f\x8b\x08broken", b"\x00\xff" * 40],
)
def test_what_others_encode_is_none_of_ours(tmp_path: Path, content: bytes) -> None:
    places = appliance.make(tmp_path)
    raw(lambda _: content)(places, "")
    assert options.read(places, MANIFEST) == (options.Choice(), ())
