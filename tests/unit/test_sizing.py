"""Real model configurations on real fleets of GPUs: what fits, over how many GPUs, with how much context."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aisandbox.instance.choose.options import Choice
from aisandbox.instance.choose.resolve import resolve
from aisandbox.instance.deployment import Deployment
from aisandbox.instance.fit import sizing, tables
from aisandbox.instance.fit.hardware import Gpu, Hardware
from aisandbox.instance.fit.sizing import Sized, UnobtainableError
from aisandbox.instance.fit.sizing.facts import read
from aisandbox.instance.fit.tables import Tables
from tests.support.appliance import MANIFEST, make

DATA = Path(__file__).parent.parent / "data"
MODELS = DATA / "models"
GIB = 1024**3

TABLES = Tables.model_validate_json((DATA / "vllm-tables.json").read_bytes())
"""As the bake of vLLM 0.32 writes them down; tests/gateway/test_engine_tables.py compares them with what it says."""

GPUS: dict[str, tuple[str, float, tuple[int, int]]] = {
    "T4": ("Tesla T4", 14.56, (7, 5)),
    "L4": ("NVIDIA L4", 22.04, (8, 9)),
    "A10G": ("NVIDIA A10G", 22.06, (8, 6)),
    "L40S": ("NVIDIA L40S", 44.39, (8, 9)),
    "A100-40": ("NVIDIA A100-SXM4-40GB", 39.49, (8, 0)),
    "A100-80": ("NVIDIA A100-SXM4-80GB", 79.25, (8, 0)),
    "H100": ("NVIDIA H100 80GB HBM3", 79.19, (9, 0)),
    "H200": ("NVIDIA H200", 139.81, (9, 0)),
}
"""Name, memory in GiB as CUDA sees it, and compute capability."""


def fleet(name: str) -> Hardware:
    """`L4` is one of them, `4xL4` are four."""
    count, _, kind = name.rpartition("x")
    gpu, memory, capability = GPUS[kind]
    gpus = (Gpu(name=gpu, memory_gib=memory, capability=capability) for _ in range(int(count or 1)))
    return Hardware(flavour="cuda", ram_gib=64, cpus=8, gpus=tuple(gpus))


def cpu(ram_gib: float) -> Hardware:
    return Hardware(flavour="cpu", ram_gib=ram_gib, cpus=4)


def facts(model: str) -> dict[str, Any]:
    return dict(json.loads((MODELS / f"{model}.json").read_text()))


def planned(model: str, hardware: Hardware, **choice: object) -> Deployment:
    return resolve(Choice.model_validate({"model": model, **choice}), (), MANIFEST, hardware)


def size(model: str, hardware: Hardware, known: Tables = TABLES, **choice: object) -> Sized:
    told = facts(model)
    weights = {"model.safetensors": told["weight_bytes"]}
    return sizing.size(planned(told["model"], hardware, **choice), told["config"], weights, MANIFEST, known)


def value(sized: Sized, name: str) -> str | None:
    return sized.args[sized.args.index(name) + 1] if name in sized.args else None


def row(sized: Sized, label: str) -> str:
    return dict(sized.rows)[label]


def context(sized: Sized) -> int:
    """The estimated context, in tokens."""
    tokens = re.search(r"([\d,]+) tokens", sized.sentence)
    assert tokens, sized.sentence
    return int(tokens[1].replace(",", ""))


FITS = [
    # Dense models with grouped heads
    ("Llama-3.1-8B-Instruct", "L4", 1, (20_000, 45_000)),
    ("Llama-3.1-8B-Instruct", "A10G", 1, (20_000, 45_000)),
    ("Llama-3.1-8B-Instruct", "A100-40", 1, (131_072, 131_072)),
    ("Llama-3.1-8B-Instruct", "4xT4", 2, (50_000, 90_000)),
    ("Mistral-7B-Instruct-v0.3", "L4", 1, (32_768, 32_768)),
    ("Qwen3-8B", "L4", 1, (25_000, 40_960)),
    ("Qwen3-32B", "H100", 1, (25_000, 40_960)),
    ("Qwen3-32B", "4xL4", 4, (20_000, 40_960)),
    ("Qwen3-32B", "2xL40S", 2, (40_960, 40_960)),
    # Hybrid: most layers keep no cache
    ("Qwen3.8-27B", "H100", 1, (262_144, 262_144)),
    ("Qwen3.8-27B", "4xL4", 4, (200_000, 262_144)),
    ("Qwen3.8-27B-FP8", "A100-40", 1, (60_000, 130_000)),
    ("Qwen3.8-27B-FP8", "L40S", 1, (120_000, 262_144)),
    ("Qwen3.6-35B-A3B-FP8", "L40S", 1, (100_000, 262_144)),
    ("Qwen3.8-27B-FP8", "2xL4", 2, (70_000, 200_000)),
    ("Qwen3.8-27B-FP8", "H100", 1, (262_144, 262_144)),
    # Sliding windows
    ("gemma-3-27b-it", "H100", 1, (131_072, 131_072)),
    ("gemma-4-12B-it-qat-w4a16-ct", "T4", 1, (150_000, 262_144)),
    ("gemma-4-12B-it-qat-w4a16-ct", "L4", 1, (262_144, 262_144)),
    ("gpt-oss-20b", "L4", 1, (131_072, 131_072)),
    ("gpt-oss-120b", "H100", 1, (100_000, 131_072)),
    ("gpt-oss-120b", "A100-80", 1, (100_000, 131_072)),
    ("gpt-oss-120b", "4xL4", 4, (60_000, 131_072)),
    # Mixture of experts
    ("Qwen3-30B-A3B", "H100", 1, (40_960, 40_960)),
    ("Qwen3-30B-A3B", "2xL40S", 2, (40_960, 40_960)),
    ("Mixtral-8x7B-Instruct-v0.1", "2xH100", 2, (32_768, 32_768)),
    ("Mixtral-8x7B-Instruct-v0.1", "H200", 1, (32_768, 32_768)),
    # Latent attention (MLA)
    ("DeepSeek-V2-Lite-Chat", "A100-40", 1, (100_000, 163_840)),
    ("DeepSeek-V3", "8xH200", 8, (163_840, 163_840)),
    # Pictures
    ("Qwen2.5-VL-7B-Instruct", "L4", 1, (30_000, 90_000)),
    # Quantized
    ("Qwen2.5-7B-Instruct-AWQ", "T4", 1, (32_768, 32_768)),
    ("Qwen2.5-7B-Instruct-GPTQ-Int4", "T4", 1, (32_768, 32_768)),
]


@pytest.mark.parametrize(("model", "gpus", "used", "tokens"), FITS)
def test_what_fits(model: str, gpus: str, used: int, tokens: tuple[int, int]) -> None:
    sized = size(model, fleet(gpus))
    assert int(value(sized, "--tensor-parallel-size") or 1) == used
    assert tokens[0] <= context(sized) <= tokens[1]
    assert value(sized, "--max-model-len") == "auto", "vLLM measures"


REFUSED = [
    ("Llama-3.1-8B-Instruct", "T4", "16.1 GB"),
    ("Qwen3-8B", "T4", "16.4 GB"),
    ("Qwen3-32B", "L40S", "65.5 GB"),
    ("Qwen3.8-27B", "A100-40", "55.6 GB"),
    ("Qwen3.8-27B-FP8", "L4", "30.9 GB"),
    ("gemma-3-27b-it", "L40S", "54.9 GB"),
    ("gpt-oss-120b", "L40S", "65.2 GB"),
    ("Qwen3-30B-A3B", "A100-40", "61.1 GB"),
    ("Mixtral-8x7B-Instruct-v0.1", "H100", "93.4 GB"),
    ("DeepSeek-V3", "8xH100", "689 GB"),
]


@pytest.mark.parametrize(("model", "gpus", "weights"), REFUSED)
def test_what_does_not_fit_is_refused_with_figures_and_a_listed_model_that_does(
    model: str, gpus: str, weights: str
) -> None:
    hardware = fleet(gpus)
    with pytest.raises(UnobtainableError, match="does not fit") as refusal:
        size(model, hardware)
    assert facts(model)["model"] in str(refusal.value)
    assert weights in str(refusal.value)
    assert hardware.gpus[0].name in str(refusal.value)
    instead = refusal.value.fix.split("--model ")[1].split(". ")[0]
    assert instead in [
        model.id for model in MANIFEST.fitting(hardware.gpu_memory_gib, len(hardware.gpus), hardware.capability)
    ]


def test_the_nearest_listed_model_is_the_largest_that_fits() -> None:
    for gpus, nearest in (("H100", "openai/gpt-oss-120b"), ("L4", "openai/gpt-oss-20b"), ("T4", "google/gemma-4-12B")):
        with pytest.raises(UnobtainableError) as refusal:
            size("DeepSeek-V3", fleet(gpus))
        assert f"sudo aisandbox configure --model {nearest}" in refusal.value.fix


@pytest.mark.parametrize(
    "name",
    [
        "Qwen3.8-27B-FP8",
        "Qwen3.6-35B-A3B-FP8",
        "gpt-oss-20b",
        "gpt-oss-120b",
        "gemma-4-12B-it-qat-w4a16-ct",
    ],
)
def test_the_manifest_says_how_much_a_listed_model_needs(name: str) -> None:
    """It fits on one GPU of that memory, with a useful context on a little more, and not on three quarters of it."""
    listed = MANIFEST.model(facts(name)["model"])
    assert listed

    def gpu(memory_gib: float) -> Hardware:
        return Hardware(flavour="cuda", gpus=(Gpu(name="GPU", memory_gib=memory_gib, capability=(9, 0)),))

    assert size(name, gpu(listed.gpu_memory_gib))
    assert context(size(name, gpu(listed.gpu_memory_gib * 1.05))) >= 8192
    with pytest.raises(UnobtainableError, match="does not fit"):
        size(name, gpu(listed.gpu_memory_gib * 0.75))


def test_the_decision_in_one_sentence_and_one_table() -> None:
    sized = size("Llama-3.1-8B-Instruct", fleet("L4"))
    assert sized.sentence.startswith("8.0 B parameters x 2 bytes = 16.1 GB, fits one NVIDIA L4 (23.7 GB) with about ")
    assert row(sized, "Architecture") == "LlamaForCausalLM (llama)"
    assert "made for 131,072" in row(sized, "Context")
    assert "21.8 GB for vLLM: 16.1 GB weights, 0.7 GB to compute in" in row(sized, "Use")
    assert row(sized, "At once").startswith("up to 64 conversations, whose contexts share about 37,000 tokens;")
    assert sized.facts()["rows"][0] == ["Architecture", "LlamaForCausalLM (llama)"]
    json.dumps(sized.facts())


def test_several_gpus_are_told_apart_from_those_that_stay_idle() -> None:
    sized = size("Qwen3.8-27B-FP8", fleet("4xL4"))
    assert "2 of 4 NVIDIA L4 (23.7 GB each)" in sized.sentence
    assert row(sized, "Idle").startswith("2 GPUs")


# Tensor parallelism


def test_heads_decide_over_how_many_gpus_a_model_can_be_spread() -> None:
    # 28 heads for questions, 4 for the cache: 3, 5, 6 and 8 GPUs are impossible; 7 divides 28, but not 4.
    for count in (3, 5, 6, 7, 8):
        with pytest.raises(UnobtainableError, match="heads"):
            size("Qwen2.5-7B-Instruct-AWQ", fleet(f"{count}xT4"), vllm_args=f"--tensor-parallel-size {count}")
    for count in (1, 2, 4):
        sized = size("Qwen2.5-7B-Instruct-AWQ", fleet("8xT4"), vllm_args=f"--tensor-parallel-size {count}")
        assert sized.args[-2:] == ("--tensor-parallel-size", str(count))
        assert sized.args.count("--tensor-parallel-size") == 1


def test_blocks_of_quantized_weights_are_not_cut() -> None:
    """DeepSeek-V3's experts are 2048 wide in blocks of 128: 16 parts are possible, not 32."""
    told = facts("DeepSeek-V3")
    hardware = fleet("32xH200")

    def of(count: int) -> Sized:
        asked = planned(told["model"], hardware, vllm_args=f"--tensor-parallel-size {count}")
        return sizing.size(asked, told["config"], {"w": told["weight_bytes"]}, MANIFEST, TABLES)

    assert of(16)
    with pytest.raises(UnobtainableError):
        of(32)
    # Here experts are 512 wide.
    assert size("Qwen3.6-35B-A3B-FP8", fleet("8xL40S"), vllm_args="--tensor-parallel-size 4")
    with pytest.raises(UnobtainableError):
        size("Qwen3.6-35B-A3B-FP8", fleet("8xL40S"), vllm_args="--tensor-parallel-size 8")
    assert size("Qwen3.6-35B-A3B-FP8", fleet("8xL40S"), vllm_args="--tensor-parallel-size 8 --enable-expert-parallel")


