"""The pieces of the GPU kit, fed with what vLLM, nvidia-smi and servers write.

`vllm-cpu.log` was recorded from vLLM 0.32; `vllm.log` has the lines of the GPU build in the formats of its source.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aisandbox.instance.fit.hardware import GIB, Gpu, Hardware
from aisandbox.manifest import REPOSITORY
from tests.bench import starts
from tests.gpu import compare, estimate, logs, models, runs, smi
from tests.gpu.figures import Figures, Row
from tests.gpu.kit import carry_out, summary
from tests.gpu.logs import Said
from tests.gpu.runs import Planned, Timer
from tests.gpu.table import Report
from tests.support import models as tiny

DATA = REPOSITORY / "tests" / "data" / "gpu"
LOG = (DATA / "vllm.log").read_text().splitlines()
CPU_LOG = (DATA / "vllm-cpu.log").read_text().splitlines()
SMI = (DATA / "nvidia-smi.xml").read_text()
L4 = Gpu(name="NVIDIA L4", memory_gib=22.5, capability=(8, 9))
FOUND = Hardware(flavour="cuda", ram_gib=64, cpus=16, gpus=(L4, L4), driver="610.43.02", cuda="13.3")
NOTHING = Said(None, None, None, None, None, None, None, None)


# What vLLM says


def test_figures_of_a_gpu_start() -> None:
    assert logs.read(LOG) == Said(
        weights_gib=7.56,
        loading_s=2.4,
        cache_gib=10.27,
        cache_tokens=74784,
        context=40960,
        graphs_s=4,
        graphs_gib=0.61,
        compiling_s=12.71,
    )


def test_figures_of_the_first_of_several_gpus() -> None:
    lines = [
        "(Worker_TP0 pid=1) INFO 11-30 10:20:19 [gpu_model_runner.py:5149] "
        "Model loading took 4.06 GiB memory and 3.121987 seconds",
        "(Worker_TP1 pid=2) INFO 11-30 10:20:19 [gpu_model_runner.py:5149] "
        "Model loading took 4.09 GiB memory and 3.121987 seconds",
    ]
    assert logs.read(lines).weights_gib == 4.06


def test_figures_of_a_cpu_start() -> None:
    said = logs.read(CPU_LOG)
    assert said.cache_tokens == 52352
    assert said.context == 4096
    assert said.loading_s is not None
    assert said.weights_gib is None, "the CPU build does not say it"


def test_memory_that_does_not_suffice_is_a_negative_figure() -> None:
    line = "(EngineCore pid=9) INFO 11-30 10:20:35 [gpu_worker.py:759] Available KV cache memory: -0.41 GiB"
    assert logs.read([line]).cache_gib == -0.41


def test_an_empty_log_says_nothing() -> None:
    assert logs.read([]) == NOTHING


def stamped(lines: list[str]) -> list[tuple[float, str]]:
    """A line every second, from second 101 on."""
    return [(100 + number, line) for number, line in enumerate(lines, 1)]


def test_phases_of_a_gpu_start() -> None:
    assert logs.phases(stamped(LOG), 100, 116.5) == {
        "program": 2,
        "device": 2,
        "weights": 1,
        "profile": 4,
        "warm-up": 2,
        "API": 4,
        "first token": 1.5,
    }


def test_phases_of_a_cpu_start_have_the_same_names() -> None:
    found = logs.phases(stamped(CPU_LOG), 100, 200)
    assert tuple(found) == logs.PHASES
    assert sum(found.values()) == pytest.approx(100)


def test_a_phase_without_an_end_counts_as_the_next_one() -> None:
    lines = [line for line in LOG if "Loading weights took" not in line]
    found = logs.phases(stamped(lines), 100, 116)
    assert "weights" not in found
    assert found["profile"] == 4
    assert sum(found.values()) == 16


def test_what_comes_after_the_first_token_is_no_phase() -> None:
    assert logs.phases(stamped(LOG), 100, 104.5) == {"program": 2, "device": 2, "first token": 0.5}


# What the driver says


def test_the_machine_of_nvidia_smi() -> None:
    card = smi.Card("NVIDIA L4", 23034, 461, 2)
    assert smi.parse(SMI) == smi.Machine("610.43.02", "13.3", (card, card))


@pytest.mark.parametrize("answer", ["", "No devices were found", "<nvidia_smi_log>"])
def test_an_answer_that_is_not_xml_is_no_gpu(answer: str) -> None:
    with pytest.raises(smi.NoGpu, match="not XML"):
        smi.parse(answer)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, before all others, for a stand-in of nvidia-smi."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def stand_in(folder: Path, script: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)


def test_nvidia_smi_is_asked(programs: Path) -> None:
    stand_in(programs, f'[ "$*" = "-q -x" ] && cat {shlex.quote(str(DATA / "nvidia-smi.xml"))}')
    assert len(smi.look().cards) == 2


def test_a_driver_without_a_gpu(programs: Path) -> None:
    stand_in(programs, "echo '<nvidia_smi_log><driver_version>610.43.02</driver_version></nvidia_smi_log>'")
    with pytest.raises(smi.NoGpu, match=r"driver 610\.43\.02 runs, and finds no GPU"):
        smi.look()


def test_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(smi.NoGpu, match="nvidia-smi is not installed"):
        smi.look()


def test_memory_and_power_are_peaks_of_all_gpus_together(programs: Path) -> None:
    samples = ["0, 1024, 30.52", "1, 2048, [N/A]", "0, 4096, 70.10", "1, 1024, [N/A]"]
    lines = "\n".join(f"echo '{line}'" for line in samples)
    stand_in(
        programs, f'case "$*" in *--query-gpu=index,memory.used,power.draw*--loop-ms=*) {lines}\nexec sleep 60;; esac'
    )
    with smi.Sampler(True) as sampler:
        deadline = time.monotonic() + 10
        while sampler.memory_gib != 6:
            assert time.monotonic() < deadline, sampler.memory_gib
            time.sleep(0.02)
    assert sampler.watts == 70.1


def test_nothing_is_sampled_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with smi.Sampler(False) as sampler:
        assert sampler.memory_gib is None
        assert sampler.watts is None


# Comparisons


def wrong(checks: Iterator[compare.Check]) -> list[str]:
    return [check.what for check in checks if check.good is not True]


def test_hardware_that_is_found_as_it_is() -> None:
    assert wrong(compare.hardware(FOUND, smi.parse(SMI))) == []


def test_memory_may_be_given_without_the_drivers_own_part() -> None:
    found = replace(FOUND, gpus=(replace(L4, memory_gib=22.0), L4))
    assert wrong(compare.hardware(found, smi.parse(SMI))) == []


def test_memory_may_be_given_without_what_other_programs_have() -> None:
    told = smi.Machine("610.43.02", "13.3", (smi.Card("NVIDIA L4", 23034, 461, 2048),))
    alone = replace(FOUND, gpus=(replace(L4, memory_gib=20.0),))
    assert wrong(compare.hardware(alone, told)) == []
    assert wrong(
        compare.hardware(alone, smi.Machine("610.43.02", "13.3", (smi.Card("NVIDIA L4", 23034, 461, 0),)))
    ) == ["memory of GPU 0"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"driver": "580.65.06"}, ["driver"]),
        ({"cuda": None}, ["CUDA"]),
        ({"fault": "driver is too old"}, ["fault"]),
        ({"gpus": (L4,)}, ["GPUs"]),
        ({"gpus": (replace(L4, name="NVIDIA T4"), L4)}, ["GPU 0"]),
        ({"gpus": (L4, replace(L4, memory_gib=24.2))}, ["memory of GPU 1"]),
    ],
)
def test_hardware_that_is_found_otherwise(change: dict[str, Any], what: list[str]) -> None:
    assert wrong(compare.hardware(replace(FOUND, **change), smi.parse(SMI))) == what


@pytest.fixture
def promised(tmp_path: Path) -> estimate.Estimate:
    """Our estimate for the tests' small model on one of these GPUs."""
    return estimate.make(models.TINY, tiny.write(tmp_path / "model"), FOUND)


