"""The parts of the sizing by themselves: blocks of the cache, weights, conversations at once, vLLM's arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aisandbox.instance.fit.sizing import batch, pool, shape, weights
from aisandbox.instance.fit.sizing.facts import Facts, read
from aisandbox.instance.fit.sizing.given import Given
from aisandbox.instance.fit.sizing.numerics import Numerics
from aisandbox.instance.fit.sizing.pool import Pool
from aisandbox.instance.fit.tables import Defaults
from tests.unit.test_sizing import GIB, TABLES, cpu, facts, fleet, size, value
from tests.unit.test_sizing_field import MODELS

BFLOAT16 = Numerics(None, 2, 2)
IN_FLIGHT = 2 * 2048


def known(model: str) -> Facts:
    told = MODELS.get(model) or facts(model)
    return read(told["config"], {"w": told["weight_bytes"]}, TABLES)


def blocks(model: str | dict[str, Any], gpus: int = 1, in_flight: int = IN_FLIGHT) -> Pool:
    found = known(model) if isinstance(model, str) else read(model, {"w": 10**9}, TABLES)
    made = pool.of(found, BFLOAT16, gpus, 1, in_flight)
    assert made
    return made


# Blocks of the cache, against what vLLM wrote


@pytest.mark.parametrize(
    ("model", "gpus", "gib", "published"),
    [("Qwen3.6-35B-A3B", 1, 5.5, 274), ("Qwen3.8-27B-FP8", 1, 9.75, 203), ("Qwen3.8-27B-FP8", 2, 9.75, 407)],
)
def test_a_block_of_a_hybrid_model_holds_a_state(model: str, gpus: int, gib: float, published: int) -> None:
    assert blocks(model, gpus).total(int(gib * GIB)) == pytest.approx(published, abs=1)


@pytest.mark.parametrize(
    ("model", "in_flight", "block_bytes", "taken"),
    [
        ("gemma-4-12B-it-qat-w4a16-ct", 4992, 1048576, 2909),
        ("gemma-4-E2B-it-qat-w4a16-ct", 4096, 98304, 4676),
        ("gemma-3-27b-it", 4096, 1310720, 6022),
        ("gpt-oss-20b", 4096, 393216, 4361),
        ("Qwen3.8-27B-FP8", 4096, 51380224, 90),
        ("Qwen3-8B", 4096, 2359296, 4096),
    ],
)
def test_blocks_are_those_of_vllms_own_code(model: str, in_flight: int, block_bytes: int, taken: int) -> None:
    """What `_get_kv_cache_groups_uniform_page_size` of vLLM 0.32 makes of these layers, for 65,536 tokens."""
    made = blocks(model, in_flight=in_flight)
    assert (made.block_bytes, made.blocks(65536)) == (block_bytes, taken)


def test_a_hybrid_conversation_takes_two_states_of_each_group() -> None:
    # 16 layers of attention and 48 others: four groups of 16, three of them with states.
    qwen = blocks("Qwen3.8-27B-FP8")
    assert [qwen.blocks(tokens) for tokens in (1, 784, 785, 131072)] == [7, 7, 8, 168 + 6]


def test_a_window_keeps_what_is_computed_and_one_block() -> None:
    """A log of vLLM 0.26: 86,664 tokens in 11.06 GiB, when each conversation has 16,384."""
    gemma = blocks("gemma-4-12B-it-qat-w4a16-ct", in_flight=2 * 2496)
    assert gemma.blocks(16384) == 16384 // 64 + 5 * (-(-(1023 + 4992) // 16) + 1)
    assert gemma.capacity(int(11.06 * GIB), 16384) == pytest.approx(86664, rel=0.001)
    assert gemma.blocks(100) == 2 + 5 * 8, "short conversations keep no more than they have"


def test_groups_of_layers_are_filled_up() -> None:
    # Gemma 3 has 10 layers that see everything and 52 that do not: 1 and 6 groups of 10, 8 places stay empty.
    groups = [kind.groups for kind in blocks("gemma-3-27b-it").kinds]
    assert groups == [1, 6]
    # 12 and 12 layers are two groups, not twelve.
    assert [kind.groups for kind in blocks("gpt-oss-20b").kinds] == [1, 1]


def test_heads_are_spread_until_each_gpu_has_one() -> None:
    sizes = [blocks("Qwen3-8B", gpus).block_bytes for gpus in (1, 2, 8, 16)]
    assert sizes[0] == 2 * sizes[1] == 8 * sizes[2] == 8 * sizes[3]


def test_the_index_of_sparse_attention_is_kept_in_bytes() -> None:
    per_token = blocks("DeepSeek-V3.2", 8).block_bytes / 64
    assert per_token == 61 * (576 * 2 + 132)
    assert blocks("DeepSeek-V3", 8).block_bytes / 64 == 61 * 576 * 2


MAMBA2 = {
    "model_type": "granitemoehybrid",
    "num_hidden_layers": 40,
    "layer_types": (["mamba"] * 9 + ["attention"]) * 4,
    "hidden_size": 1536,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "mamba_n_heads": 48,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
}
NEMOTRON = {
    "model_type": "nemotron_h",
    "num_hidden_layers": 8,
    "hybrid_override_pattern": "M-M*M-M-",
    "hidden_size": 4480,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "mamba_num_heads": 128,
    "mamba_head_dim": 80,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
}
LFM2 = {
    "model_type": "lfm2",
    "num_hidden_layers": 16,
    "layer_types": ["conv"] * 10 + ["full_attention"] * 6,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "conv_L_cache": 3,
}


@pytest.mark.parametrize(
    ("config", "layers", "state"),
    [
        (MAMBA2, 36, 2 * (48 * 64 * 128 + 3 * (48 * 64 + 2 * 128))),
        (NEMOTRON, 4, 4 * 128 * 80 * 128 + 2 * 3 * (128 * 80 + 2 * 8 * 128)),
        (LFM2, 10, 2 * 2 * 2048),
        ({**MAMBA2, "mamba_ssm_cache_dtype": "float32"}, 36, 4 * 48 * 64 * 128 + 2 * 3 * (48 * 64 + 2 * 128)),
    ],
    ids=["Mamba 2", "Nemotron-H", "LFM2", "told"],
)
def test_states_of_other_recurrent_layers(config: dict[str, Any], layers: int, state: int) -> None:
    found = read(config, {"w": 10**9}, TABLES).state
    assert found and (found.layers, found.layer_bytes(2, 1)) == (layers, state)


# Weights


def test_layers_that_guess_ahead_are_not_loaded() -> None:
    plain = known("Qwen3.8-27B")
    without = read(
        {**MODELS["Qwen3.8-27B"]["config"], "text_config": _without_guessing()}, {"w": plain.weight_bytes}, TABLES
    )
    more, less = (weights.on_each(found, BFLOAT16, False, 1, 1, (9, 0)) for found in (without, plain))
    # Attention with its gate, three matrices of 5,120 x 17,408, and the one that joins two vectors.
    assert (more - less) / 2 == 5120 * 256 * (3 * 24 + 2 * 4) + 3 * 5120 * 17408 + 2 * 5120**2
    assert not shape.read(_without_guessing(), Defaults()).predicting_values


def _without_guessing() -> dict[str, Any]:
    return {k: v for k, v in MODELS["Qwen3.8-27B"]["config"]["text_config"].items() if k != "mtp_num_hidden_layers"}


def test_a_table_that_the_files_hold_twice_is_loaded_once() -> None:
    found = known("gemma-4-12B-it-qat-w4a16-ct")
    table = 2 * 262144 * 3840
    alone = read(MODELS["gemma-4-12B-it-qat-w4a16-ct"]["config"], {"w": found.weight_bytes - table}, TABLES)
    loaded = [weights.on_each(one, BFLOAT16, False, 1, 1, (8, 6)) for one in (found, alone)]
    assert loaded[0] == loaded[1]


def test_mxfp4_is_filled_up_to_the_widths_of_its_kernels() -> None:
    found = known("gpt-oss-20b")
    marlin, hopper = (weights.on_each(found, BFLOAT16, False, 1, 1, (major, 0)) for major in (8, 9))
    assert marlin / found.weight_bytes == pytest.approx(1.067, abs=0.01)
    assert hopper / found.weight_bytes == pytest.approx(1.035, abs=0.01)


def test_latent_attention_lies_partly_on_every_gpu() -> None:
    found = known("DeepSeek-V3.2")
    one, eight = (weights.on_each(found, BFLOAT16, False, gpus, 1, (9, 0)) for gpus in (1, 8))
    assert eight > one // 8 + GIB


# What is computed at once, and vLLM's arguments


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("T4", (256, 2048)),
        ("A100-40", (256, 2048)),
        ("A100-80", (256, 2048)),
        ("H100", (1024, 8192)),
        ("H200", (1024, 8192)),
    ],
)
def test_vllms_own_defaults(gpus: str, expected: tuple[int, int]) -> None:
    found = batch.default(known("Qwen3-8B"), fleet(gpus), Given(()))
    assert (found.conversations, found.tokens) == expected


@pytest.mark.parametrize("gpus", ["A100-40", "L40S", "2xL4", "H100", "H200", "A100-80"])
def test_a_hybrid_model_computes_no_more_conversations_than_it_has_states(gpus: str) -> None:
    sized = size("Qwen3.8-27B-FP8", fleet(gpus))
    told = int(value(sized, "--max-num-seqs") or 0)
    assert sized.fit and sized.fit.blocks
    assert told == (256 if gpus in ("H100", "H200", "A100-80") else 64)
    assert told <= sized.fit.blocks * 3 // 4, "vLLM counts fewer blocks at times"


def test_where_there_are_few_states_there_are_few_conversations() -> None:
    sized = size("Qwen3.8-27B-FP8", fleet("L40S"), vllm_args="--gpu-memory-utilization 0.72")
    told = int(value(sized, "--max-num-seqs") or 0)
    assert sized.fit and sized.fit.blocks
    assert 0 < told == sized.fit.blocks - sized.fit.blocks // 4 < 64


def test_the_user_decides_how_many_conversations() -> None:
    sized = size("Qwen3.8-27B-FP8", fleet("L40S"), vllm_args="--max-num-seqs 100")
    assert sized.args.count("--max-num-seqs") == 1 and value(sized, "--max-num-seqs") == "100"


def test_no_more_conversations_than_tokens_at_once() -> None:
    few = "--max-num-batched-tokens 80"
    assert value(size("Qwen3.8-27B-FP8", fleet("H100"), vllm_args=few), "--max-num-seqs") == "80"
    assert "--max-num-seqs" not in size("Qwen3-8B", fleet("H100"), vllm_args=few).args


def test_a_dense_model_is_left_to_vllm_where_its_context_fits() -> None:
    assert "--max-num-seqs" not in size("Qwen3-8B", fleet("H100")).args
    assert value(size("gpt-oss-120b", fleet("H100")), "--max-num-seqs") == "256"
    assert "--max-num-seqs" not in size("Qwen2.5-7B-Instruct-AWQ", cpu(16)).args


def test_a_large_vocabulary_on_a_small_gpu() -> None:
    assert value(size("gemma-4-12B-it-qat-w4a16-ct", fleet("L4")), "--max-num-seqs") == "32"
    assert "--max-num-seqs" not in size("gemma-4-12B-it-qat-w4a16-ct", fleet("L40S")).args


def test_no_video_where_vllm_would_try_out_the_longest() -> None:
    told = value(size("Qwen2.5-VL-7B-Instruct", fleet("L4")), "--limit-mm-per-prompt")
    assert told and json.loads(told) == {"video": 0}
    assert "--limit-mm-per-prompt" not in size("Qwen3.8-27B-FP8", fleet("H100")).args
    for own in ("--language-model-only", "--limit-mm-per-prompt '{\"image\": 2}'"):
        sized = size("Qwen2.5-VL-7B-Instruct", fleet("H100"), vllm_args=own)
        assert sized.args.count("--limit-mm-per-prompt") == own.count("--limit-mm")


def test_a_video_that_the_user_allows_takes_its_memory() -> None:
    def taken(limit: str, length: int | None = None) -> float:
        args = f"--limit-mm-per-prompt '{limit}'"
        fit = size("Qwen2.5-VL-7B-Instruct", fleet("H100"), vllm_args=args, max_model_len=length).fit
        assert fit
        return fit.reserve / GIB

    pictures = taken('{"video": 0}')
    assert taken('{"video": 1}') > pictures + 9, "the longest is 15 GiB, and the sampler alone is 5 here"
    assert taken('{"image": 1}') == taken('{"video": 1}'), "vLLM allows what is not named"
    assert taken('{"video": 1}', 8192) == pictures


def test_a_context_that_does_not_fit_is_left_to_vllm() -> None:
    sized = size("Qwen3.8-27B-FP8", fleet("A100-40"), max_model_len=262_144)
    assert value(sized, "--max-model-len") == "auto"
    assert value(size("Qwen3.8-27B-FP8", fleet("A100-40"), max_model_len=65_536), "--max-model-len") == "65536"
