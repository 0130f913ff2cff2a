"""What is served instead: the candidates and their order, less memory, what is tried next and remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aisandbox.instance.deployment import Deployment, Serving
from aisandbox.instance.serve import fallbacks
from aisandbox.instance.serve.fallbacks import VARIABLE, Attempt, Cause, Memory
from tests.support.deployments import located, serving

ASKED = serving("/asked", "-a", names=("asked",))
FALLBACK = serving("/fallback", names=("fallback", "asked"))
CONFIG = located(ASKED, FALLBACK)
UNKNOWN = Cause("it broke", "mend it")
MODEL = Cause("it is bad", "choose another", "model")
LESS = serving("/asked", "-less", names=("asked",))
MEMORY = Cause("too large", "ask for less", "memory", ("--max-model-len", "4096"))
MACHINE = Cause("no GPU", "get one", "machine")


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "memory.json")


def tried(
    memory: Memory, *causes: Cause, plain: bool = False, config: Deployment = CONFIG
) -> list[tuple[str, str, tuple[str, ...]]]:
    """The attempts, when they fail for these causes, and the one after them."""
    found: list[tuple[str, str, tuple[str, ...]]] = []
    for cause in (*causes, None):
        attempt = memory.next(config, plain)
        if attempt is None:
            break
        found.append((attempt.candidate.folder, attempt.mode, attempt.args))
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
    config = located(ASKED, LESS, FALLBACK)
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


ON_PROCESSOR = fallbacks.on_processor(FALLBACK)
WITH_PROCESSOR = located(ASKED, FALLBACK, ON_PROCESSOR)


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


# candidates


ROOMY, GUIDE = serving("/roomy"), serving("/guide")


def order(*expected: Serving, asked: Serving | None = ASKED, less: Serving | None = None, **rest: Any) -> bool:
    """Whether these come out, in this order; the guide is there and no GPU, unless said otherwise."""
    return fallbacks.ordered(asked, less, **{"before": (), "guide": GUIDE, "gpus": False, **rest}) == expected


def test_the_order_of_what_is_served_instead() -> None:
    assert order(ASKED, GUIDE)
    assert order(ASKED, LESS, ROOMY, GUIDE, less=LESS, before=(ROOMY, FALLBACK))
    assert order(ASKED, ROOMY, GUIDE, before=(LESS, ROOMY)), "no other way to serve the same model"
    assert order(ASKED, GUIDE, before=(GUIDE,)), "nothing twice"
    assert order(GUIDE, asked=GUIDE)
    assert order(ROOMY, FALLBACK, GUIDE, asked=None, before=(ROOMY, FALLBACK))
    assert order(asked=None, guide=None)


def test_with_gpus_the_processor_comes_last() -> None:
    assert order(ASKED, GUIDE, fallbacks.on_processor(GUIDE), gpus=True)
    assert order(GUIDE, fallbacks.on_processor(GUIDE), asked=GUIDE, gpus=True)
    assert order(asked=None, guide=None, gpus=True)


def test_only_what_is_there_and_served_counts_as_served_before(tmp_path: Path) -> None:
    first, second, third = (serving(str(tmp_path / name)) for name in ("first", "second", "third"))
    told = located(first, second, third, fallbacks.on_processor(second))
    assert fallbacks.served_before(told, {}) == ()
    for one in (first, second, third):
        Path(one.folder).mkdir()
    assert fallbacks.served_before(None, {}) == ()
    assert fallbacks.served_before(told, {"state": "done"}) == (first, second, third)
    failed = {"state": "failed", "serving": third.model}
    assert fallbacks.served_before(told, failed) == (third, second), "the first cannot be served"


# less memory


@pytest.mark.parametrize(
    ("estimated", "most", "tokens"),
    [
        (None, 32768, 8192),  # nothing is known: what suffices for a chat
        (32768, 32768, 16384),  # it was to fit, and does not
        (10_000, 32768, 8192),  # far less than was asked for was expected anyway
        (30_000, 32768, 8192),  # a power of two
        (3000, 4096, None),  # of no use
        (500, 512, None),
        (100, 1024, None),
    ],
)
def test_the_context_of_the_same_model_with_less(estimated: int | None, most: int, tokens: int | None) -> None:
    assert fallbacks.less_context(estimated, most, 2048) == tokens


def test_the_same_model_with_less_says_how_it_would_be_as_asked_for() -> None:
    less = fallbacks.with_less(ASKED, 4096, ("--own",), gpus=True)
    assert less.args == ("-a", "--max-model-len", "4096", "--max-num-seqs", "16", "--enforce-eager", "--own")
    assert "--set max_model_len=4096" in less.fix
    assert "--enforce-eager" not in fallbacks.with_less(ASKED, 4096, (), gpus=False).args


def test_there_is_one_halving_of_the_context(tmp_path: Path) -> None:
    asked = serving(str(tmp_path), "--max-model-len", "8192")
    assert fallbacks.half_the_context(asked) == fallbacks.fitting_context(8192, 0) == ("--max-model-len", "4096")
    assert fallbacks.fitting_context(8192, 1792) == ("--max-model-len", "1792")
    assert fallbacks.half_the_context(serving(str(tmp_path))) == ("--max-model-len", "auto")
    assert fallbacks.halved(1) == 1
