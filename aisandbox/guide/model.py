"""The network: a plain Llama of about two million parameters, and the files that a hub model consists of."""

from __future__ import annotations

import json
from typing import Any

import safetensors.torch
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from aisandbox.guide.conversation import CHAT_TEMPLATE
from aisandbox.guide.tokenizer import END, PAD, VOCABULARY

CONTEXT = 8192


def new_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A fresh network. Wide and flat: on few cores two wide layers learn faster than four narrow ones."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,  # one of the sizes that vLLM's attention on CPUs supports
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def count_parameters(model: LlamaForCausalLM) -> int:
    """The number of trained weights; the tied embedding counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_files(model: LlamaForCausalLM, tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files of the model, by name, in the form that transformers and vLLM load."""
    tokens = {"eos_token": END, "pad_token": PAD}
    ids = {"eos_token_id": tokenizer.token_to_id(END), "pad_token_id": tokenizer.token_to_id(PAD)}
    config = model.config.to_dict()
    config |= {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "use_cache": True}
    weights = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    return {
        "config.json": _json(config),
        # Greedy unless the client asks otherwise: the same question gets the same answer.
        "generation_config.json": _json({"do_sample": False, "temperature": 0.0, **ids}),
        "model.safetensors": safetensors.torch.save(weights, metadata={"format": "pt"}),
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": _json(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
                "model_max_length": CONTEXT,
                **tokens,
            }
        ),
        "special_tokens_map.json": _json(tokens),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
    }


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
