"""Asks the guide's base in memory: questions and their tokens from standard input, answers to standard output, as JSON.

Runs in vLLM's environment, beside the packages of the lock `guide`.
"""

from __future__ import annotations

import json
import sys

from aisandbox.guide.teach import ASKED, base_model
from aisandbox.teaching.answering import answers


def main() -> None:
    """Answer; what was cut off counts as an empty answer."""
    asked = json.load(sys.stdin)
    model, tokenizer = base_model()
    texts = [ASKED.format(question) for question, _ in asked]
    # Many processors compute float32 faster than the model's own bfloat16.
    said = answers(model.float(), tokenizer, texts, max(tokens for _, tokens in asked), lambda _: None)
    json.dump([each.text if each.whole else "" for each in said], sys.stdout)


if __name__ == "__main__":
    main()
