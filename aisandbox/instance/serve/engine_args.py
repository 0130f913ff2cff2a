"""vLLM's command line and environment for one attempt. Stdlib only."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

from aisandbox.instance.memory import cpu_kv_cache_bytes
from aisandbox.instance.serve.fallbacks import Attempt, Mode

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_CACHE_ROOT": "/var/cache/aisandbox/vllm",
}
"""Defaults in both modes: nothing phones home, nothing is downloaded."""


NO_DOMAIN = "none.invalid"
"""The only domain that pictures may be fetched from: requests bring theirs as data URLs."""


def is_cpu_build() -> bool:
    """Whether this is vLLM's CPU build, by the rule that vLLM itself uses; touches no GPU."""
    try:
        return "cpu" in metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return True


def environment(mode: Mode, cpu: bool) -> dict[str, str]:
    """Defaults for vLLM's environment; what the unit sets goes before them."""
    if mode == "plain" or not cpu:
        return dict(ENVIRONMENT)
    return ENVIRONMENT | {
        # The first request for logprobs would compile for half a minute, while everybody waits.
        "TORCHDYNAMO_DISABLE": "1",
        # Lets the CPU platform keep the uniprocess executor (it would add a third process).
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # The core that vLLM's own CPU binding leaves to the API server; that binding needs the third process.
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
    }


def build_argv(attempt: Attempt, port: int, cpu: bool) -> list[str]:
    """The arguments of vLLM's API server. Those of the candidate win over our defaults."""
    candidate, args = attempt.candidate, attempt.args
    argv = ["--model", candidate.folder, "--host", "127.0.0.1", "--port", str(port)]
    if candidate.served_names:
        argv += ["--served-model-name", *candidate.served_names]
    argv += ["--disable-uvicorn-access-log", "--enable-prompt-tokens-details"]
    for middleware in ("request_limits.RequestLimits", "request_models.OneModel"):
        argv += ["--middleware", f"aisandbox.instance.serve.{middleware}"]
    argv += ["--allowed-media-domains", NO_DOMAIN]
    if cpu:
        if not _has(args, "--enforce-eager", "--no-enforce-eager"):
            argv += ["--enforce-eager"]  # compiling takes minutes here and the models are small
        if not _has(args, "--kv-cache-memory-bytes") and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            argv += ["--kv-cache-memory-bytes", str(cpu_kv_cache_bytes(weight_bytes(Path(candidate.folder))))]
        if attempt.mode == "fast" and not _has(args, "--distributed-executor-backend"):
            argv += ["--distributed-executor-backend", "uni"]
    return [*argv, *args]


def _has(args: tuple[str, ...], *flags: str) -> bool:
    return any(arg.partition("=")[0] in flags for arg in args)


def weight_bytes(model: Path) -> int:
    """Bytes of the model's weights."""
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))