def test_more_gpus_than_there_are_cannot_be_asked_for() -> None:
    with pytest.raises(UnobtainableError, match="2 GPUs") as refusal:
        size("Qwen3-8B", fleet("2xL4"), vllm_args="--tensor-parallel-size 4")
    assert "--unset vllm_args" in refusal.value.fix


def test_stages_multiply_the_memory() -> None:
    with pytest.raises(UnobtainableError):
        size("Qwen3-32B", fleet("4xL4"), vllm_args="--tensor-parallel-size 1")
    assert size("Qwen3-32B", fleet("4xL4"), vllm_args="--tensor-parallel-size 1 --pipeline-parallel-size 4")


# What the user asks for


def test_a_context_that_was_asked_for_is_given_to_vllm() -> None:
    sized = size("Llama-3.1-8B-Instruct", fleet("L4"), max_model_len=9000)
    assert value(sized, "--max-model-len") == "9000"
    assert "with the 9,000 tokens of context that were asked for." in sized.sentence


def test_more_context_than_the_model_was_made_for_is_cut() -> None:
    sized = size("Qwen3-8B", fleet("H100"), max_model_len=100_000)
    assert value(sized, "--max-model-len") == "40960"
    assert "asked for 100,000" in row(sized, "Context")


def test_a_longer_context_takes_more_gpus() -> None:
    assert value(size("Llama-3.1-8B-Instruct", fleet("4xL4")), "--tensor-parallel-size") is None
    assert value(size("Llama-3.1-8B-Instruct", fleet("4xL4"), max_model_len=100_000), "--tensor-parallel-size") == "2"


