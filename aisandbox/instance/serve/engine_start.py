"""The fast start of vLLM: everything is imported beforehand, and the engine core is forked, not started anew.

Only this module imports vLLM, and only inside functions: the rest of the engine works without it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

from aisandbox.instance.last_words import describe
from aisandbox.instance.serve.engine_watch import die_with_parent, is_healthy

WATCH_SECONDS = 0.5
LAST_WORDS_SECONDS = 1

MODULES = (
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.distributed.elastic_ep.elastic_execute",
    "vllm.v1.structured_output.backend_guidance",
    # What the API server imports only while it builds its routes.
    "vllm.renderers.hf",
    "vllm.entrypoints.serve.instrumentator.metrics",
    "vllm.entrypoints.serve.instrumentator.offline_docs",
    "vllm.entrypoints.openai.models.api_router",
    "vllm.entrypoints.openai.chat_completion.api_router",
    "vllm.entrypoints.openai.completion.api_router",
    "vllm.entrypoints.openai.responses.api_router",
    "vllm.entrypoints.anthropic.api_router",
    "vllm.entrypoints.cohere.api_router",
    "vllm.entrypoints.generate.generative_scoring.api_router",
    "vllm.entrypoints.generate.structured_decisions.api_router",
    "vllm.entrypoints.scale_out.derender.api_router",
    "vllm.entrypoints.scale_out.render.api_router",
    "vllm.entrypoints.scale_out.token_in_token_out.api_router",
    "vllm.entrypoints.serve.elastic_ep.api_router",
    "vllm.entrypoints.serve.lora.api_router",
    "vllm.entrypoints.serve.profile.api_router",
    "vllm.entrypoints.serve.tokenize.api_router",
    "vllm.entrypoints.serve.utils.fingerprint",
    "model_hosting_container_standards.sagemaker",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "uvicorn.lifespan.on",
    "uvloop",
    "setproctitle",
)
"""What a serving vLLM has loaded. A module missing here, or gone in a later vLLM, costs time only."""

WORKERS = {
    True: ("vllm.v1.worker.cpu_worker", "vllm.v1.attention.backends.cpu_attn", "vllm.v1.pool.flash_maxsim"),
    False: ("vllm.v1.worker.gpu_worker", "vllm.v1.worker.gpu_model_runner"),
}
"""The worker's modules, by "CPU build"."""


class EngineDied(Exception):
    """The engine core ended on its own after it had served."""


def import_vllm(cpu: bool) -> None:
    """Import all that serving needs."""
    gc.disable()  # a fourth of the time would go into collections that find nothing
    for name in (*MODULES, *WORKERS[cpu]):
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"engine: not imported beforehand: {name}: {error}", flush=True)


def freeze_heap() -> None:
    """Exempt what is loaded from garbage collection: faster collections, and the fork shares its memory."""
    gc.freeze()
    gc.enable()


def prepare_fork() -> None:
    """Run in each forked process: end with the parent, and keep signals out of the parent's event loop."""
    die_with_parent()
    signal.set_wakeup_fd(-1)


class ErrorLog:
    """Keeps what this process and those forked from it write to standard error: causes are told nowhere else."""

    LONGEST = 1 << 20

    def __init__(self) -> None:
        self.file = os.memfd_create("engine-errors")

    def attach(self) -> None:
        """Begin."""
        sys.stderr = cast(TextIO, _Kept(sys.stderr, self))

    @property
    def full(self) -> bool:
        return os.fstat(self.file).st_size > self.LONGEST

    @property
    def lines(self) -> list[str]:
        return os.pread(self.file, 2 * self.LONGEST, 0).decode(errors="replace").splitlines()


