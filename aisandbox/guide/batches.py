"""Conversations as tensors: tokens, and which of them the assistant wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from aisandbox.guide.conversation import Conversation
from aisandbox.guide.corpus import Asked
from aisandbox.guide.tokenizer import END, START, answer_mask


@dataclass(frozen=True)
class Example:
    """One conversation in tokens; the model learns those that are marked."""

    tokens: list[int]
    learned: list[bool]
    asked: Asked | None = None


class Encoder:
    """Turns conversations into examples."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._opening: list[int] = tokenizer.encode(f"{START}assistant\n").ids
        self._closing: int = tokenizer.token_to_id(END)

    def example(self, conversation: Conversation, asked: Asked | None = None) -> Example:
        """The conversation as the chat template renders it."""
        tokens = self._tokenizer.encode(conversation.render()).ids
        return Example(tokens, answer_mask(tokens, self._opening, self._closing), asked)


def shortened(example: Example, answer_tokens: int) -> Example:
    """The example up to the first few tokens of its first answer."""
    end = example.learned.index(True) + answer_tokens
    return Example(example.tokens[:end], example.learned[:end], example.asked)


def batches(examples: Iterable[Example], tokens: int) -> Iterator[list[Example]]:
    """Examples of similar length together, so that little is padding; at most so many tokens in each batch."""
    batch: list[Example] = []
    for example in sorted(examples, key=lambda example: len(example.tokens)):
        if batch and (len(batch) + 1) * len(example.tokens) > tokens:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


def predict(model: LlamaForCausalLM, batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For every token that the assistant wrote: the scores of the model, the right token, the row of the batch."""
    width = max(len(example.tokens) for example in batch)
    # Padding stands on the right, where no earlier token attends to it, so it needs no mask.
    tokens = torch.tensor([example.tokens + [0] * (width - len(example.tokens)) for example in batch])
    learned = torch.tensor([example.learned + [False] * (width - len(example.learned)) for example in batch])[:, 1:]
    hidden = model.model(input_ids=tokens).last_hidden_state[:, :-1][learned]
    return model.lm_head(hidden), tokens[:, 1:][learned], learned.nonzero()[:, 0]
