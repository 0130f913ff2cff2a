"""Readers of options: nothing that is given keeps an instance from its choice, and no guard fails open."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from aisandbox.instance.choose import options
from aisandbox.instance.choose.options import arguments, cloud_init, clouds
from aisandbox.instance.choose.options.metadata import MetadataError, Reader
from aisandbox.instance.choose.options.source import GUARDS, parse, section
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem
from tests.fuzz.search import Property
from tests.support import appliance
from tests.support.choices import MANIFEST, SOURCES, shut, wrong

KEYS = MANIFEST.options_by_key
WORDS = [
    *KEYS, "aisandbox", "AI-Sandbox", ":", ": ", "\n", "\n  ", "\n- ", "? ", "[", "]", "{", "}", ", ", "&a ", "*a",
    "<<: ", "|\n  ", ">-\n  ", "'", '"', "#", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", "\t", "!!bool ",
    "!!timestamp ", "!!int ", "!!float ", "!!binary ", "!!set ", "!!omap ", "!!pairs ", "!!null ", "!!str ", "!x ",
    "off", "~", "0123", "0x", "1:2:3", "2026-11-29", ".inf", "=", "\\ud800", "\\x00", "\u2028", "\x85", "\ufeff",
    "#cloud-config\n", "Content-Type: text/cloud-config\n\n", "Content-Type: multipart/mixed; boundary=b\n\n--b\n",
    "Content-Transfer-Encoding: x-uuencode\n", "filename*0*=utf-7'x'+2AA-;", "begin 644 x\n", "long-enough-for-a-key",
    "203.0.113.7", "::1/128", "%eth0", "--max-num-seqs 4", "--\\ud800", "aisandbox.", "=",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(WORDS) | st.text(max_size=6), max_size=24).map("".join)
BYTES = st.binary(max_size=60) | TEXT.map(str.encode) | st.tuples(st.binary(max_size=4), TEXT.map(str.encode)).map(
    b"".join
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner, max_size=4),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode())
FILES: Mapping[str, Callable[[Places], Path]] = {
    "options.yaml": lambda places: places.options,
    "the last good one": lambda places: places.last_good_options,
    "user-data.txt": lambda places: places.cloud_instance / "user-data.txt",
    "user-data.txt.i": lambda places: places.cloud_instance / "user-data.txt.i",
    "cloud-config.txt": lambda places: places.cloud_instance / "cloud-config.txt",
    "combined-cloud-config.json": lambda places: places.cloud_run / "combined-cloud-config.json",
    "instance-data.json": lambda places: places.cloud_run / "instance-data.json",
    "udf.env": lambda places: places.udf,
    "cmdline": lambda places: places.kernel_command_line,
    "environment.json": lambda places: places.environment,
}


def _sound(problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        assert "could not be read (" not in problem.reason, problem
        # Status and login message show it.
        str(problem).encode()
        assert str(problem).isprintable(), problem


def files_are_read(given: Mapping[str, bytes]) -> None:
    """Whatever lies in the files, there is a choice, and every problem can be shown."""
    with tempfile.TemporaryDirectory() as folder:
        places = appliance.make(Path(folder) / "root")
        for name, content in given.items():
            file = FILES[name](places)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        choice, problems = options.read(places, MANIFEST)
        choice.model_dump_json()
        _sound(problems)


def no_guard_fails_open(source: str, guard: str, value: str) -> None:
    """A value that is none shuts the door, wherever it is given."""
    text = f"aisandbox:\n  {guard}: {value}\n"
    found, fault = parse(text, "")
    meant = section(found, KEYS)
    if not fault and not (isinstance(meant, dict) and guard in meant and wrong(guard, meant[guard])):
        return
    try:
        json.dumps(meant, default=str)
    except (ValueError, TypeError):  # what holds itself, cloud-init cannot hand over
        return
    with tempfile.TemporaryDirectory() as folder:
        places = appliance.make(Path(folder) / "root")
        SOURCES[source](places, text)
        choice, problems = options.read(places, MANIFEST)
        assert shut(choice, guard), (source, text)
        _sound(problems)


class _Service:
    """A metadata service that answers anything."""

    def __init__(self, answers: list[bytes | None]) -> None:
        self._answers = answers

    def ask(self, path: str, headers: Mapping[str, str], method: str = "GET", absent: Any = ()) -> bytes | None:
        return self._answers.pop() if self._answers else None


READERS: Mapping[str, Reader] = {
    "vultr": partial(clouds._vultr, keys=KEYS),
    "gcp": clouds._gcp,
    "aws": partial(clouds._aws, keys=KEYS, has_user_data=False),
    "azure": partial(clouds._azure, keys=KEYS),
}


def metadata_is_read(cloud: str, answers: list[bytes | None]) -> None:
    try:
        found = READERS[cloud](_Service(answers))
    except MetadataError:
        return
    _sound(options.choose(found, MANIFEST)[1])


def user_data_is_read(raw: bytes) -> None:
    for source in cloud_init.bare(raw, "user-data", KEYS):
        _sound(options.choose([source], MANIFEST)[1])


def arguments_are_checked(text: str) -> None:
    """What passes is in one spelling, which passes again."""
    try:
        checked = arguments.check(text)
    except options.InvalidOptionError as refusal:
        _sound((options.problem(KEYS["vllm_args"], text, refusal),))
        checked = refusal.usable or ""
    assert arguments.check(checked) == checked


ARGUMENT_WORDS = [
    *(argument.name for argument in arguments.ALLOWED), "=", " ", "  ", "'", '"', "\\", "1", "0.5", "auto", "fp8", "--",
    '{"image": 2}', "[" * 2000, "--api-key", "\x1b[31m", "\ud800", "\n",
]  # fmt: skip

PROPERTIES = (
    Property(files_are_read, {"given": st.dictionaries(st.sampled_from(sorted(FILES)), BYTES | JSON, max_size=4)}),
    Property(
        no_guard_fails_open,
        {"source": st.sampled_from(sorted(SOURCES)), "guard": st.sampled_from(sorted(GUARDS)), "value": TEXT},
    ),
    Property(
        metadata_is_read,
        {"cloud": st.sampled_from(sorted(READERS)), "answers": st.lists(st.none() | BYTES | JSON, max_size=20)},
    ),
    Property(user_data_is_read, {"raw": BYTES}),
    Property(
        arguments_are_checked,
        {"text": st.lists(st.sampled_from(ARGUMENT_WORDS) | st.text(max_size=4), max_size=10).map("".join)},
    ),
)
