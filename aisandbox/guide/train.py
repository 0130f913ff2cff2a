"""Trains the guide and writes it into a model cache: `python -m aisandbox.guide.train --manifest FILE --out DIR`."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from aisandbox.guide.batches import Encoder, Example, batches, predict, shortened
from aisandbox.guide.cache import write_model
from aisandbox.guide.check import KINDS, REST_SHARE, TRAINED_SHARE, Probe, good_enough, probes, rounded, tally, wrong
from aisandbox.guide.conversation import TOOL, tool_call
from aisandbox.guide.corpus import CorpusError, Entry, load_corpus, normalise
from aisandbox.guide.model import count_parameters, model_files, new_model
from aisandbox.guide.sampler import Sampler
from aisandbox.guide.tokenizer import train_tokenizer

MODEL = "aisandbox/guide"

STEPS = 2600
BATCH_TOKENS = 1024
LEARNING_RATE = 2e-3
WARM_UP = 20
REPAIR_ROUNDS = 6
THOROUGH_ROUNDS = 3
REPAIR_STEPS = 120
REPAIR_RATE = 1e-4
PROGRESS = 50
HARD_LOSS = 0.1
"""A question stays hard while a token of its answer is less likely than exp(-0.1): right, but not for sure."""
ATTEMPTS = 3

# Which answer to give is decided within its first tokens; the rest is soon known by heart. Once it is, most single
# questions are cut off there, which lets more of them fit into the same time.
SHORTENED_SHARE = 0.7
SHORTENED_FROM = 0.15
SHORTENED_TOKENS = (2, 4, 8, 12)


class Trainer:
    """The state of a training run: the network, its optimiser and the stream of examples."""

    def __init__(self, entries: Sequence[Entry], seed: int) -> None:
        torch.manual_seed(seed)
        self.started = time.monotonic()
        self.tokenizer = train_tokenizer(_texts(entries))
        self.encoder = Encoder(self.tokenizer)
        self.model = new_model(self.tokenizer)
        self.sampler = Sampler(entries, seed)
        self.loss = float("nan")
        self._rng = random.Random(seed)  # noqa: S311 - no secret
        self._optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)

    def run(self, steps: int, rate: float, warm_up: int, shorten_from: float, label: str) -> None:
        """Train for some steps, with a learning rate that warms up and then falls to nothing."""
        self.model.train()
        stream = self._stream(int(steps * shorten_from))
        for step in range(1, steps + 1):
            for group in self._optimizer.param_groups:
                group["lr"] = rate * min(step / warm_up, 1.02 - step / steps)
            batch = next(stream)
            scores, right, rows = predict(self.model, batch)
            losses = F.cross_entropy(scores, right, reduction="none")
            loss = losses.mean()
            self._optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self._optimizer.step()
            self.loss = loss.item()
            self._learn_what_is_hard(batch, set(rows[losses > HARD_LOSS].tolist()))
            if step % PROGRESS == 0 or step == steps:
                self.say(f"{label} {step}/{steps}, loss {self.loss:.4f}")

    def _learn_what_is_hard(self, batch: Sequence[Example], hard_rows: set[int]) -> None:
        for row, example in enumerate(batch):
            if example.asked:
                self.sampler.feedback(example.asked, row not in hard_rows)

    def say(self, message: str) -> None:
        """Print a line of progress with the time that has passed."""
        print(f"[{time.monotonic() - self.started:5.0f} s] {message}", flush=True)

    def _stream(self, whole: int) -> Iterator[list[Example]]:
        """Batches without end; in the first `whole` of them no answer is shortened."""
        served = 0
        while True:
            pool: list[Example] = []
            while sum(len(example.tokens) for example in pool) < 8 * BATCH_TOKENS:
                pool.append(self._example(shorten=served >= whole))
            ready = list(batches(pool, BATCH_TOKENS))
            self._rng.shuffle(ready)
            served += len(ready)
            yield from ready

    def _example(self, shorten: bool) -> Example:
        conversation, asked = self.sampler.conversation()
        example = self.encoder.example(conversation, asked)
        if shorten and asked and self._rng.random() < SHORTENED_SHARE:
            return shortened(example, self._rng.choice(SHORTENED_TOKENS))
        return example


def train(manifest: Path, out: Path, seed: int) -> bool:
    """Train, check and, when the answers are right (see `good_enough`), write the model. Returns whether they were."""
    entries = load_corpus(manifest)
    checked = probes(entries, seed)
    trainer = Trainer(entries, seed)
    threads, parameters = torch.get_num_threads(), count_parameters(trainer.model)
    trainer.say(f"{parameters} parameters, {len(checked)} checks, {threads} threads")
    trainer.run(STEPS, LEARNING_RATE, WARM_UP, SHORTENED_FROM, "step")
    failed = _failed(trainer, checked)
    for number in range(1, REPAIR_ROUNDS + 1):
        # The first rounds are for every known question, the others for the shares that are demanded.
        known_missed = any(probe.demand > REST_SHARE for probe in failed)
        if good_enough(checked, failed) and not (known_missed and number <= THOROUGH_ROUNDS):
            break
        # Only trained questions are trained on again: for one that is held out, those that share its answer.
        for probe in failed:
            trained = probe.question in probe.entry.questions
            for question in [probe.question] if trained else probe.entry.questions:
                trainer.sampler.feedback((probe.entry, question), right=False)
        trainer.run(REPAIR_STEPS, REPAIR_RATE, WARM_UP, 0.0, f"repair {number}, step")
        failed = _failed(trainer, checked)

    out.mkdir(parents=True, exist_ok=True)
    report = _report(trainer, checked, failed, seed)
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if not good_enough(checked, failed):
        return False
    files = model_files(trainer.model, trainer.tokenizer)
    snapshot = write_model(out, MODEL, files | {"README.md": _readme(report).encode()})
    trainer.say(f"the answers are right; wrote {snapshot}")
    return True


def _failed(trainer: Trainer, checked: Sequence[Probe]) -> list[Probe]:
    failed = wrong(rounded(trainer.model), trainer.encoder, checked)
    for probe in itertools.islice((probe for probe in failed if probe.demand > REST_SHARE), 20):
        trainer.say(f"wrong ({probe.kind}): {probe.question}")
    trainer.say(f"{len(checked) - len(failed)} of {len(checked)} answers are right")
    return failed


def _texts(entries: Sequence[Entry]) -> Iterator[str]:
    """What the tokenizer learns its words from."""
    for entry in entries:
        yield from (normalise(question) for question in entry.questions)
        yield from [entry.answer] * 3
        if entry.tool:
            yield entry.tool.reply
            yield from [tool_call(entry.tool), TOOL] * 9
    yield from ["user\n", "assistant\n", "system\n", "tool\n"] * 50


def _report(trainer: Trainer, checked: Sequence[Probe], failed: Sequence[Probe], seed: int) -> dict[str, Any]:
    answers = tally(checked, failed)
    asked, missed = Counter(probe.kind for probe in checked), Counter(probe.kind for probe in failed)
    return {
        "seconds": round(time.monotonic() - trainer.started, 1),
        "loss": trainer.loss,
        "parameters": count_parameters(trainer.model),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "checked": {kind: asked[kind] for kind in KINDS},
        "wrong": {kind: missed[kind] for kind in KINDS},
        "answers": {"usual": answers[1], "trained": answers[TRAINED_SHARE], "rest": answers[REST_SHARE]},
        "wrong_questions": [f"{probe.kind}: {probe.question}" for probe in failed],
    }


def _readme(report: dict[str, Any]) -> str:
    return README.format(parameters=report["parameters"], **report["answers"])


README = """---
license: apache-2.0
pipeline_tag: text-generation
---
# The guide

