"""Why a model is not served: messages as vLLM 0.32 writes them, and what people are told."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from aisandbox.instance.deployment import Serving
from aisandbox.instance.serve import engine_causes, fallbacks
from aisandbox.instance.serve.engine_causes import explain
from tests.support.deployments import serving

CORE = "(EngineCore pid=5317) ERROR 11-22 14:13:47 [core.py:1510] "
CONSEQUENCE = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
PYDANTIC = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig"
INPUT = "[type=value_error, input_value=ArgsKwargs((), {'model': ...nderer_num_workers': 1}), input_type=ArgsKwargs]"
FREE = (
    "ValueError: Free memory on device cuda:0 (15.20/23.64 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 21.28 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
CUDA_OUT = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity "
    "of 23.64 GiB of "
    "which 1.05 GiB is free. Including non-PyTorch memory, this process has 22.58 GiB memory in use."
)
SAMPLER = (
    "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try lowering "
    "`max_num_seqs` or `gpu_memory_utilization` when initializing the engine."
)
NO_BLOCKS = (
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing "
    "the engine (this flag also controls CPU memory reservation on the CPU backend, despite its name)."
)
MAX_SEQ = (
    "ValueError: To serve at least one request with the model's max seq len (8192), (0.02 GiB KV cache "
    "is needed, which "
    "is larger than the available KV cache memory (0.0 GiB). {}Try increasing `gpu_memory_utilization` (which also "
    "controls CPU memory on the CPU backend) or decreasing `max_model_len` when initializing the engine."
)
ESTIMATED = "Based on the available memory, the estimated maximum model length is 1792. "
TOO_OLD = (
    "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver by "
    "downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)


def candidate(*args: str, model: str = "/hub/models--example--m/snapshots/0") -> Serving:
    return serving(model, *args, names=("mine",))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            "  Value error, Model architectures ['NopeForCausalLM'] are not supported for now. Supported "
            "architectures: "
            "dict_keys(['AfmoeForCausalLM', 'ApertusForCausalLM']) " + INPUT,
            "this vLLM does not know its architecture, NopeForCausalLM",
        ),
        (
            "  Value error, Model architecture Phi3SmallForCausalLM was supported in vLLM until v0.9.2, and is not "
            "supported anymore. Please use an older version of vLLM if you want to use this model architecture. "
            + INPUT,
            "its architecture, Phi3SmallForCausalLM, was supported by vLLM until 0.9.2 and is not any more",
        ),
        (
            "  Value error, The checkpoint you are trying to load has model type `nope` but Transformers does not "
            "recognize this architecture. This could be because of an issue with the checkpoint, or because your "
            "version",
            "this vLLM does not know its architecture, nope",
        ),
        (
            "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete "
            "metadata, file "
            "not fully covered",
            "its weights are corrupt: Error while deserializing header: incomplete metadata, file not fully covered",
        ),
        (
            "FileNotFoundError: Weight files referenced in index but missing: "
            "{'/tmp/models/shard/model-00002-of-00002.safetensors'}",
            "its weights are corrupt: model-00002-of-00002.safetensors is missing",
        ),
        (
            "ValueError: Following weights were not initialized from checkpoint: "
            "{'model.layers.2.input_layernorm.weight', 'model.layers.2.post_attention_layernorm.weight'}",
            "its weights are corrupt: model.layers.2.input_layernorm.weight is missing",
        ),
        (
            "RuntimeError: The size of tensor a (512) must match the size of tensor b (256) at non-singleton "
            "dimension 1",
            "its weights are corrupt or of another model than its config.json: "
            "The size of tensor a (512) must match the size of tensor b (256)",
        ),
        (
            "RuntimeError: Cannot find any model weights with `/tmp/models/noweights`",
            "it has no weights that vLLM can read",
        ),
        (
            "ValueError: Couldn't instantiate the backend tokenizer from one of: \n(1) a `tokenizers` library",
            "its tokenizer is missing or cannot be read",
        ),
        (
            "OSError: It looks like the config file at '/tmp/models/bad/config.json' is not a valid JSON file.",
            "its config.json is damaged",
        ),
        (
            "  Value error, Invalid repository ID or local directory specified: '/tmp/models/empty'.",
            "its folder does not hold a model",
        ),
        (
            "ValueError: The quantization method awq is not supported for the current GPU. Minimum capability: 75. "
            "Current capability: DeviceCapability(major=7, minor=0).",
            "its quantization, awq, needs a GPU of compute capability 75 at least; this one has "
            "DeviceCapability(major=7, minor=0)",
        ),
        (
            "RuntimeError: Quantization scheme is not supported for the current GPU. Min capability: 80. "
            "Current capability: 75.",
            "its quantization needs a GPU of compute capability 80; this one has 75",
        ),
        (
            "  Value error, Unknown quantization method: nope. Must be one of ['awq', 'auto_awq', 'fp8'].",
            "this vLLM does not know its quantization, nope",
        ),
        (
            "  Value error, Quantization method specified in the model config (awq) does not match the quantization "
            "method specified in the `quantization` argument (fp8).",
            "it is quantized with awq, and quantization=fp8 was asked for",
        ),
        (
            "  Value error, Total number of attention heads (4) must be divisible by tensor parallel size (3). "
            + INPUT,
            "its 4 attention heads cannot be divided among 3 GPUs",
        ),
        (
            "  Value error, World size (4) is larger than the number of available GPUs (1) in this node. If this is",
            "4 GPUs were asked for and 1 are there",
        ),
        (
            "api_server.py: error: unrecognized arguments: --nonsense",
            "vLLM refuses its arguments: unrecognized arguments: --nonsense",
        ),
        (
            "api_server.py: error: argument --max-model-len: invalid human_readable_int_or_auto value: 'abc'",
            "vLLM refuses its arguments: --max-model-len: invalid human_readable_int_or_auto value: 'abc'",
        ),
        (
            "RuntimeError: Failed to load the model config. If the model is a custom model not yet available in the "
            "HuggingFace transformers library, consider setting `trust_remote_code=True` in LLM or using the "
            "`--trust-remote-code` flag in the CLI.",
            "it brings program code of its own, which is not run unless you allow it",
        ),
    ],
)
def test_what_is_wrong_with_the_model(error: str, told: str) -> None:
    cause = explain([PYDANTIC, *f"{CORE}{error}".splitlines(), *error.splitlines(), CONSEQUENCE], candidate())
    assert cause.message == told
    assert cause.blame == "model"
    assert "sudo aisandbox " in cause.fix
    assert "{" not in cause.fix


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TOO_OLD, "the NVIDIA driver is too old for this vLLM (it supports CUDA 12020)"),
        (
            "torch.AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
            "another program has a GPU for itself",
        ),
        ("torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered", "a GPU's memory is damaged"),
        ("pynvml.NVMLError_GpuIsLost: GPU is lost", "a GPU has fallen off the bus"),
        ("RuntimeError: CUDA error: GPU has fallen off the bus", "a GPU has fallen off the bus"),
        ("NVRM: Xid (PCI:0000:65:00): 79, pid=812, name=python", "a GPU has fallen off the bus"),
        (
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
            "NumCudaDevices() that might have already set an error? Error 304: OS call failed or operation not "
            "supported on this OS",
            "it may not open the GPUs' device nodes",
        ),
        ("PermissionError: [Errno 13] Permission denied: '/dev/nvidia0'", "it may not open the GPUs' device nodes"),
        ("pynvml.NVMLError_NoPermission: Insufficient Permissions", "it may not open the GPUs' device nodes"),
        (
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display "
            "driver / cuda driver combination",
            "the NVIDIA driver's library and its kernel module are of different versions",
        ),
        (
            "pynvml.NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch.",
            "the NVIDIA driver's library and its kernel module are of different versions",
        ),
        (
            "RuntimeError: CUDA driver version is insufficient for CUDA runtime version",
            "the NVIDIA driver is too old for this vLLM",
        ),
        ("torch.AcceleratorError: CUDA error: no CUDA-capable device is detected", "vLLM finds no NVIDIA GPU"),
        ("RuntimeError: No CUDA GPUs are available", "vLLM finds no NVIDIA GPU"),
        ("RuntimeError: Failed to infer device type, please set the environment variable", "vLLM finds no NVIDIA GPU"),
        ("RuntimeError: CUDA error: system not yet initialized", "fabric manager"),
        (
            "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
            "a GPU of this age",
        ),
        ("OSError: [Errno 98] Address already in use", "its port is in use"),
        (
            "ERROR: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8001): address already in use",
            "its port is in use",
        ),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
    ],
)
def test_what_is_wrong_with_the_machine(error: str, told: str) -> None:
    cause = explain([error, CONSEQUENCE], candidate())
    assert told in cause.message
    assert (cause.blame, cause.retry) == ("machine", ())


@pytest.mark.parametrize(
    ("error", "args", "told", "retry"),
    [
        (
            MAX_SEQ.format(ESTIMATED),
            (),
            "a context of 8192 tokens (max_model_len) needs 0.02 GiB of memory, and 0.0 GiB are left",
            "--max-model-len 1792",
        ),
        (MAX_SEQ.format(""), (), "8192 tokens", "--max-model-len 4096"),
        (
            FREE,
            ("--max-model-len=8192",),
            "only 15.20 of the GPU's 23.64 GiB of memory are free and 21.28 GiB were wanted",
            "--gpu-memory-utilization 0.62 --max-model-len 4096",
        ),
        (FREE.replace("15.20", "2.00"), (), "only 2.00 of", ""),
        (
            NO_BLOCKS,
            ("--max-model-len", "2048"),
            "its weights leave no memory",
            "--gpu-memory-utilization 0.95 --max-num-seqs 64 --max-model-len 1024",
        ),
        (
            CUDA_OUT,
            ("--gpu-memory-utilization", "0.92"),
            "the GPU's memory ran out: 2.00 GiB more were needed, and of 23.64 GiB only 1.05 GiB were free",
            "--gpu-memory-utilization 0.82 --max-num-seqs 64 --max-model-len auto",
        ),
        (SAMPLER, (), "the GPU's memory ran out", "--gpu-memory-utilization 0.80 --max-num-seqs 64"),
        ("vLLM ended with code -9", (), "it was killed, as happens when the machine's memory runs out", ""),
    ],
)
def test_too_little_memory(error: str, args: tuple[str, ...], told: str, retry: str) -> None:
    cause = explain([CORE + error, error, CONSEQUENCE], candidate(*args))
    assert told in cause.message
    assert " ".join(cause.retry).startswith(retry)
    assert bool(cause.retry) == bool(retry)
    assert "sudo aisandbox configure --set max_model_len=" in cause.fix


def test_fewer_conversations_where_the_cache_holds_fewer_states() -> None:
    error = (
        "ValueError: max_num_seqs (256) exceeds available Mamba cache blocks (184). Each decode sequence requires one "
        "Mamba cache block, so CUDA graph capture cannot proceed. Please lower max_num_seqs to at most 184 or increase "
        "gpu_memory_utilization."
    )
    cause = explain([CORE + error, error, CONSEQUENCE], candidate())
    assert (cause.retry, cause.blame) == (("--max-num-seqs", "184"), "memory")
    assert "the states of 184 conversations, and 256 were to be computed at once" in cause.message
    assert cause.fix.endswith("sudo aisandbox configure --set vllm_args='--max-num-seqs 184'")


def test_a_context_beyond_the_models_own_is_cut_to_it() -> None:
    error = (
        "  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len "
        "(max_position_embeddings=8192.0 or model_max_length=None in model's config.json). To allow overriding this"
    )
    cause = explain([PYDANTIC, error], candidate())
    assert cause.message == "max_model_len is 999999, and the model was made for 8192 tokens of context at most"
    assert cause.retry == ("--max-model-len", "8192")
    assert cause.fix == "sudo aisandbox configure --set max_model_len=8192"


def test_half_the_context_is_of_what_was_asked_or_of_the_models_own(tmp_path: Path) -> None:
    assert fallbacks.context(candidate(model=str(tmp_path))) is None
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"max_position_embeddings": 32768}}))
    assert fallbacks.context(candidate(model=str(tmp_path))) == 32768
    assert fallbacks.context(candidate("--max-model-len", "100", model=str(tmp_path))) == 100
    assert fallbacks.context(candidate("--max-model-len", "auto", model=str(tmp_path))) is None
    (tmp_path / "config.json").write_text("[]")
    assert fallbacks.context(candidate(model=str(tmp_path))) is None


def test_what_is_unknown_is_told_as_vllm_tells_it() -> None:
    cause = explain([CORE + "ValueError: a new kind of trouble", CONSEQUENCE], candidate())
    assert (cause.message, cause.blame) == ("ValueError: a new kind of trouble", "unknown")
    assert "aisandbox logs vllm" in cause.fix
    assert explain(["all is well"], candidate()).message == "vLLM ended without a word"
    assert len(explain(["ValueError: " + "x" * 9999], candidate()).message) < 500


def test_warnings_are_no_causes() -> None:
    warning = (
        "WARNING 11-22 14:11:39 [system_utils.py:255] Found ulimit of 20000 and failed to automatically increase with "
        "error current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too many "
        "open files`. Consider increasing with ulimit -n"
    )
    assert explain([warning, "ValueError: it"], candidate()).message == "ValueError: it"


# what the files show


def weights(data: bytes = bytes(8), end: int = 8) -> bytes:
    header = json.dumps({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, end]}, "__metadata__": {}}).encode()
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (weights(), ""),
        (weights(b"1234"), "model.safetensors is cut short"),
        (weights()[:20], "has no valid header"),
        (b"", "has no valid header"),
        (bytes(100), "has no valid header"),
        (b"\xff" * 100, "has no valid header"),
        (struct.pack("<Q", 2) + b"[]", "has no valid header"),
        (struct.pack("<Q", 8) + b'{"t": 1}', "has no valid header"),
    ],
)
def test_damaged_weights_are_found(tmp_path: Path, content: bytes, damage: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    found = engine_causes.damaged_weights(tmp_path)
    assert damage in found
    assert bool(found) == bool(damage)
    # Whatever vLLM says about them.
    cause = explain(["OverflowError: cannot fit 'int' into an index-sized integer"], candidate(model=str(tmp_path)))
    assert ("its weights are corrupt" in cause.message) == bool(damage)


def test_missing_files_are_seen_without_vllm(tmp_path: Path) -> None:
    assert engine_causes.missing_files(candidate(model="organisation/name")) is None
    gone = engine_causes.missing_files(candidate(model=str(tmp_path / "gone")))
    assert gone
    assert "gone is not there" in gone.message
    empty = engine_causes.missing_files(candidate(model=str(tmp_path)))
    assert empty
    assert "no config.json" in empty.message
    (tmp_path / "config.json").touch()
    assert engine_causes.missing_files(candidate(model=str(tmp_path))) is None
