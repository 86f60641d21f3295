"""Tiny random bases of the architectures that aligners are trained on, as folders such as one gets from a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from tests.support import tiny

CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma": GemmaConfig,
    "gemma2": Gemma2Config,
    "gemma3": Gemma3TextConfig,
}


def save_base(folder: Path, kind: str, **changes: object) -> Path:
    """One of `CONFIGS` with random weights and a tokenizer."""
    shape: dict[str, object] = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 8192,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind](**(shape | changes)))
    model.save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tiny.backend(), bos_token="<|im_start|>", eos_token="<|im_end|>")
    fast.save_pretrained(folder)
    return folder
