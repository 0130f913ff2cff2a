"""Tokens a second of a model that transformers holds: `python -m tests.bench.guide_plain MODEL TOKENS ROUNDS`, as JSON.

Runs in vLLM's environment.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from transformers import AutoTokenizer, LlamaForCausalLM


def main() -> None:
    """The first round is to warm up."""
    folder, tokens, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    inputs = AutoTokenizer.from_pretrained(folder)("Once upon a time", return_tensors="pt")
    found = []
    for _ in range(rounds + 1):
        begin = time.monotonic()
        model.generate(**inputs, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False)
        found.append(tokens / (time.monotonic() - begin))
    json.dump(found[1:], sys.stdout)


if __name__ == "__main__":
    main()