def test_weights_can_be_compressed_while_loading() -> None:
    with pytest.raises(UnobtainableError) as refusal:
        size("Llama-3.1-8B-Instruct", fleet("T4"))
    assert "sudo aisandbox configure --set quantization=fp8" in refusal.value.fix
    sized = size("Llama-3.1-8B-Instruct", fleet("T4"), quantization="fp8")
    assert value(sized, "--quantization") == "fp8_per_tensor"
    assert "compressed to 9.1 GB while loading" in sized.sentence


def test_compressed_weights_are_not_compressed_again() -> None:
    sized = size("Qwen3.8-27B-FP8", fleet("H100"), quantization="fp8")
    assert "--quantization" not in sized.args
    assert "ignored" in row(sized, "Compression")


def test_without_pictures_a_model_needs_less() -> None:
    pictures, text = (
        context(size("Qwen2.5-VL-7B-Instruct", fleet("L4"), vllm_args=args)) for args in (None, "--language-model-only")
    )
    assert text > pictures + 10_000


def test_a_smaller_cache_holds_more() -> None:
    plain, fp8 = (
        context(size("Llama-3.1-8B-Instruct", fleet("L4"), vllm_args=a))
        for a in ("--max-num-seqs 64", "--max-num-seqs 64 --kv-cache-dtype fp8")
    )
    assert fp8 > 1.9 * plain


