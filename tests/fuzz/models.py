"""What a model brings along: anybody can publish one."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from aisandbox.instance.fit import sizing
from aisandbox.instance.fit.sizing import UnobtainableError
from aisandbox.instance.observe.probes import model
from aisandbox.instance.serve import engine_causes
from tests.fuzz.search import Property
from tests.support.appliance import MANIFEST
from tests.unit.test_sizing import KNOWN, facts, fleet, planned

GOOD: dict[str, Any] = dict(facts("Llama-3.1-8B-Instruct")["config"])
ASKED = planned("acme/model", fleet("L4"))
KEYS = sorted(
    {*GOOD, "text_config", "rope_scaling", "quantization_config", "auto_map", "sliding_window", "layer_types"}
)
SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6)
    | st.sampled_from([10**40, "8" * 5000, -1, "LlamaForCausalLM", "fp8"])
)  # fmt: skip
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=4),
    max_leaves=8,
)
DEEP = st.integers(1, 100_000).map(lambda depth: b'{"a":' * depth)
HEADER = (
    st.dictionaries(st.sampled_from(["w", "__metadata__"]), JSON | st.fixed_dictionaries({"data_offsets": JSON}))
    .map(lambda header: json.dumps(header).encode())
    .filter(bool)
)


def weights_are_whole_or_damaged(header: bytes, length: int | None, data: bytes, index: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        told = len(header) if length is None else length
        (Path(folder) / "a.safetensors").write_bytes(told.to_bytes(8, "little") + header + data)
        (Path(folder) / model.INDEX).write_text(json.dumps({"weight_map": index}))
        assert all(fault.isprintable() for fault in model.broken(Path(folder)))
        assert engine_causes.damaged_weights(Path(folder)).isprintable()


def configurations_are_sized_or_refused(changes: dict[str, Any]) -> None:
    try:
        config = sizing.parse(json.dumps(GOOD | changes).encode())
        sizing.size(ASKED, config, {"model.safetensors": 16 * 10**9}, MANIFEST, KNOWN)
    except UnobtainableError as refusal:
        assert refusal.fix and len(str(refusal)) < 1000
        assert str(refusal).isprintable(), refusal


def any_configuration_is_read_or_refused(content: bytes) -> None:
    try:
        assert isinstance(sizing.parse(content), dict)
    except UnobtainableError as refusal:
        assert refusal.fix


PROPERTIES = (
    Property(
        weights_are_whole_or_damaged,
        {
            "header": HEADER | DEEP | st.binary(max_size=20),
            "length": st.none() | st.integers(0, 2**64 - 1),
            "data": st.binary(max_size=8),
            "index": JSON | st.dictionaries(st.text(), st.text(st.characters(), max_size=6), max_size=3),
        },
    ),
    Property(
        configurations_are_sized_or_refused, {"changes": st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4)}
    ),
    Property(any_configuration_is_read_or_refused, {"content": DEEP | st.binary(max_size=40)}),
)
