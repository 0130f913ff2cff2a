"""Configurations that lie, are broken, or mean harm: a clear refusal or an honest "unknown", and never a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aisandbox.instance.fit import sizing
from aisandbox.instance.fit.sizing import MAX_CONFIG_BYTES, Sized, UnobtainableError
from tests.support.appliance import MANIFEST
from tests.unit.test_sizing import KNOWN, facts, fleet, planned, value


def size(config: dict[str, Any], weights: int = 16 * 10**9) -> Sized:
    asked = planned("acme/model", fleet("L4"))
    return sizing.size(asked, config, {"model.safetensors": weights}, MANIFEST, KNOWN)


def good() -> dict[str, Any]:
    return dict(facts("Llama-3.1-8B-Instruct")["config"])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 1_000_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"hidden_size": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'"' + b"x" * MAX_CONFIG_BYTES + b'"', "larger than 16 MiB"),
    ],
    ids=["empty", "open", "binary", "deep list", "deep object", "long number", "list", "null", "too large"],
)
def test_what_cannot_be_read_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnobtainableError, match=reason) as refusal:
        sizing.parse(data)
    assert len(str(refusal.value)) < 300
    assert "sudo aisandbox configure" in refusal.value.fix


NONSENSE: list[object] = [-1, "abc", 1e300, 10**40, float("nan"), float("inf"), 1.5, True, "8" * 10_000]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize(
    "key", ["num_attention_heads", "num_key_value_heads", "num_hidden_layers", "hidden_size", "max_position_embeddings"]
)
def test_a_number_that_is_nonsense_is_named(key: str, nonsense: object) -> None:
    with pytest.raises(UnobtainableError, match=key) as refusal:
        size(good() | {key: nonsense})
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("key", sorted(good()))
@pytest.mark.parametrize("nothing", [None, [], {}, [1, 2], {"a": 1}, 0], ids=repr)
def test_a_value_that_is_missing_or_of_another_kind_is_no_traceback(key: str, nothing: object) -> None:
    try:
        sized = size(good() | {key: nothing})
    except UnobtainableError as refusal:
        assert refusal.fix
    else:
        assert value(sized, "--max-model-len") == "auto"


def test_a_configuration_that_tells_nothing_is_left_to_vllm() -> None:
    sized = size({})
    assert "with a context that vLLM fits to the memory it finds." in sized.sentence
    assert value(sized, "--max-model-len") == "auto"
    with pytest.raises(UnobtainableError, match="does not fit"):
        size({}, 10**12)


def test_weights_of_unknown_size_are_not_refused() -> None:
    assert "weights of unknown size" in size(good(), 0).sentence
    assert "weights of unknown size" in size(good(), -5).sentence


@pytest.mark.parametrize(
    "extra",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 1, "layer_types": ["full_attention"] * 100_000},
        {"layer_types": [None, 3, {"a": []}]},
        {"layer_types": "full_attention"},
        {"rope_scaling": {"rope_type": "linear", "factor": 1e300}},
        {"rope_scaling": {"rope_type": "linear", "factor": -3}},
        {"rope_scaling": [[[]]]},
        {"sliding_window": 10**11},
        {"num_attention_heads": 10**11, "num_key_value_heads": 10**11},
        {"head_dim": 10**11},
        {"kv_lora_rank": 10**11},
        {"full_attention_interval": 10**11},
        {"num_kv_shared_layers": 10**11},
        {"vocab_size": 10**12, "hidden_size": 10**12},
        {"layer_types": ["mamba"] * 32, "mamba_d_state": 10**11, "mamba_expand": 10**11},
        {"layer_types": ["linear_attention"] * 31 + ["full_attention"], "linear_num_value_heads": 10**11},
        {"layer_types": ["linear_attention"] * 32, "linear_conv_kernel_dim": 0},
        {"hybrid_override_pattern": "M*-" * 30, "ssm_state_size": 0},
        {"kv_lora_rank": 512, "index_head_dim": 10**11, "index_n_heads": 10**11},
        {"num_nextn_predict_layers": 10**11, "num_experts": 10**11, "moe_intermediate_size": 10**11},
        {"rope_parameters": {"full_attention": {"rope_type": 5}, "sliding_attention": {}, "x": 1}},
        {"quantization_config": {"quant_method": "mxfp4"}, "num_local_experts": 10**11},
        {"quantization_config": {"config_groups": {"a": {"weights": {"num_bits": 4, "group_size": "x"}}}}},
        {"quantization_config": {"config_groups": {"a": [1]}}},
        {"hidden_size_per_layer_input": 10**11, "tie_word_embeddings": True},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": [{}, None]},
        {"architectures": ["LlamaForCausalLM"] * 100_000},
        {"auto_map": "x"},
        {"dtype": {"a": 1}, "torch_dtype": 7},
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [10**30, "x"]}},
        {"quantization_config": {"quant_method": "gptq", "group_size": -1}},
        {"quantization_config": {"quant_method": ["fp8"]}},
        {"quantization_config": [1]},
        {"vision_config": {"num_heads": 0}},
        {"text_config": {"text_config": {"text_config": {"text_config": {}}}}},
        {"text_config": {"num_attention_heads": 0, "num_hidden_layers": 0}},
        {"model_type": "\x1b[31mred\n" * 1000},
    ],
    ids=lambda extra: json.dumps(extra)[:50],
)
def test_absurd_values_end_in_words(extra: dict[str, Any]) -> None:
    try:
        sized = size(good() | extra)
    except UnobtainableError as refusal:
        text = f"{refusal} {refusal.fix}"
    else:
        text = " ".join([sized.sentence, *(cell for row in sized.rows for cell in row)])
        json.dumps(sized.facts())
    assert len(text) < 2000
    assert "\x1b" not in text and "\n" not in text


def test_a_self_similar_configuration_has_an_end() -> None:
    config = good()
    config["text_config"] = config
    assert size(config)
