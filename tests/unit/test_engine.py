"""The engine's decisions by themselves, and its process control with a stand-in for vLLM's API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from aisandbox.instance.deployment import LOCATED, DocumentError
from aisandbox.instance.fit.tables import Defaults, Tables
from aisandbox.instance.last_words import describe, last_error
from aisandbox.instance.memory import MIB, cpu_kv_cache_bytes
from aisandbox.instance.serve import engine_args, engine_files, engine_start
from aisandbox.instance.serve.engine_files import Status
from aisandbox.instance.serve.fallbacks import Attempt, Mode, Record
from tests.support import engines
from tests.support.deployments import located, serving
from tests.support.engines import Engine

MODES: tuple[Mode, ...] = ("fast", "plain")
GOOD = serving("good", "--max-model-len", "512", names=("name", "alias"))


def attempt(*args: str, model: str = "organisation/name", mode: Mode = "fast") -> Attempt:
    return Attempt(serving(model, *args, names=("name", "alias")), mode, Record())


# the located deployment


def test_a_document_of_the_engine_names_what_to_serve(tmp_path: Path) -> None:
    path = tmp_path / LOCATED
    assert engine_files.read(path) is None
    located(GOOD).save(path)
    assert engine_files.read(path) == located(GOOD)
    replace(located(GOOD), candidates=()).save(path)
    with pytest.raises(DocumentError, match="`candidates`"):
        engine_files.read(path)


def test_waiting_outlasts_absence_and_nonsense(tmp_path: Path) -> None:
    path = tmp_path / LOCATED
    complaints: list[str] = []

    def appear() -> None:
        time.sleep(0.15)
        (tmp_path / "new").write_text("nonsense")
        (tmp_path / "new").replace(path)
        time.sleep(0.15)
        located(GOOD).save(path)

    writer = threading.Thread(target=appear)
    writer.start()
    assert engine_files.wait(path, lambda error: complaints.append(str(error))).candidates == (GOOD,)
    writer.join()
    assert len(complaints) == 1  # not one for every look


# status


def test_status_tells_phase_state_and_times(tmp_path: Path) -> None:
    path = tmp_path / "status" / "engine.json"
    status = Status(path)
    status.publish("wait", "running", "Waiting")
    first = json.loads(path.read_text())
    assert "config" not in first
    status.config = "abc"
    status.publish("wait", "running", "Still waiting")
    second = json.loads(path.read_text())
    status.publish("serve", "done", "Serving")
    third = json.loads(path.read_text())

    assert first.keys() == {
        *("service", "phase", "state", "message", "fix", "began", "since", "updated", "mode", "timeline")
    }
    assert second["since"] == first["since"] <= second["updated"] <= third["since"]
    assert (third["phase"], third["state"], third["config"]) == ("serve", "done", "abc")
    assert list(third["timeline"]) == ["serve", "wait"]
    assert 0 <= third["timeline"]["wait"] <= third["timeline"]["serve"]
    assert [entry.name for entry in path.parent.iterdir()] == ["engine.json"]


def test_an_unwritable_status_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    Status(tmp_path / "file" / "engine.json").publish("wait", "running", "Waiting")
    assert "cannot write" in capsys.readouterr().out


def test_a_later_program_of_the_process_keeps_the_times(tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    Status(path).publish("import", "running", "Importing")
    later = Status(path)
    later.carry_on()
    later.publish("load", "running", "Loading", serving=None)
    status = json.loads(path.read_text())
    assert list(status["timeline"]) == ["import", "load"]
    assert status["serving"] is None


# arguments and environment


def test_arguments_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    fast = engine_args.build_argv(attempt("--dtype", "float32"), 8001, cpu=True)
    plain = engine_args.build_argv(attempt("--dtype", "float32", mode="plain"), 8001, cpu=True)
    assert " ".join(fast).startswith("--model organisation/name --host 127.0.0.1 --port 8001")
    assert "--served-model-name name alias --disable-uvicorn-access-log" in " ".join(fast)
    assert fast[-2:] == ["--dtype", "float32"]
    assert "--middleware aisandbox.instance.serve.request_limits.RequestLimits" in " ".join(fast)
    assert "--middleware aisandbox.instance.serve.request_models.OneModel" in " ".join(fast)
    assert "--enable-prompt-tokens-details" in fast
    assert "--allowed-media-domains none.invalid" in " ".join(plain)
    assert "--enforce-eager" in fast
    assert "--enforce-eager" in plain
    assert set(fast) - set(plain) == {"--distributed-executor-backend", "uni"}


def test_arguments_on_gpu_are_vllm_defaults() -> None:
    for mode in MODES:
        argv = " ".join(engine_args.build_argv(attempt(mode=mode), 8001, cpu=False))
        assert "eager" not in argv
        assert "executor" not in argv
        assert "kv-cache" not in argv


def test_the_configuration_wins_over_our_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    given = attempt("--no-enforce-eager", "--kv-cache-memory-bytes=1G", "--distributed-executor-backend", "mp")
    argv = engine_args.build_argv(given, 8001, cpu=True)
    assert tuple(argv[-4:]) == given.args
    assert "--enforce-eager" not in argv
    assert sum(arg.startswith("--kv-cache-memory-bytes") for arg in argv) == 1
    assert argv.count("--distributed-executor-backend") == 1
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert "--kv-cache-memory-bytes" not in engine_args.build_argv(attempt(), 8001, cpu=True)


@pytest.mark.parametrize(("weights_mib", "cache_mib"), [(0, 128), (100, 200), (9000, 4096)])
def test_cpu_cache_grows_with_the_weights(tmp_path: Path, weights_mib: int, cache_mib: int) -> None:
    for part in range(2):
        with (tmp_path / f"model-{part}.safetensors").open("wb") as file:
            file.truncate(weights_mib * MIB // 2)
    assert cpu_kv_cache_bytes(engine_args.weight_bytes(tmp_path)) == cache_mib * MIB


def test_only_the_fast_cpu_start_changes_how_vllm_runs() -> None:
    special = engine_args.environment("fast", cpu=True).keys() - engine_args.ENVIRONMENT.keys()
    assert special == {"VLLM_ENABLE_V1_MULTIPROCESSING", "OMP_NUM_THREADS", "TORCHDYNAMO_DISABLE"}
    assert engine_args.environment("plain", cpu=True) == engine_args.ENVIRONMENT
    assert engine_args.environment("fast", cpu=False) == engine_args.ENVIRONMENT


# caches and errors


def test_the_baked_cache_is_copied_once(tmp_path: Path) -> None:
    baked, root = tmp_path / "baked", tmp_path / "cache" / "vllm"
    engine_start.seed_cache(baked, root)
    assert not root.exists()
    (baked / "modelinfos").mkdir(parents=True)
    (baked / "modelinfos" / "llama.json").write_text("baked")
    engine_start.seed_cache(baked, root)
    assert (root / "modelinfos" / "llama.json").read_text() == "baked"
    (root / "modelinfos" / "llama.json").write_text("newer")
    engine_start.seed_cache(baked, root)
    assert (root / "modelinfos" / "llama.json").read_text() == "newer"


def test_an_unreadable_baked_cache_leaves_no_half_copy(tmp_path: Path) -> None:
    baked, root = tmp_path / "baked", tmp_path / "cache"
    (baked / "modelinfos").mkdir(parents=True)
    (baked / "modelinfos" / "dangling.json").symlink_to("nowhere")
    engine_start.seed_cache(baked, root)
    assert not (root / "modelinfos").exists()


FORKED = """
import multiprocessing, sys
from aisandbox.instance.serve.engine_start import ErrorLog
log = ErrorLog()
log.attach()
def child():
    print(sys.stderr.encoding, file=sys.stderr)
    raise ValueError("the cause")
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
print(log.lines[0], log.lines[-1], log.full, flush=True)
print("x" * log.LONGEST, file=sys.stderr)
print("more", file=sys.stderr)
print("more" in log.lines, log.full)
"""


def test_what_a_forked_process_says_before_it_ends_is_kept() -> None:
    """Only its standard error names the cause of a fast start that failed."""
    result = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["utf-8 ValueError: the cause False", "False True"]
    assert "ValueError: the cause" in result.stderr


VLLM = {
    "vllm/model_executor/models/registry.py": """