def test_the_users_arguments_come_last_and_decide() -> None:
    sized = size("Qwen3-8B", fleet("L4"), vllm_args="--gpu-memory-utilization 0.8 --max-num-seqs 8")
    assert sized.args[-4:] == ("--gpu-memory-utilization", "0.8", "--max-num-seqs", "8")
    assert context(sized) < context(size("Qwen3-8B", fleet("L4")))


def test_a_small_gpu_keeps_memory_for_what_vllm_takes_beside() -> None:
    small = Hardware(flavour="cuda", gpus=(Gpu(name="NVIDIA A2000", memory_gib=8.0, capability=(8, 6)),))
    assert value(size("Qwen2.5-7B-Instruct-AWQ", small), "--gpu-memory-utilization") == "0.87"
    assert "--gpu-memory-utilization" not in size("Qwen3-8B", fleet("L4")).args


# Old GPUs, formats, architectures


def test_a_gpu_without_bfloat16_computes_in_half() -> None:
    sized = size("Qwen3-8B", fleet("2xT4"))
    assert value(sized, "--dtype") == "half"
    assert "--dtype" not in size("Qwen3-8B", fleet("L4")).args
    assert "--dtype" not in size("Qwen2.5-7B-Instruct-AWQ", fleet("T4")).args, "it is published in float16"


def test_a_processor_without_bfloat16_computes_in_float32_where_memory_is_plenty() -> None:
    old = replace(cpu(256), bfloat16=False)
    sized = size("Qwen3-8B", old)
    assert value(sized, "--dtype") == "float32"
    assert row(sized, "Computes in") == "float32: this processor has no bfloat16"
    assert "32.8 GB as computed here" in sized.sentence
    assert "--dtype" not in size("Qwen3-8B", cpu(256)).args
    assert "--dtype" not in size("Qwen3-8B", replace(old, ram_gib=64)).args, "twice the memory is too much for it"
    assert "--dtype" not in size("Qwen2.5-7B-Instruct-AWQ", old).args, "compressed weights stay as they are"
    assert size("Qwen3-8B", old, vllm_args="--dtype bfloat16").args.count("--dtype") == 1


