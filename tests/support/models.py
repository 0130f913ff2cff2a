"""A real model of a few megabytes for the tests' hubs: a Llama with a vocabulary of bytes that says one sentence.

Its layers add nothing, so that the next token follows from the last one alone: of any byte the sentence begins, and
each of its letters, all different, leads to the next one.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

SAYS = "Tiny."
WIDTH, LAYERS, HEADS = 320, 2, 5
CONTEXT = 4096
START, END = "<|im_start|>", "<|im_end|>"
START_ID, END_ID, VOCABULARY = 256, 257, 258
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "bos_token_id": START_ID,
    "dtype": "bfloat16",
    "eos_token_id": END_ID,
    "head_dim": WIDTH // HEADS,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "max_position_embeddings": CONTEXT,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": HEADS,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": VOCABULARY,
}
ONE, ZERO = b"\x80\x3f", b"\x00\x00"
"""In bfloat16."""


def write(folder: Path) -> Path:
    """Write the model's files into the folder, which is made."""
    folder.mkdir(parents=True)
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = [
        {"id": number, "content": text, "special": True, **plain} for number, text in ((START_ID, START), (END_ID, END))
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = {
        "version": "1.0",
        "added_tokens": special,
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": {letter: number for number, letter in enumerate(_letters())}, "merges": []},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "model.safetensors").write_bytes(_safetensors(_weights()))
    return folder


def _letters() -> list[str]:
    """How byte-level tokenizers write each byte: itself where that can be printed, else a letter from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    further = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(further)) for byte in range(256)]


def _weights() -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Shapes and contents, by the names of transformers' Llama."""
    begin, *others = SAYS.encode()
    following = {**dict.fromkeys(range(VOCABULARY), begin), **dict(zip(SAYS.encode(), [*others, END_ID], strict=True))}
    weights = {
        "model.embed_tokens.weight": _matrix(VOCABULARY, {number: [number] for number in range(VOCABULARY)}),
        "model.norm.weight": ((WIDTH,), ONE * WIDTH),
        "lm_head.weight": _matrix(
            VOCABULARY, {after: [b for b in following if following[b] == after] for after in following.values()}
        ),
    }
    shapes = {
        **{f"self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"},
        **{f"mlp.{name}_proj.weight": (2 * WIDTH, WIDTH) for name in ("gate", "up")},
        "mlp.down_proj.weight": (WIDTH, 2 * WIDTH),
    }
    for layer in range(LAYERS):
        for name, (rows, columns) in shapes.items():
            weights[f"model.layers.{layer}.{name}"] = ((rows, columns), ZERO * rows * columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = ((WIDTH,), ONE * WIDTH)
    return weights


def _matrix(rows: int, ones: dict[int, list[int]]) -> tuple[tuple[int, int], bytes]:
    """Zero but for these columns of these rows."""
    content = bytearray(ZERO * rows * WIDTH)
    for row, columns in ones.items():
        for column in columns:
            place = 2 * (row * WIDTH + column)
            content[place : place + 2] = ONE
    return (rows, WIDTH), bytes(content)


def _safetensors(tensors: dict[str, tuple[tuple[int, ...], bytes]]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (shape, content) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(content for _, content in tensors.values())])
