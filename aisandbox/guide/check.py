"""Does the guide give exactly the right answers?

Greedy decoding gives an answer exactly when each of its tokens is the most likely one after those before it, so one
pass over question and answer checks what generating it token by token would. A margin between the best and the second
best token keeps the answer the same under the rounding of other machines and of bfloat16.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM

from aisandbox.guide.batches import Encoder, Example, batches, predict
from aisandbox.guide.conversation import Conversation
from aisandbox.guide.corpus import Entry

MARGIN = 0.1
BATCH_TOKENS = 4096
TRAINED_SHARE = 0.995
"""Share of right answers wanted to known questions in the other wordings that were trained on."""
REST_SHARE = 0.95
"""Share wanted of the rest: in words never trained on, late in conversations, and to what it does not know."""
KINDS = ("trained", "held out", "tool calls", "tool replies", "conversations")


@dataclass(frozen=True)
class Probe:
    """A conversation whose answers are checked; named by its last question."""

    kind: str
    entry: Entry
    question: str
    conversation: Conversation

    @property
    def demand(self) -> float:
        """Share of right answers that is wanted among the probes of the same demand; 1 allows no wrong one.

        That is for known questions in their usual wording, the first one.
        """
        if self.entry.fallback or self.kind not in ("trained", "tool calls", "tool replies"):
            return REST_SHARE
        return 1 if self.question == self.entry.questions[0] else TRAINED_SHARE


def tally(checked: Sequence[Probe], failed: Sequence[Probe]) -> dict[float, tuple[int, int]]:
    """Right and all answers, by what is demanded of them."""
    asked, missed = (Counter(probe.demand for probe in probes) for probes in (checked, failed))
    return {demand: (count - missed[demand], count) for demand, count in asked.items()}


def good_enough(checked: Sequence[Probe], failed: Sequence[Probe]) -> bool:
    """Every usual question is answered exactly, and nearly every other."""
    return all(right >= demand * count for demand, (right, count) in tally(checked, failed).items())


def probes(entries: Sequence[Entry], seed: int) -> list[Probe]:
    """All that is checked: each question alone, with and without the tool, and questions late in conversations."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    return [*_single(entries), *_tools(entries), *_conversations(entries, rng)]


def _single(entries: Sequence[Entry]) -> Iterator[Probe]:
    for entry in entries:
        for kind, questions in (("trained", entry.questions), ("held out", entry.held_out)):
            for question in questions:
                for offered in (False, True):
                    if not (offered and entry.tool):
                        conversation = Conversation(offered=offered)
                        conversation.ask(entry, question)
                        yield Probe(kind, entry, question, conversation)


def _tools(entries: Sequence[Entry]) -> Iterator[Probe]:
    """Each question that the tool answers: its call, and the reply to what it returns."""
    for entry in entries:
        for question in (*entry.questions, *entry.held_out) if entry.tool else ():
            for kind, run in (("tool calls", False), ("tool replies", True)):
                conversation = Conversation(offered=True)
                conversation.ask(entry, question, run=run)
                yield Probe(kind, entry, question, conversation)


def _conversations(entries: Sequence[Entry], rng: random.Random) -> Iterator[Probe]:
    """Each entry as the last of two to four questions, half of the time with the tool on offer."""
    for entry in entries:
        conversation = Conversation(offered=rng.random() < 0.5)
        earlier = rng.choices(entries, k=rng.randint(1, 3))
        for turn in (*earlier, entry):
            question = rng.choice(turn.held_out or turn.questions)
            conversation.ask(turn, question)
        yield Probe("conversations", entry, question, conversation)


def rounded(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """A copy with the weights as they are saved: rounded to bfloat16."""
    return copy.deepcopy(model).to(torch.bfloat16).float().eval()


def wrong(model: LlamaForCausalLM, encoder: Encoder, checked: Sequence[Probe]) -> list[Probe]:
    """The probes that the model does not answer exactly."""
    probe_of: dict[int, Probe] = {}
    examples: list[Example] = []
    for probe in checked:
        example = encoder.example(probe.conversation)
        examples.append(example)
        probe_of[id(example)] = probe
    failed: list[Probe] = []
    for batch in batches(examples, BATCH_TOKENS):
        with torch.no_grad():
            scores, right, rows = predict(model, batch)
        right = right.unsqueeze(1)
        score = scores.gather(1, right)
        best_other = scores.scatter(1, right, float("-inf")).max(1, keepdim=True).values
        bad = (score - best_other < MARGIN).squeeze(1)
        failed += [probe_of[id(batch[row])] for row in sorted(set(rows[bad].tolist()))]
    return failed