class _Kept:
    """A text stream that also goes to an error log."""

    def __init__(self, stream: TextIO, log: ErrorLog) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        if not self._log.full:
            os.write(self._log.file, text.encode(errors="replace"))
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def serve(argv: list[str], timeout: float, on_healthy: Callable[[], None], errors: ErrorLog) -> None:
    """Serve until SIGTERM. Raises whatever went wrong, `EngineDied` when that was after `on_healthy`.

    Until the server is up, SIGTERM keeps its default action: it ends this process, and so the engine core.
    """
    import uvloop
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.utils.system_utils import decorate_logs

    errors.attach()
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(argv)
    configure_logging_from_args(args)
    validate_parsed_serve_args(args)
    decorate_logs("APIServer", skip_if_decorated=True)
    os.register_at_fork(after_in_child=prepare_fork)

    # A timer, not a thread: no thread may run while the engine core is forked.
    def out_of_time(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not healthy after {timeout:.0f} s")

    def healthy() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        on_healthy()

    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        uvloop.run(_serve(args, healthy))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        stop_children()


async def _serve(args: Any, on_healthy: Callable[[], None]) -> None:
    """vLLM's own `run_server`, but the engine core is forked and its death is noticed at once."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.api_server.entry import build_and_serve, setup_server
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    listen_address, sock = setup_server(args, reuse_port=False)
    context = UsageContext.OPENAI_API_SERVER
    engine_args = AsyncEngineArgs.from_cli_args(args)
    config = engine_args.create_engine_config(usage_context=context)
    # Not earlier: the CPU platform has just asked for "spawn". With CUDA initialised, vLLM spawns anyway.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    engine = AsyncLLM.from_vllm_config(
        vllm_config=config,
        usage_context=context,
        enable_log_requests=engine_args.enable_log_requests,
        disable_log_stats=engine_args.disable_log_stats,
    )
    watch = asyncio.create_task(_watch(engine, args.port, on_healthy))
    try:
        await engine.reset_mm_cache()
        shutdown = await build_and_serve(engine, listen_address, sock, args)
    finally:
        watch.cancel()
        engine.shutdown(timeout=config.shutdown_timeout)
    await shutdown
    sock.close()
    if watch.done() and not watch.cancelled():
        watch.result()


async def _watch(engine: Any, port: int, on_healthy: Callable[[], None]) -> None:
    """Report health once, then end the server as soon as its engine core is gone."""
    while not await asyncio.to_thread(is_healthy, port):
        await asyncio.sleep(0.02)
    on_healthy()
    while not engine.errored:
        await asyncio.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    raise EngineDied("the engine core ended unexpectedly")


def stop_children() -> None:
    """Leave no engine core behind, whatever state the start was in. One that ends by itself may say why."""
    for child in multiprocessing.active_children():
        child.join(LAST_WORDS_SECONDS)
        child.kill()
        child.join(5)


def seed_cache(baked: Path, root: Path) -> None:
    """Copy the baked cache to its writable place, unless there is one."""
    source, target = baked / "modelinfos", root / "modelinfos"
    if target.exists() or not source.is_dir():
        return
    partial = target.with_suffix(".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, copy_function=shutil.copyfile)
        partial.replace(target)
    except (OSError, shutil.Error) as error:
        print(f"engine: baked cache not copied: {error}", flush=True)


def bake(root: Path) -> int:
    """Fill `root` with what vLLM otherwise takes 10 s to find out about an architecture at first start."""
    os.environ["VLLM_CACHE_ROOT"] = str(root)
    gc.disable()
    started = time.monotonic()
    from vllm.model_executor.models import registry

    # vLLM inspects in a subprocess to keep CUDA out of a server; here that would only cost time.
    registry._run_in_subprocess = lambda inspect: inspect()
    failed = []
    models = registry.ModelRegistry.models
    for name, model in sorted(models.items()):
        try:
            model.inspect_model_cls()
        except Exception as error:
            failed.append(name)
            print(f"engine: not baked: {name}: {describe(error)}", flush=True)
    (root / "architectures.json").write_text(json.dumps(sorted({*models, *_of_transformers()}), indent=1) + "\n")
    try:
        (root / "formats.json").write_text(json.dumps(_formats(), indent=1) + "\n")
    except Exception as error:
        print(f"engine: formats not baked: {describe(error)}", flush=True)
    for file in root.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # vLLM writes them for its own user only
    done = len(models) - len(failed)
    seconds = time.monotonic() - started
    print(f"engine: baked {done} of {len(models)} architectures in {seconds:.0f} s", flush=True)
    return 1 if "LlamaForCausalLM" in failed else 0


def _of_transformers() -> set[str]:
    """Architectures that vLLM serves through the Transformers library when it has no implementation of its own."""
    from transformers.models.auto import modeling_auto as auto

    tables = (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    names = (name for table in tables for name in table.values())
    return {one for name in names for one in ((name,) if isinstance(name, str) else name)}


def _formats() -> dict[str, int]:
    """Formats of compressed weights that vLLM knows, with the oldest compute capability for each: 75 for 7.5."""
    from vllm.model_executor.layers import quantization

    methods = sorted(quantization.QUANTIZATION_METHODS)
    return {method: quantization.get_quantization_config(method).get_min_capability() for method in methods}
