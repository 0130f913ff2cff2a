"""Texts as vectors, in the worker's process: the mean of what the model makes of a text's tokens, of length one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST = 256
"""Tokens, of which two frame the text: the model has learnt from no longer ones (its sentence_bert_config.json)."""
BATCH = 32

_loaded: dict[str, Any] = {}


@dataclass(frozen=True)
class Embedded:
    """Vectors as float32 in the machine's order of bytes, and the number of tokens of every text."""

    vectors: list[bytes]
    tokens: list[int]


def load(folder: Path) -> None:
    """Prepare this process."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertModel

    _loaded["model"] = BertModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    _loaded["tokenizer"] = Tokenizer.from_file(str(folder / "tokenizer.json"))
    _loaded["tokenizer"].no_padding()
    _loaded["tokenizer"].no_truncation()


def embed(texts: list[str], *, shorten: bool) -> Embedded:
    """The texts' vectors. Those that are too long are shortened, or have none.

    Args:
        shorten: otherwise a text of more than `LONGEST` tokens gets no vector: nothing is embedded then.
    """
    encoded = [encoding.ids for encoding in _loaded["tokenizer"].encode_batch(texts)]
    tokens = [len(ids) for ids in encoded]
    if not shorten and max(tokens) > LONGEST:
        return Embedded([], tokens)
    kept = [[*ids[: LONGEST - 1], ids[-1]] if len(ids) > LONGEST else ids for ids in encoded]
    vectors = [b""] * len(texts)
    # Texts of like length share a batch, so that little of it is padding.
    order = sorted(range(len(texts)), key=lambda place: len(kept[place]))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        for place, vector in zip(places, _batch([kept[place] for place in places]), strict=True):
            vectors[place] = vector
    return Embedded(vectors, [len(ids) for ids in kept])


def _batch(encoded: list[list[int]]) -> list[bytes]:
    import torch

    width = max(map(len, encoded))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in encoded])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in encoded])
    with torch.inference_mode():
        states = _loaded["model"](input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).float()
        means = (states * weight).sum(1) / weight.sum(1)
        vectors = torch.nn.functional.normalize(means)
    return [vector.numpy().tobytes() for vector in vectors]