def test_weights_that_the_gpu_must_unpack_are_no_faster() -> None:
    assert "no time" in row(size("Qwen3.8-27B-FP8", fleet("A100-80")), "Speed")
    assert "Speed" not in dict(size("Qwen3.8-27B-FP8", fleet("L40S")).rows)


def test_models_that_half_breaks_take_twice_the_memory_there() -> None:
    sized = size("gemma-3-27b-it", fleet("16xT4"), vllm_args="--language-model-only")
    assert value(sized, "--dtype") == "float32"
    assert "110 GB as computed here" in sized.sentence


@pytest.mark.parametrize(
    ("config", "capability", "words"),
    [
        ({"quant_method": "mxfp4"}, (7, 5), ("mxfp4", "8.0", "7.5")),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, (9, 0), ("bitsandbytes", "does not know")),
        ({"quant_method": "exl2", "bits": 4}, (9, 0), ("exl2", "does not know")),
        ({"bits": 4, "group_size": 64}, (9, 0), ("another program", "does not know")),
    ],
)
def test_formats_that_cannot_be_served_are_refused(
    config: dict[str, object], capability: tuple[int, int], words: tuple[str, ...]
) -> None:
    told = facts("Qwen3-8B")
    hardware = Hardware(flavour="cuda", gpus=(Gpu(name="GPU", memory_gib=80, capability=capability),))
    with pytest.raises(UnobtainableError) as refusal:
        sizing.size(
            planned("acme/model", hardware),
            told["config"] | {"quantization_config": config},
            {"w": 5 * 10**9},
            MANIFEST,
            TABLES,
        )
    assert all(word in str(refusal.value) for word in words)
    assert "sudo aisandbox configure --model " in refusal.value.fix


@pytest.mark.parametrize(
    ("extra", "method"),
    [
        ({"quantization_config": {"quant_method": "compressed_tensors"}}, "compressed-tensors"),
        (
            {"quantization_config": {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}},
            "modelopt_fp4",
        ),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
    ],
)
def test_a_format_is_found_wherever_it_stands(extra: dict[str, Any], method: str) -> None:
    config = facts("Qwen3-8B")["config"]
    extra = {key: config | inner if key == "text_config" else inner for key, inner in extra.items()}
    sized = sizing.size(planned("acme/model", fleet("H100")), config | extra, {"w": 5 * 10**9}, MANIFEST, TABLES)
    assert f"({method})" in sized.sentence


def test_modelopts_own_file_tells_the_format_too() -> None:
    quant = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    config = facts("Qwen3-8B")["config"]
    sized = sizing.size(planned("acme/m", fleet("H100")), config, {"w": 9 * 10**9}, MANIFEST, TABLES, quant)
    assert "(modelopt)" in sized.sentence


KNOWN = TABLES.model_copy(update={"architectures": frozenset({"LlamaForCausalLM", "DeepseekV3ForCausalLM"})})


def test_an_unknown_architecture_is_refused() -> None:
    assert size("Llama-3.1-8B-Instruct", fleet("L4"), KNOWN)
    with pytest.raises(UnobtainableError, match="does not know its architecture, Qwen3ForCausalLM"):
        size("Qwen3-8B", fleet("L4"), KNOWN)
    assert size("Qwen3-8B", fleet("L4"), Tables()), "without a list there is no check"


def test_code_of_the_models_own_is_run_only_when_the_user_says_so() -> None:
    assert "--trust-remote-code" not in size("DeepSeek-V3", fleet("8xH200"), KNOWN).args, "vLLM has its own"
    with pytest.raises(UnobtainableError, match="never run unless you say so") as refusal:
        size("DeepSeek-V2-Lite-Chat", fleet("H100"), KNOWN)
    assert "--set vllm_args=--trust-remote-code" in refusal.value.fix
    sized = size("DeepSeek-V2-Lite-Chat", fleet("H100"), KNOWN, vllm_args="--trust-remote-code")
    assert "--trust-remote-code" in sized.args