def test_the_estimate_has_vllms_units(promised: estimate.Estimate, tmp_path: Path) -> None:
    files = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert files / GIB <= promised.weights_gib < 1.2 * files / GIB  # vLLM makes tables of its own beside them
    each = 2 * 2 * tiny.LAYERS * tiny.WIDTH  # keys and values of two bytes
    assert promised.cache_tokens(4096) == pytest.approx(promised.cache_gib * GIB / each, rel=1e-4)
    assert "--max-model-len" in promised.args


@pytest.mark.parametrize(("error", "good"), [(0.0, True), (0.029, True), (-0.029, True), (0.031, False)])
def test_weights_have_a_bar_of_three_percent(promised: estimate.Estimate, error: float, good: bool) -> None:
    said = Said(promised.weights_gib / (1 + error), None, None, None, None, None, None, None)
    weights = next(compare.sizing(promised, said))
    assert weights.what == "weights (bar 3 %)"
    assert weights.good is good
    assert weights.percent == pytest.approx(100 * error, abs=1e-6)


@pytest.mark.parametrize(("error", "good"), [(0.14, True), (-0.14, True), (0.16, False), (-0.16, False)])
def test_the_cache_has_a_bar_of_fifteen_percent(promised: estimate.Estimate, error: float, good: bool) -> None:
    tokens = promised.cache_tokens(4096)
    assert tokens
    truth = 1 / (1 + error)
    said = Said(None, None, promised.cache_gib * truth, int(tokens * truth), 4096, None, None, None)
    assert [check.good for check in compare.sizing(promised, said)] == [None, good, good]