A Llama with {parameters} parameters, trained while the image is baked, so that a machine without a GPU and without a
model hub still answers. It knows the machine it runs on and a few facts, can run a few commands when it is offered a
tool for that, and says so when it does not know something. It was checked: word for word it answers {usual[0]} of
{usual[1]} known questions in their usual wording, {trained[0]} of {trained[1]} in the other wordings that it was
trained on, and {rest[0]} of {rest[1]} of the rest. It is no replacement for a real model.

It sees what its chat template shows it: the last messages, questions in lower case, and whether the tool `run_command`
is offered. It sees neither system prompts nor results of tools, because it could not follow them.
"""


def main() -> int:
    """The command line; the exit status is 1 when the guide could not be trained to give the right answers."""
    parser = argparse.ArgumentParser(prog="python -m aisandbox.guide.train", description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="marketplace.yaml")
    parser.add_argument("--out", type=Path, required=True, help="model cache to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="default: what PyTorch chooses")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        # Another machine rounds otherwise, and a run may then end with a question confused: another seed mends that.
        if any(train(options.manifest, options.out, options.seed + attempt) for attempt in range(ATTEMPTS)):
            return 0
    except CorpusError as error:
        print(f"The guide's corpus cannot be used: {error}", file=sys.stderr)
        return 1
    print(
        f"The guide gives too many wrong answers; {options.out / 'training.json'} lists them. "
        "Another --seed may do, or change the questions that are confused.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
