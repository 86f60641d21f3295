"""Llama models of known sizes with random weights, created on the fly; their output is meaningless.

Speed and memory do not depend on the values of weights, and two equal ways of decoding are equal for any weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import nn

from aligner_proxy.engine.model import acceleration, cpu_kernels
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.runner import AdapterWeights, ModelRunner
from aligner_proxy.engine.model.tokenizer import PromptTokenizer

VOCABULARY = 32_000
EOS = 2
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4},
    "135M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9},
    "1.1B": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32},
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13B": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}
_KEY_HEADS = {"tiny": 2, "135M": 3, "1.1B": 4}
_POSITIONS = {"tiny": 1024}
"""On a CPU, attention of recorded forward passes reads as many places as there may be; others have 4096."""


def count_key_heads(shape: str) -> int:
    """The number of key heads."""
    return _KEY_HEADS.get(shape, SHAPES[shape]["num_attention_heads"])


def make_model(
    shape: str,
    device: str,
    dtype: torch.dtype,
    *,
    layers: int | None = None,
    four_bits: bool = False,
    words: int = VOCABULARY,
) -> Any:
    """Create a model of this shape; `layers` limits the layers, `four_bits` quantises them to NF4."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"num_key_value_heads": _KEY_HEADS.get(shape), **SHAPES[shape]}
    sizes |= {"num_hidden_layers": layers} if layers else {}
    config = LlamaConfig(
        vocab_size=words, max_position_embeddings=_POSITIONS.get(shape, 4096), initializer_range=0.05, **sizes
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model: Any = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.eval()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = EOS
    if four_bits:
        for layer in model.model.layers:
            _quantise(layer, device)
        cpu_kernels.install(model)
    return model


def _quantise(layer: nn.Module, device: str) -> None:
    """Replace every linear layer inside by an NF4 one, with its scales quantised as well."""
    import bitsandbytes

    kinds: Any = bitsandbytes.nn
    options = {"compute_dtype": torch.bfloat16, "quant_type": "nf4", "device": "meta"}
    for parent in list(layer.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                four = kinds.Linear4bit(child.in_features, child.out_features, bias=False, **options)
                four.weight = kinds.Params4bit(child.weight.data, requires_grad=False, quant_type="nf4").to(device)
                setattr(parent, name, four.eval())


def make_runner(
    model: Any,
    tokens: int,
    head: DetectorHead | None = None,
    others: Sequence[AdapterWeights] = (),
    *,
    accelerated: bool = True,
) -> ModelRunner:
    """The engine's runner for the model, as it is loaded on this device; its tokenizer knows no text."""
    runner = ModelRunner(model, PromptTokenizer(Tokenizer(models.BPE()), frozenset({EOS})), head, tokens, others)
    if accelerated and model.device.type == "cuda":
        acceleration.accelerate(runner)
    return runner
