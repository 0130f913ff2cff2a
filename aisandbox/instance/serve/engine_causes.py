"""Why vLLM could not serve a model, told to people: what happened, what mends it, and what the engine can try itself.

The patterns are of messages of vLLM 0.32 and of the libraries below it. Stdlib only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from aisandbox.instance import safetensors
from aisandbox.instance.deployment import Serving
from aisandbox.instance.last_words import last_error
from aisandbox.instance.problem import CONFIGURE
from aisandbox.instance.serve import fallbacks
from aisandbox.instance.serve.fallbacks import CONTEXT, SEQUENCES, Blame, Cause

LONGEST = 400

OTHER_MODEL = "Choose another model: sudo aisandbox configure --model ORGANISATION/NAME (aisandbox models lists some)."
LOGS = "sudo aisandbox logs vllm"


@dataclass(frozen=True)
class Rule:
    """What a message means. Texts are format strings over the groups of the pattern and `name`, the model's name."""

    pattern: str
    message: str
    fix: str = OTHER_MODEL
    blame: Blame = "model"
    retry: Callable[[re.Match[str], Serving], tuple[str, ...]] = lambda _match, _candidate: ()


def explain(lines: Iterable[str], candidate: Serving) -> Cause:
    """The cause that the output of a failed start tells, or that the model's files show."""
    kept = list(lines)
    text = "\n".join(kept)
    for rule in RULES:
        if match := re.search(rule.pattern, text):
            return _apply(rule, match, candidate)
    if damage := damaged_weights(Path(candidate.folder)):
        return Cause(f"its weights are corrupt: {damage}", FETCH_AGAIN.format(name=candidate.model), "model")
    return Cause(_short(last_error(kept) or "vLLM ended without a word"), f"See what vLLM says: {LOGS}. {OTHER_MODEL}")


def missing_files(candidate: Serving) -> Cause | None:
    """What can be seen without vLLM: that the model's folder, or what must be in it, is not there."""
    folder = Path(candidate.folder)
    if not folder.is_absolute():
        return None
    fix = f"Attach the volume again if there was one; then fetch the model again: {CONFIGURE}"
    if not folder.is_dir():
        return Cause(f"its folder {folder} is not there", fix, "model")
    if not any((folder / file).is_file() for file in ("config.json", "params.json")):
        return Cause(f"there is no config.json in {folder}", fix, "model")
    return None