class Model:
    inspect_model_cls = lambda self: 0
class ModelRegistry:
    models = dict(LlamaForCausalLM=Model(), BForCausalLM=Model())
""",
    "vllm/model_executor/layers/quantization.py": """
QUANTIZATION_METHODS = ['mxfp4', 'fp8']
class Config:
    get_min_capability = classmethod(lambda cls: 75)
get_quantization_config = lambda method: Config
""",
    "vllm/config/model.py": """
_FLOAT16_NOT_SUPPORTED_MODELS = {'gemma2': 'why'}
def _get_and_verify_max_len(kind):
    return kind not in ('yarn', 'longrope')
""",
    "vllm/tool_parsers.py": "class ToolParserManager:\n    list_registered = classmethod(lambda cls: ['hermes'])\n",
    "vllm/reasoning.py": "class ReasoningParserManager:\n    list_registered = classmethod(lambda cls: ['qwen3'])\n",
    "transformers/models/auto/modeling_auto.py": """
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = {'near': 'AForCausalLM', 'plain': ('CForCausalLM', 'DForCausalLM'), 'bad': 'E'}
MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES = {'seeing': 'SForConditionalGeneration'}
""",
    "transformers/models/auto/configuration_auto.py": """
class Near:
    model_type, vocab_size, max_position_embeddings = 'near', 9, 8
    layer_types = (['sliding_attention'] * 2 + ['full_attention']) * 2 + ['sliding_attention']
    get_text_config = lambda self: self
