"""What the engine tries next, and what it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from aisandbox.instance.serve.engine_attempts import VARIABLE, Attempt, Memory
from aisandbox.instance.serve.engine_causes import Cause
from aisandbox.instance.serve.engine_files import Candidate, EngineConfig

ASKED, FALLBACK = Candidate("/asked", ("asked",), ("-a",)), Candidate("/fallback", ("fallback",), ())
CONFIG = EngineConfig(ASKED, (FALLBACK,))
UNKNOWN = Cause("it broke", "mend it")
MODEL = Cause("it is bad", "choose another", "model")
LESS = Candidate("/asked", ("asked",), ("-less",))
MEMORY = Cause("too large", "ask for less", "memory", ("--max-model-len", "4096"))
MACHINE = Cause("no GPU", "get one", "machine")


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "memory.json")


def tried(
    memory: Memory, *causes: Cause, plain: bool = False, config: EngineConfig = CONFIG
) -> list[tuple[str, str, tuple[str, ...]]]:
    """The attempts, when they fail for these causes, and the one after them."""
    found: list[tuple[str, str, tuple[str, ...]]] = []
    for cause in (*causes, None):
        attempt = memory.next(config, plain)
        if attempt is None:
            break
        found.append((attempt.candidate.model, attempt.mode, attempt.args))
        if cause:
            memory.failed(attempt, cause, config)
    return found


def test_an_unknown_cause_is_tried_the_plain_way_then_the_fallback(memory: Memory) -> None:
    assert tried(memory, UNKNOWN, UNKNOWN) == [
        ("/asked", "fast", ("-a",)),
        ("/asked", "plain", ("-a",)),
        ("/fallback", "fast", ()),
    ]
    assert memory.record(ASKED).failed == "it broke"


def test_a_bad_model_needs_no_second_start(memory: Memory) -> None:
    assert tried(memory, MODEL) == [("/asked", "fast", ("-a",)), ("/fallback", "fast", ())]


def test_memory_is_tried_once_more_with_less(memory: Memory) -> None:
    less = ("-a", "--max-model-len", "4096")
    assert tried(memory, MEMORY, MEMORY) == [
        ("/asked", "fast", ("-a",)),
        ("/asked", "fast", less),
        ("/fallback", "fast", ()),
    ]
    record = memory.record(ASKED)
    assert record.failed == "too large; with less, too large"
    assert record.fix == "ask for less"


@pytest.mark.parametrize(
    ("causes", "then"),
    [
        ((MODEL,), "/fallback"),  # it is bad with any arguments
        ((MEMORY, MEMORY), "/fallback"),  # once with less was enough
        ((Cause("killed", "", "memory"),), "/asked"),
        ((UNKNOWN, UNKNOWN), "/asked"),
    ],
)
def test_the_same_model_with_less_is_a_fallback_of_its_own(
    memory: Memory, causes: tuple[Cause, ...], then: str
) -> None:
    config = EngineConfig(ASKED, (LESS, FALLBACK))
    model, _, args = tried(memory, *causes, config=config)[-1]
    assert model == then
    assert (args == LESS.args) is (then == "/asked")


def test_the_plain_way_is_kept_for_the_start_with_less(memory: Memory) -> None:
    assert [mode for _, mode, _ in tried(memory, UNKNOWN, MEMORY)] == ["fast", "plain", "plain"]


def test_a_machine_at_fault_is_checked_the_plain_way_and_ends_it_all(memory: Memory) -> None:
    assert [mode for _, mode, _ in tried(memory, MACHINE, MACHINE)] == ["fast", "plain"]
    assert memory.next(CONFIG) is None
    memory.start_over()
    assert memory.rounds == 1
    assert tried(memory) == [("/asked", "plain", ("-a",))], "what cannot start the fast way is not tried so again"


def test_plain_is_plain_for_all(memory: Memory) -> None:
    assert [mode for _, mode, _ in tried(memory, MODEL, MODEL, plain=True)] == ["plain", "plain"]


def test_it_outlives_the_process(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(memory, MEMORY)
    monkeypatch.delenv(VARIABLE, raising=False)
    kept = Memory.load(memory.path)
    assert kept.next(CONFIG) == Attempt(ASKED, "fast", memory.record(ASKED))
    memory.path.unlink()
    assert Memory.load(memory.path).record(ASKED).retry == []
    monkeypatch.setenv(VARIABLE, memory.environment[VARIABLE])
    assert Memory.load(memory.path).record(ASKED).retry == ["--max-model-len", "4096"]


ON_PROCESSOR = Candidate("/fallback", ("fallback",), (), processor=True)
WITH_PROCESSOR = EngineConfig(ASKED, (FALLBACK, ON_PROCESSOR))


def test_gpus_that_fail_are_tried_again_before_the_processor_serves(memory: Memory) -> None:
    late = tried(memory, MACHINE, MACHINE, config=WITH_PROCESSOR)
    assert [mode for _, mode, _ in late] == ["fast", "plain"], "nothing is left to try"
    memory.start_over()
    assert tried(memory, MACHINE, config=WITH_PROCESSOR) == [("/asked", "plain", ("-a",)), ("/fallback", "plain", ())]
    attempt = memory.next(WITH_PROCESSOR)
    assert attempt and attempt.candidate == ON_PROCESSOR


def test_what_the_processor_serves_is_another_candidate_than_the_same_model_on_a_gpu(memory: Memory) -> None:
    assert ON_PROCESSOR.id != FALLBACK.id
    tried(memory, MODEL, MODEL, config=WITH_PROCESSOR)
    attempt = memory.next(WITH_PROCESSOR)
    assert attempt and attempt.candidate == ON_PROCESSOR