def damaged_weights(folder: Path) -> str:
    """What is wrong with the model's safetensors files by themselves; empty when nothing is."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            if problem := _damage(file):
                return f"{file.name} {problem}"
        except OSError as error:
            return f"{file.name} cannot be read ({error.strerror})"
    return ""


def _damage(file: Path) -> str:
    try:
        wanted = safetensors.expected_size(file)
    except ValueError:
        return "has no valid header"
    size = file.stat().st_size
    return "" if wanted <= size else f"is cut short ({size} of {wanted} bytes)"


def _apply(rule: Rule, match: re.Match[str], candidate: Serving) -> Cause:
    groups = [(group or "").strip() for group in match.groups()]
    retry = rule.retry(match, candidate)
    smaller = retry[retry.index(CONTEXT) + 1] if CONTEXT in retry else ""
    facts = {"name": candidate.model, "smaller": smaller if smaller.isdecimal() else "4096"}
    message = " ".join(rule.message.format(*groups, **facts).split())
    return Cause(_short(message), rule.fix.format(*groups, **facts), rule.blame, retry)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


FETCH_AGAIN = (
    "Fetch it again: sudo aisandbox models remove {name}, then sudo aisandbox configure --model {name}. "
    "If that does not help, its publisher's files are broken. " + OTHER_MODEL
)
SMALLER = (
    "Ask for less context: sudo aisandbox configure --set max_model_len={smaller}; or choose a smaller model: "
    "sudo aisandbox configure --model ORGANISATION/NAME (aisandbox models lists some)."
)
ARGUMENTS = "Correct them or leave them out: sudo aisandbox configure --unset vllm_args."
DRIVER = "Install a newer driver, or deploy a current image. What the driver says: nvidia-smi; aisandbox doctor."
NO_GPU = (
    "See what is wrong: aisandbox doctor; nvidia-smi. If the instance has no GPU, choose a plan with one, or the image "
    "for CPUs. Then: sudo aisandbox configure."
)

RULES = (
    # Memory. The figures are vLLM's.
    Rule(
        r"max seq len \((\d+)\), \(([\d.]+) GiB KV cache is needed, which is larger than the available KV cache memory "
        r"\(([\d.]+) GiB\)\.(?: Based on the available memory, the estimated maximum model length is (\d+))?",
        "a context of {0} tokens (max_model_len) needs {1} GiB of memory, and {2} GiB are left beside the weights",
        SMALLER,
        "memory",
        retry=lambda match, _candidate: fallbacks.fitting_context(int(match[1]), int(match[4] or 0)),
    ),
    Rule(
        r"Free memory on device \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU memory utilization "
        r"\([\d.]+, ([\d.]+) GiB\)",
        "only {0} of the GPU's {1} GiB of memory are free and {2} GiB were wanted: another program uses the GPU",
        "End the other program (nvidia-smi shows it), then: sudo aisandbox configure. " + SMALLER,
        "memory",
        retry=lambda match, candidate: fallbacks.free_memory(candidate, float(match[1]), float(match[2])),
    ),
    Rule(
        r"max_num_seqs \((\d+)\) exceeds available Mamba cache blocks \((\d+)\)",
        "its cache holds the states of {1} conversations, and {0} were to be computed at once (--max-num-seqs)",
        "Compute fewer at once: sudo aisandbox configure --set vllm_args='--max-num-seqs {1}'",
        "memory",
        retry=lambda match, _candidate: (SEQUENCES, match[2]),
    ),
    Rule(
        r"No available memory for the cache blocks",
        "its weights leave no memory for any context (max_model_len)",
        SMALLER,
        "memory",
        retry=lambda _match, candidate: fallbacks.more_memory(candidate),
    ),
    Rule(
        r"(?:CUDA|HIP) out of memory\. Tried to allocate ([\d.]+ \wiB)\. GPU \d+ has a total capacity of "
        r"([\d.]+ \wiB) of which ([\d.]+ \wiB) is free",
        "the GPU's memory ran out: {0} more were needed, and of {1} only {2} were free",
        SMALLER,
        "memory",
        retry=lambda _match, candidate: fallbacks.less_memory(candidate),
    ),
    Rule(
        r"(?:CUDA|HIP) out of memory|OutOfMemoryError",
        "the GPU's memory ran out at start",
        SMALLER,
        "memory",
        retry=lambda _match, candidate: fallbacks.less_memory(candidate),
    ),
    Rule(
        r"Failed core proc\(s\): \{[^}]*-9\}|vLLM ended with code -9|DefaultCPUAllocator: can't allocate"
        r"|Cannot allocate memory",
        "it was killed, as happens when the machine's memory runs out",
        SMALLER,
        "memory",
    ),
    # The machine.
    Rule(
        r"NVIDIA driver on your system is too old \(found version (\d+)\)",
        "the NVIDIA driver is too old for this vLLM (it supports CUDA {0})",
        DRIVER,
        "machine",
    ),
    Rule(
        r"CUDA driver version is insufficient for CUDA runtime version",
        "the NVIDIA driver is too old for this vLLM",
        DRIVER,
        "machine",
    ),
    Rule(
        r"no CUDA-capable device is detected|No CUDA GPUs are available|Found no NVIDIA driver on your system"
        r"|Failed to infer device type|CUDA unknown error",
        "vLLM finds no NVIDIA GPU that it can use",
        NO_GPU,
        "machine",
    ),
    Rule(
        r"CUDA error: system not yet initialized",
        "the GPUs are not ready: their fabric manager does not run",
        "sudo systemctl restart aisandbox-fabric vllm. If that does not help, `aisandbox status` says why.",
        "machine",
    ),
    Rule(
        r"device\(s\) is/are busy or unavailable",
        "another program has a GPU for itself",
        "End it, or let it share: sudo nvidia-smi -c 0. What uses the GPUs: nvidia-smi. Then: " + CONFIGURE,
        "machine",
    ),
    Rule(
        r"uncorrectable ECC error",
        "a GPU's memory is damaged",
        "Restart the machine: sudo reboot. If that does not help, deploy on another one.",
        "machine",
    ),
    Rule(
        r"GPU is lost|GPUs? (?:has|have) fallen off the bus|Xid \([^)]*\): 79\b",
        "a GPU has fallen off the bus",
        "Restart the machine: sudo reboot. If that does not help, deploy on another one. To serve with the other GPUs: "
        "sudo aisandbox configure.",
        "machine",
    ),
    Rule(
        r"Permission denied: '/dev/nvidia|NVMLError_NoPermission|OS call failed or operation not supported on this OS",
        "it may not open the GPUs' device nodes, /dev/nvidia*",
        "sudo chmod a+rw /dev/nvidia[0-9]* /dev/nvidiactl /dev/nvidia-uvm*, then: sudo aisandbox configure.",
        "machine",
    ),
    Rule(
        r"unsupported display driver / cuda driver combination|NVML/RM version mismatch"
        r"|Driver/library version mismatch",
        "the NVIDIA driver's library and its kernel module are of different versions",
        "The driver was updated while it was running: sudo reboot.",
        "machine",
    ),
    Rule(
        r"no kernel image is available for execution on the device",
        "this vLLM has no code for a GPU of this age",
        "Choose an instance with a newer GPU.",
        "machine",
    ),
    Rule(
        r"(?:\[Errno 98\]|error while attempting to bind).*[Aa]ddress already in use",
        "its port is in use by another program",
        "See which: sudo ss -ltnp. Stop that program; the engine tries again by itself.",
        "machine",
    ),
    Rule(
        r"\[Errno 28\]|No space left on device",
        "the disk is full",
        "Make room (df -h; aisandbox models), then: sudo aisandbox configure.",
        "machine",
    ),
    # The model.
    Rule(
        r"Model architectures \['?([^\]]*?)'?\] are not supported for now",
        "this vLLM does not know its architecture, {0}",
    ),
    Rule(
        r"Model architecture (\w+) was supported in vLLM until v([\w.]*\w)",
        "its architecture, {0}, was supported by vLLM until {1} and is not any more",
    ),
    Rule(
        r"Model architecture (\w+) is not supported in-tree anymore",
        "its architecture, {0}, needs a plug-in that this vLLM does not have",
    ),
    Rule(
        r"has model type `([^`]+)` but Transformers does not recognize this architecture",
        "this vLLM does not know its architecture, {0}",
    ),
    Rule(
        r"requires you to execute the|contains custom code which must be executed|--trust-remote-code` flag",
        "it brings program code of its own, which is not run unless you allow it",
        "If you trust its publisher: sudo aisandbox configure --set vllm_args=--trust-remote-code. " + OTHER_MODEL,
    ),
    Rule(
        r"SafetensorError: ([^\n]+)",
        "its weights are corrupt: {0}",
        FETCH_AGAIN,
    ),
    Rule(
        r"Weight files referenced in index but missing: \{'(?:[^']*/)?([^'/]+)'",
        "its weights are corrupt: {0} is missing",
        FETCH_AGAIN,
    ),
    Rule(
        r"Following weights were not initialized from checkpoint: \{'([^']+)'",
        "its weights are corrupt: {0} is missing",
        FETCH_AGAIN,
    ),
    Rule(
        r"(The size of tensor a \(\d+\) must match the size of tensor b \(\d+\)|Attempted to load weight \([^\n]+"
        r"|size mismatch for [^\n]+|AssertionError: Tried to load weights of size [^\n]+)",
        "its weights are corrupt or of another model than its config.json: {0}",
        FETCH_AGAIN,
    ),
    Rule(r"Cannot find any model weights with", "it has no weights that vLLM can read"),
    Rule(
        r"The quantization method (\S+) is not supported for the current GPU\. Minimum capability: (\d+)\. "
        r"Current capability: ([^\n]*\d\S*?)\.?(?:\s|$)",
        "its quantization, {0}, needs a GPU of compute capability {1} at least; this one has {2}",
    ),
    Rule(
        r"Quantization scheme is not supported for the current GPU\. (?:Min|Required) capability: (\d+)\. "
        r"Current capability: (\d+)",
        "its quantization needs a GPU of compute capability {0}; this one has {1}",
    ),
    Rule(
        r"Bfloat16 is only supported on GPUs with compute capability",
        "this GPU cannot compute with its data type, bfloat16",
        "sudo aisandbox configure --set vllm_args='--dtype half'. " + OTHER_MODEL,
        retry=lambda _match, _candidate: ("--dtype", "half"),
    ),
    Rule(r"Unknown quantization method: ([^\s.]+)", "this vLLM does not know its quantization, {0}"),
    Rule(
        r"\(([^()]+)\) does not match the quantization method specified in the `quantization` argument \(([^()]+)\)",
        "it is quantized with {0}, and quantization={1} was asked for",
        "sudo aisandbox configure --unset quantization",
    ),
    Rule(
        r"Couldn't instantiate the backend tokenizer|Can't load tokenizer for|No tokenizer file found",
        "its tokenizer is missing or cannot be read",
        FETCH_AGAIN,
    ),
    Rule(r"the config file at '[^']*/([^'/]+)' is not a valid JSON file", "its {0} is damaged", FETCH_AGAIN),
    Rule(
        r"Invalid repository ID or local directory specified|Repo id must be in the form",
        "its folder does not hold a model",
        FETCH_AGAIN,
    ),
    # What was asked for.
    Rule(
        r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len \(\w+=(\d+)",
        "max_model_len is {0}, and the model was made for {1} tokens of context at most",
        "sudo aisandbox configure --set max_model_len={1}",
        retry=lambda match, _candidate: (CONTEXT, match[2]),
    ),
    Rule(
        r"Total number of attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)",
        "its {0} attention heads cannot be divided among {1} GPUs",
        "Set another --tensor-parallel-size: sudo aisandbox configure --set vllm_args='--tensor-parallel-size N'.",
    ),
    Rule(
        r"World size \((\d+)\) is larger than the number of available GPUs \((\d+)\)",
        "{0} GPUs were asked for and {1} are there",
        "Set another --tensor-parallel-size: sudo aisandbox configure --set vllm_args='--tensor-parallel-size N'.",
    ),
    Rule(r"error: (unrecognized arguments: [^\n]+)", "vLLM refuses its arguments: {0}", ARGUMENTS),
    Rule(r"error: argument ([^\n]+)", "vLLM refuses its arguments: {0}", ARGUMENTS),
)
"""The first that matches counts."""
