"""A byte-level BPE tokenizer, trained on the corpus, with the tokens of ChatML and of Hermes tool calls."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (PAD, START, END)
# Not special: a client must see them, and vLLM's tool parser looks for them in the text.
MARKERS = ("<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

# A word keeps the space before it and its underscores, so that the names of tools and options are single tokens;
# digits stand alone.
WORDS = r" ?[\p{L}_]+|\p{N}| ?[^\s\p{L}\p{N}_]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn the merges from the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKERS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in MARKERS])
    return tokenizer


def answer_mask(ids: list[int], opening: list[int], closing: int) -> list[bool]:
    """Which tokens the assistant wrote: what follows each opening, up to and with the closing token."""
    mask = [False] * len(ids)
    inside = False
    for index, token in enumerate(ids):
        mask[index] = inside
        if inside and token == closing:
            inside = False
        elif ids[max(0, index + 1 - len(opening)) : index + 1] == opening:
            inside = True
    return mask
