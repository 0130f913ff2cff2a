"""Trains a LoRA adapter on conversations, with peft; on a GPU when there is one."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from aisandbox.teaching.adapter import Adapter
from aisandbox.teaching.conversations import IGNORED, Encoded, batches
from aisandbox.teaching.recipe import Recipe

POOL = 64
"""Batches that are sorted by length together; their order is random again."""
SAY_SECONDS = 15.0


def fast_type() -> torch.dtype:
    """bfloat16 where GPU or processor have instructions for it; others would convert every number, and back."""
    told = torch.cpu.get_capabilities()
    able = torch.cuda.is_available() or any(told.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if able else torch.float32


def train(
    model: PreTrainedModel,
    epochs: Sequence[Sequence[Encoded]],
    recipe: Recipe,
    pad: int,
    say: Callable[[str], None] = print,
    after_epoch: Callable[[PeftModel], None] | None = None,
    begin: Adapter | None = None,
) -> PeftModel:
    """Teach the model; returns it with its adapter.

    Args:
        epochs: what is shown in each of the recipe's epochs; they may differ.
        say: is told of the progress.
        after_epoch: is given the model after each of them, to keep what was learned so far.
        begin: what was learned before, by the same rank and scale.
    """
    torch.manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        # A fifth faster than PyTorch's fused attention on texts as short as conversations.
        model.set_attn_implementation("eager")
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.scale * recipe.rank, target_modules=recipe.targets, task_type="CAUSAL_LM"
    )
    taught = get_peft_model(model.to(device), config)
    order = random.Random(recipe.seed)  # noqa: S311 - no secret
    if begin:
        _put(taught, begin)
    plans = [_plan(epoch, recipe, order) for epoch in epochs]
    steps, ends = sum(map(len, plans)), set(itertools.accumulate(map(len, plans)))
    learned = [parameter for parameter in taught.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps, recipe.warm_up))
    taught.train()
    dtype = fast_type()
    started = said = time.monotonic()
    losses: list[float] = []
    for step, batch in enumerate(itertools.chain(*plans), start=1):
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = _loss(taught, batch, pad, device)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        if time.monotonic() - said > SAY_SECONDS or step == steps:
            said = time.monotonic()
            left = (said - started) / step * (steps - step)
            say(f"step {step} of {steps}, loss {sum(losses[-50:]) / len(losses[-50:]):.3f}, {left / 60:.0f} min left")
        if after_epoch and step in ends:
            after_epoch(taught)
    return taught.eval()


def adapter_of(taught: PeftModel, recipe: Recipe, made_from: str) -> Adapter:
    """What the model learned, by the names that its weights have without peft."""
    pairs = {name: (a.detach().cpu(), b.detach().cpu()) for name, a, b in _pairs(taught)}
    return Adapter(pairs, recipe.scale, made_from)


def _put(taught: PeftModel, learned: Adapter) -> None:
    with torch.no_grad():
        for name, a, b in _pairs(taught):
            for parameter, value in zip((a, b), learned.pairs[name], strict=True):
                parameter.copy_(value)


def _pairs(taught: PeftModel) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    for name, layer in taught.named_modules():
        if hasattr(layer, "lora_A") and "default" in layer.lora_A:
            a, b = (side["default"].weight for side in (layer.lora_A, layer.lora_B))
            yield name.removeprefix("base_model.model.") + ".weight", a, b


def _plan(epoch: Sequence[Encoded], recipe: Recipe, order: random.Random) -> list[list[Encoded]]:
    """An epoch's batches in their order."""
    examples = list(epoch)
    order.shuffle(examples)
    size = max(1, POOL * recipe.batch_tokens // max(len(example.tokens) for example in examples))
    ready = [
        batch
        for start in range(0, len(examples), size)
        for batch in batches(examples[start : start + size], recipe.batch_tokens)
    ]
    order.shuffle(ready)
    return ready


def _share(step: int, steps: int, warm_up: float) -> float:
    """Of the highest learning rate."""
    rising = max(1, int(steps * warm_up))
    if step < rising:
        return (step + 1) / rising
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _loss(model: PeftModel, batch: Sequence[Encoded], pad: int, device: torch.device) -> torch.Tensor:
    length = max(len(example.tokens) for example in batch)
    tokens = torch.tensor([example.tokens + [pad] * (length - len(example.tokens)) for example in batch])
    labels = torch.tensor([example.labels + [IGNORED] * (length - len(example.labels)) for example in batch])
    mask = torch.tensor([[1] * len(example.tokens) + [0] * (length - len(example.tokens)) for example in batch])
    hidden = model.base_model.model.model(tokens.to(device), attention_mask=mask.to(device)).last_hidden_state
    # Scores are only made where something is to be learned: the vocabulary is most of the work of so small a model.
    labels = labels[:, 1:].to(device)
    where = labels != IGNORED
    scores = model.get_output_embeddings()(hidden[:, :-1][where])
    return cross_entropy(scores.float(), labels[where])