def test_what_vllm_does_not_say_proves_nothing(promised: estimate.Estimate) -> None:
    checks = list(compare.sizing(promised, NOTHING))
    assert [(check.truth, check.percent, check.good) for check in checks] == [("not said", None, None)] * 3


def done(name: str, seconds: float, rates: dict[int, float] | None = None) -> Row:
    return Row(name, "done", figures=Figures(seconds, {"first token": seconds}, NOTHING, tokens_s=rates or {}))


def test_gains_are_factors_above_one_for_what_is_faster() -> None:
    rows = [
        done("plain, first", 60, {1: 100, 8: 700}),
        done("engine, first", 40, {1: 100, 8: 350}),
        done("plain, again", 30, {1: 100}),
        Row("engine, again", "failed", "why"),
        done("n-gram speculation", 30, {1: 150}),
    ]
    assert [(gain.what, gain.run, gain.factor) for gain in compare.gains(rows)] == [
        ("first token", "engine, first", 1.5),
        ("tokens/s, 1 at once", "engine, first", 1.0),
        ("tokens/s, 8 at once", "engine, first", 0.5),
        ("tokens/s, 1 at once", "n-gram speculation", 1.5),
    ]


# The table


def test_the_report_names_what_failed(tmp_path: Path) -> None:
    report = Report(machine={"GPUs": "NVIDIA L4"})
    report.rows = [done("plain, first", 61.25, {64: 1000}), Row("KV offload", "failed", "ValueError: a | b\nc")]
    report.hardware = [compare.Check("driver", "580", "610", None, False)]
    report.sizing = [compare.Check("weights (bar 3 %)", "7.50 GiB", "7.56 GiB", -0.79, True)]
    report.write(tmp_path)

    lines = (tmp_path / "report.md").read_text().splitlines()
    columns = next(line.count("|") for line in lines if line.startswith("| run |"))
    first = next(line for line in lines if line.startswith("| plain, first | done | 61.2 |"))
    failed = next(line for line in lines if line.startswith("| KV offload | failed |"))
    assert "| 1000 |" in first
    assert failed.endswith("| ValueError: a \\| b c |")
    assert [first.count("|"), failed.replace("\\|", "").count("|")] == [columns, columns]
    assert "| weights (bar 3 %) | 7.50 GiB | 7.56 GiB | -0.8 % | yes |" in lines
    assert "- GPUs: NVIDIA L4" in lines
    assert lines[-1] == "Failed or outside its bar: KV offload; driver"
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["failures"] == ["KV offload", "driver"]
    assert data["rows"][0]["figures"]["tokens_s"] == {"64": 1000}
    assert data["rows"][0]["figures"]["first_token_s"] == 61.25


def test_a_report_without_failures_says_so() -> None:
    assert Report(machine={}).markdown().endswith("Failed or outside its bar: nothing\n")


# Runs


def measure() -> Figures:
    return Figures(12.3, {}, NOTHING, tokens_s={8: 99.6})


