"""Teaches a small model three sentences with `aisandbox.teaching`, and tells what came of it as JSON.

Runs in vLLM's environment, beside the packages of the lock `guide`: `python -m tests.support.teach_a_little FOLDER`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from aisandbox.teaching import adapter as adapters
from aisandbox.teaching.answering import answers
from aisandbox.teaching.conversations import encode, read_jsonl
from aisandbox.teaching.recipe import Recipe
from aisandbox.teaching.training import adapter_of, train
from tests.support import models

LESSONS = {"Who are you?": "Your guide.", "Where is the chat?": "On port 3000.", "hi": "Hello!"}
RECIPE = Recipe(
    rank=16, scale=2, targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    learning_rate=0.01, warm_up=0.05, epochs=150, batch_tokens=512, seed=1,
)  # fmt: skip


def main() -> None:
    """Teach, save, load, merge and ask."""
    folder = Path(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(models.write(folder / "tokenizer"))
    torch.manual_seed(1)
    sizes = {
        **models.CONFIG,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, "head_dim": 64}))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}

    def render(messages: Sequence[dict[str, Any]], _: Sequence[dict[str, Any]], answering: bool) -> str:
        text: str = tokenizer.apply_chat_template(list(messages), add_generation_prompt=answering, tokenize=False)
        return text

    file = folder / "lessons.jsonl"
    turns = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in LESSONS.items()
    ]
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    encoded = [encode(lesson, render, tokenizer.encode, models.END) for lesson in read_jsonl(file)]
    said: list[str] = []
    kept: list[int] = []
    taught = train(
        model, [encoded] * RECIPE.epochs, RECIPE, tokenizer.pad_token_id, said.append, lambda _: kept.append(1)
    )
    path = folder / "adapter.safetensors"
    adapter_of(taught, RECIPE, "digest").save(path)
    found = adapters.load(path)

    merged = LlamaForCausalLM(model.config)
    merged.load_state_dict({**before, **found.merge({name: before[name] for name in found.pairs})})
    asked = [render(messages[:1], [], True) for messages in turns]
    print(
        json.dumps(
            {
                "learned": list(LESSONS.values()),
                "answers": [each.text for each in answers(merged.eval(), tokenizer, asked, 20, lambda _: None)],
                "made_from": found.made_from,
                "changed": sorted({name.split(".")[-2] for name in found.pairs}),
                "targets": sorted(RECIPE.targets),
                "progress": said[-1],
                "epochs": (len(kept), RECIPE.epochs),
                "refused": _refusals(found, before, folder),
            }
        )
    )


def _refusals(found: adapters.Adapter, weights: dict[str, torch.Tensor], folder: Path) -> list[str]:
    """What is said of weights that it does not belong to, and of files that are none."""
    (folder / "empty.safetensors").touch()
    wrong: list[Callable[[], object]] = [
        lambda: found.merge({}),
        lambda: found.merge({name: weight[:1] for name, weight in weights.items()}),
        lambda: adapters.load(folder / "empty.safetensors"),
        lambda: adapters.load(folder / "nowhere.safetensors"),
        lambda: adapters.load(folder / "tokenizer" / "model.safetensors"),
    ]
    told = []
    for attempt in wrong:
        try:
            attempt()
        except adapters.AdapterError as error:
            told.append(str(error))
    return told


if __name__ == "__main__":
    main()
