"""No guard fails open: whatever is wrong with a guard, and wherever it is given, its door is shut."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aisandbox.instance import files
from aisandbox.instance.choose import options
from aisandbox.instance.choose.options.source import GUARDS, Source
from tests.support import appliance
from tests.support.choices import MANIFEST, SOURCES, chosen, raw, shut, wrong

KEY = "long-enough-for-a-key"

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
        # What PyYAML's constructors cannot make is no YAMLError.
        "aisandbox:\n  api_key: !!bool maybe\n",
        "aisandbox:\n  api_key: !!timestamp tomorrow\n",
        "aisandbox:\n  api_key: !!int ''\n",
        f"aisandbox:\n  api_key: {KEY}\n  max_model_len: !!bool maybe\n",
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
    [
        b"aWduaXRpb24gaXMgbm90IG91cnMgYXQgYWxs",
        b"seventeen-letters\n",
        "just text".encode("utf-16"),
        b"\x1f\x8b\x08broken",
        b"\x00\xff" * 40,
    ],
)
def test_what_others_encode_is_none_of_ours(tmp_path: Path, content: bytes) -> None:
    places = appliance.make(tmp_path)
    raw(lambda _: content)(places, "")
    assert options.read(places, MANIFEST) == (options.Choice(), ())


def test_a_reader_that_fails_shuts_every_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what it would have read."""

    def read(*_: object) -> Iterator[Source]:
        raise ZeroDivisionError("a defect")
        yield

    monkeypatch.setattr("aisandbox.instance.choose.options.deployment.stackscript", read)
    places = appliance.make(tmp_path)
    appliance.options(places, "model: Org/Name\n")
    choice, _ = options.read(places, MANIFEST)
    assert choice.model == "Org/Name" and choice.closed == GUARDS and choice.sandbox == "off"


@pytest.mark.parametrize("source", ["own file", "merged, older"])
def test_a_list_that_holds_itself_shuts_the_door(tmp_path: Path, source: str) -> None:
    assert chosen(tmp_path / "root", source, "aisandbox:\n  api_key: &a [*a]\n").closed == {"api_key"}


def test_user_data_of_nothing_but_line_ends_is_read_at_once(tmp_path: Path) -> None:
    places = appliance.make(tmp_path)
    raw(lambda _: b"\n" * 200_000)(places, "")
    start = time.process_time()
    assert options.read(places, MANIFEST) == (options.Choice(), ())
    assert time.process_time() - start < 5


def test_a_problem_can_be_shown_and_kept(tmp_path: Path) -> None:
    """Whatever was given: escapes that move a terminal's cursor, and half characters, which no file can hold."""
    places = appliance.make(tmp_path)
    places.cloud_run.mkdir(parents=True)
    given = {"aisandbox": {"vllm_args": "--\x1b[2J\ud800 x", "model": "\ud800", "\ud800": "x"}}
    (places.cloud_run / "combined-cloud-config.json").write_text(json.dumps(given))
    _, problems = options.read(places, MANIFEST)
    assert len(problems) == 3 and all(str(problem).isprintable() for problem in problems)
    files.write_json(tmp_path / "kept", [asdict(problem) for problem in problems])
    (tmp_path / "kept").write_text("[" * 100_000)
    assert files.read_json(tmp_path / "kept") is None
