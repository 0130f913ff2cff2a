"""Answers of a model that is held in memory, many at once, always the most likely words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 32


@dataclass(frozen=True)
class Answer:
    text: str
    whole: bool
    """Whether it ended by itself."""


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    tokens: int,
    say: Callable[[str], None] = print,
) -> list[Answer]:
    """What the model writes after each text, within so many tokens."""
    found: dict[int, Answer] = {}
    tokenizer.padding_side = "left"
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        inputs = tokenizer([texts[place] for place in places], return_tensors="pt", padding=True).to(model.device)
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        for place, ids in zip(places, made[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            ended = tokenizer.eos_token_id in ids
            text = tokenizer.decode(ids[: ids.index(tokenizer.eos_token_id)] if ended else ids)
            found[place] = Answer(text.strip(), ended)
        say(f"{min(start + BATCH, len(order))} of {len(order)} answered")
    return [found[place] for place in range(len(texts))]