def fail() -> Figures:
    raise RuntimeError(
        "the server ended with 1:\n[core.py:9] ValueError: no memory\n"
        "RuntimeError: Engine core initialization failed. See root cause above."
    )


def test_a_run_is_carried_out() -> None:
    row = carry_out(Planned("x", measure), Timer(60))
    assert row.state == "done"
    assert summary(row) == "first token after 12.3 s, 100 tokens/s at 8"


def test_a_run_that_fails_is_a_row_that_names_the_cause() -> None:
    row = carry_out(Planned("x", fail), Timer(60))
    assert (row.state, row.figures) == ("failed", None)
    assert "no memory" in row.note


def test_what_this_machine_cannot_have_is_skipped() -> None:
    assert carry_out(Planned("x", fail, "needs a GPU"), Timer(60)) == Row("x", "skipped", "needs a GPU")


def test_a_run_for_which_no_time_is_left_has_failed() -> None:
    row = carry_out(Planned("x", measure), Timer(1))
    assert (row.state, row.figures) == ("failed", None)


def test_arguments_that_only_a_server_takes_are_left_out() -> None:
    args = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--dtype", "half", "--max-model-len", "auto")
    assert runs.without_servers(args) == args[3:]


def test_a_missing_module_is_named() -> None:
    assert runs.missing("json") == ""
    assert runs.missing("no_such_module") == "ModuleNotFoundError: No module named 'no_such_module'"


# Processes

SERVER = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
program = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", program])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def machine(tmp_path: Path) -> starts.Machine:
    return starts.Machine(Path(sys.executable), tmp_path, tmp_path, tmp_path, deadline=time.monotonic() + 30)


def test_nothing_is_left_of_a_server_that_does_not_listen(
    machine: starts.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "STOP_SECONDS", 0.1)
    with machine.process("-c", SERVER) as process:
        while not machine.lines:
            machine.check(process)
            time.sleep(0.02)
        child = int(machine.lines[0][1])
        assert running(child)
    assert process.returncode is not None
    assert not running(child)


def running(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_lines_carry_the_time_of_their_arrival(machine: starts.Machine) -> None:
    program = "import time; print('one', flush=True); time.sleep(0.5); print('two', flush=True); time.sleep(600)"
    with machine.process("-c", program) as process:
        while len(machine.lines) < 2:
            machine.check(process)
            time.sleep(0.02)
    (first, one), (second, two) = machine.lines
    assert (one, two) == ("one", "two")
    assert second - first >= 0.4
    assert (machine.folder / "log").read_text() == "one\ntwo\n"


def test_a_server_that_ends_is_an_error_with_its_last_words(machine: starts.Machine) -> None:
    with machine.process("-c", "raise SystemExit('no memory')") as process:
        process.wait(10)
        deadline = time.monotonic() + 10
        while not machine.lines and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(RuntimeError, match="the server ended with 1:\nno memory"):
            machine.check(process)


def test_an_engine_that_cannot_serve_is_an_error_at_once(machine: starts.Machine) -> None:
    with machine.process("-c", "import time; time.sleep(600)") as process:
        machine.check(process)
        (machine.run / "status").mkdir()
        status = {"phase": "load", "state": "failed", "message": "bench cannot be served: no memory."}
        (machine.run / "status" / "engine.json").write_text(json.dumps(status))
        with pytest.raises(RuntimeError, match=r"^bench cannot be served: no memory\.$"):
            machine.check(process)


# The model


def test_a_folder_is_a_model_if_it_has_a_configuration(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "mine")
    assert models.find(str(folder), FOUND, Path("uv")) == ("local/mine", folder)
    (folder / "config.json").unlink()
    with pytest.raises(models.ModelError, match=r"mine has no config\.json"):
        models.find(str(folder), FOUND, Path("uv"))


# The command


@pytest.mark.parametrize("command", [["make", "--silent", "test-gpu"], [sys.executable, "-m", "tests.gpu"]])
def test_without_a_gpu_nothing_is_proved(command: list[str], programs: Path) -> None:
    stand_in(programs, "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9")
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "no GPU: nothing was proved (nvidia-smi failed: NVIDIA-SMI has failed" in ended.stderr
    assert ended.stdout == ""


def test_the_kit_is_no_part_of_other_suites() -> None:
    assert list((REPOSITORY / "tests" / "gpu").rglob("test_*.py")) == []