class Plain:
    model_type, vocab_size, layer_types = 'plain', 7, ['full_attention'] * 4
    get_text_config = lambda self: self
class Seeing:
    get_text_config = lambda self: Plain()
CONFIG_MAPPING = {'near': Near, 'plain': Plain, 'seeing': Seeing}
""",
    "torch.py": """
class version:
    cuda = '13.0'
class _C:
    _cuda_getArchFlags = staticmethod(lambda: 'sm_80 sm_75 sm_100a compute_120')
""",
}
"""As little of vLLM, Transformers and PyTorch as the bake asks."""


def test_baking_writes_down_what_vllm_knows(tmp_path: Path) -> None:
    """Before anything is downloaded, the model step asks these tables whether vLLM can serve a model."""
    for name, text in VLLM.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    folder = tmp_path / "cache"
    folder.mkdir()
    bake = [sys.executable, "-m", "aisandbox.instance.serve.engine", "bake", str(folder)]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{engines.REPOSITORY}"}
    subprocess.run(bake, env=environment, check=True, capture_output=True)
    found = Tables.model_validate_json((folder / "tables.json").read_bytes())
    assert found == Tables(
        architectures=frozenset({"AForCausalLM", "BForCausalLM", "CForCausalLM", "DForCausalLM", "E",
                                 "LlamaForCausalLM", "SForConditionalGeneration"}),
        formats={"fp8": (7, 5), "mxfp4": (7, 5)},
        not_float16=frozenset({"gemma2"}),
        prescaled_ropes=frozenset({"yarn", "longrope"}),
        defaults={"near": Defaults(context=8, vocabulary=9, whole_every=3), "plain": Defaults(vocabulary=7),
                  "seeing": Defaults(vocabulary=7)},
        tool_parsers=frozenset({"hermes"}),
        reasoning_parsers=frozenset({"qwen3"}),
        capability=(7, 5),
    )  # fmt: skip
    assert {file.stat().st_mode & 0o777 for file in folder.glob("*.json")} == {0o644}
    # Of another vLLM than the one that the tables are read from, what is elsewhere is left out.
    (tmp_path / "vllm/config/model.py").write_text("_FLOAT16_NOT_SUPPORTED_MODELS = {}\n")
    said = subprocess.run(bake, env=environment, check=True, capture_output=True, text=True).stdout
    assert "engine: not baked: prescaled_ropes: AttributeError" in said
    assert "prescaled_ropes" not in json.loads((folder / "tables.json").read_text())


def test_the_cause_is_found_in_the_output() -> None:
    core = "(EngineCore pid=7) ERROR 11-22 07:15:48 [core.py:1506] "
    assert last_error([]) == ""
    assert last_error(["INFO: all is well", "Route: /error: x"]) == ""
    assert last_error(
        [
            core + "Traceback (most recent call last):",
            core + "ValueError: To serve at least one request with the model's max seq len (9999) ...",
            "Traceback (most recent call last):",
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        ]
    ).startswith("ValueError: To serve at least one request")
    assert (
        last_error(
            [
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
                "  Value error, The checkpoint has model type `x`. [type=value_error, input_value=Args(",
                "    For further information visit https://errors.pydantic.dev/2.12/v/value_error",
            ]
        )
        == "The checkpoint has model type `x`."
    )
    assert last_error(["api_server.py: error: unrecognized arguments: --nonsense"]) == (
        "unrecognized arguments: --nonsense"
    )


def test_an_exception_is_told_in_one_line() -> None:
    assert describe(KeyError()) == "KeyError"
    assert describe(TimeoutError("late")) == "TimeoutError: late"
    assert describe(ValueError("1 error for Config\n  Value error, too long [type=x]")) == "too long"
    assert describe(RuntimeError("See root cause above.")).startswith("RuntimeError: See")


# process control


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with engines.engine(tmp_path) as engine:
        yield engine


def test_a_failed_fast_start_falls_back_once_and_for_all(engine: Engine) -> None:
    process = engine.start()
    engine.wait("wait", "running")
    engine.ask(GOOD)
    status = engine.wait("serve", "done")
    assert status["mode"] == "plain"
    assert list(status["timeline"]) == ["import", "load", "serve", "wait"]
    assert "ModuleNotFoundError" in status["message"]
    output = engine.stop(process)
    assert process.returncode == 0
    assert "import running" in output
    assert "'--max-model-len', '512'" in output

    again = engine.start()  # as systemd does
    engine.wait("serve", "done")
    assert "import running" not in engine.stop(again)


def test_plain_can_be_asked_for_and_ends_with_its_server(engine: Engine) -> None:
    engine.ask(GOOD)
    process = engine.start(AISANDBOX_ENGINE="plain")
    assert "asked for" in engine.wait("serve", "done")["message"]
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    process.communicate(timeout=5)
    assert process.returncode != 0
    assert engine.status["state"] == "failed"
    assert "is started again" in engine.status["message"]


def test_on_gpus_the_plain_start_is_the_usual_one_and_not_worth_a_word(engine: Engine) -> None:
    """As vllm.service has it in the flavour cuda, until the fork was measured there."""
    build = engine.folder / "python" / "vllm-0.32.0.dist-info"
    build.mkdir()
    (build / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    catalogue = yaml.safe_load((engines.REPOSITORY / "ansible/group_vars/all/services.yml").read_text())
    engine.ask(GOOD)
    process = engine.start(AISANDBOX_ENGINE=catalogue["vllm_environment_of"]["cuda"]["AISANDBOX_ENGINE"])
    assert "plain way" not in engine.wait("serve", "done")["message"]
    assert "import running" not in engine.stop(process)


def test_the_engine_sees_only_the_gpus_that_it_is_told(engine: Engine) -> None:
    engine.ask(GOOD, devices=("GPU-1", "GPU-3"))
    process = engine.start(AISANDBOX_ENGINE="plain")
    engine.wait("serve", "done")
    assert "GPUs GPU-1,GPU-3\n" in engine.stop(process)


def test_gpus_that_are_told_later_are_taken(engine: Engine) -> None:
    process = engine.start(AISANDBOX_ENGINE="plain")
    engine.wait("wait", "running")
    engine.ask(GOOD, devices=("MIG-0",))
    engine.wait("serve", "done")
    assert "GPUs MIG-0\n" in engine.stop(process)


def test_without_a_list_of_gpus_the_engine_sees_what_it_was_given(engine: Engine) -> None:
    engine.ask(GOOD)
    process = engine.start(AISANDBOX_ENGINE="plain", CUDA_VISIBLE_DEVICES="7")
    engine.wait("serve", "done")
    assert "GPUs 7\n" in engine.stop(process)


def test_a_killed_engine_leaves_no_server(engine: Engine) -> None:
    engine.ask(GOOD)
    process = engine.start(AISANDBOX_ENGINE="plain")
    engine.wait("serve", "done")
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().strip()
    process.kill()
    process.communicate(timeout=5)
    deadline = time.monotonic() + 5
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: str) -> bool:
    """Whether the process runs; one that ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