@pytest.mark.parametrize("content", [None, "", "[1]", '{"formats": {"fp8": "x"}}'])
def test_the_tables_are_read_where_the_bake_puts_them(tmp_path: Path, content: str | None) -> None:
    places = make(tmp_path)
    file = places.opt / "cache" / "vllm" / "tables.json"
    file.parent.mkdir(parents=True)
    if content is not None:
        file.write_text(content)
    assert tables.read(places) == Tables(), "vLLM then says by itself what it does not know"
    file.write_text((DATA / "vllm-tables.json").read_text().replace("{", '{"of another release": 1, ', 1))
    assert tables.read(places) == TABLES
    assert TABLES.formats and TABLES.formats["mxfp4"] == (8, 0)


def test_what_a_configuration_leaves_out_is_filled_in_as_vllm_does() -> None:
    config = {"model_type": "gemma3_text", "num_hidden_layers": 12, "num_attention_heads": 4, "hidden_size": 1024}
    found = read(config | {"sliding_window": 512}, {}, TABLES)
    assert (found.max_context, found.shape.vocabulary, found.float16) == (131072, 262208, False)
    assert [(cache.layers, cache.window) for cache in found.caches or ()] == [(2, None), (10, 512)]
    unknown = read(config | {"sliding_window": 512}, {}, Tables())
    assert (unknown.max_context, unknown.shape.vocabulary, unknown.float16) == (None, 0, True)


def test_a_slice_of_a_gpu_computes_no_more_at_once_than_its_own_memory_holds() -> None:
    slice_ = Gpu(name="NVIDIA H100 80GB HBM3 MIG 2g.20gb", memory_gib=19.6, capability=(9, 0), uuid="MIG-1")
    hardware = Hardware(flavour="cuda", ram_gib=64, cpus=8, gpus=(slice_,))
    sized = size("Llama-3.1-8B-Instruct", hardware)
    assert (value(sized, "--max-num-seqs"), value(sized, "--max-num-batched-tokens")) == ("64", "2048")
    whole = size("Llama-3.1-8B-Instruct", fleet("H100"))
    assert not {"--max-num-seqs", "--max-num-batched-tokens"} & set(whole.args), "vLLM knows it by itself"
    own = "--max-num-batched-tokens 4096 --max-num-seqs 8"
    assert size("Llama-3.1-8B-Instruct", hardware, vllm_args=own).args.count("--max-num-seqs") == 1


def test_every_listed_parser_is_one_of_vllms() -> None:
    listed = [*MANIFEST.parsers, *filter(None, (MANIFEST.parser(model.id) for model in MANIFEST.models))]
    assert [parser for parser in listed if TABLES.known(parser) not in (parser, None)] == []
    assert not [parser for parser in MANIFEST.parsers if TABLES.known(parser) is None]


def test_a_parser_that_vllm_does_not_know_is_not_asked_for() -> None:
    less = TABLES.model_copy(update={"tool_parsers": frozenset({"openai"})})
    sized = size("Qwen3.8-27B-FP8", fleet("H100"), less)
    assert "--tool-call-parser" not in sized.args and value(sized, "--reasoning-parser") == "qwen3"
    assert Tables().known(None) is None


def test_parsers_follow_name_and_type() -> None:
    assert value(size("Qwen3-8B", fleet("L4")), "--tool-call-parser") == "hermes"
    assert value(size("Qwen3.8-27B-FP8", fleet("H100")), "--reasoning-parser") == "qwen3"
    assert "--tool-call-parser" not in size("gemma-3-27b-it", fleet("H100")).args
    told = facts("Qwen3.8-27B")
    tuned = sizing.size(planned("acme/tuned", fleet("H100")), told["config"], {"w": 5 * 10**10}, MANIFEST, TABLES)
    assert value(tuned, "--tool-call-parser") == "qwen3_coder"


# Without a GPU


def test_on_a_cpu_the_machines_memory_decides() -> None:
    sized = size("Qwen2.5-7B-Instruct-AWQ", cpu(16))
    assert "fits the memory of this instance (17.2 GB)" in sized.sentence
    assert 0 < int(value(sized, "--kv-cache-memory-bytes") or 0) <= 4 * GIB
    assert not {"--tensor-parallel-size", "--gpu-memory-utilization", "--dtype"} & set(sized.args)
    with pytest.raises(UnobtainableError, match=r"16\.4 GB.*memory of this instance \(17\.2 GB\)") as refusal:
        size("Qwen3-8B", cpu(16))
    assert f"--model {MANIFEST.embedded_model.id}" in refusal.value.fix
    assert "quantization=fp8" not in refusal.value.fix
