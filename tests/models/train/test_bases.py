"""The configs for larger bases, by shape: nothing is downloaded, no weight is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from models.train import train
from models.train.config import Stage

BASES = Path(__file__).resolve().parents[3] / "configs" / "train" / "bases"
# Hidden size, intermediate size, layers, heads, key-value heads, vocabulary: of each model's config.json.
SHAPES = {
    "HuggingFaceTB/SmolLM2-360M-Instruct": (960, 2560, 32, 15, 5, 49152),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": (2048, 8192, 24, 32, 32, 49152),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": (2048, 5632, 22, 32, 4, 32000),
}
MAX_MB = {"smollm2-360m": 25, "smollm2-1.7b": 40, "tinyllama-1.1b": 30}


def of_shape(base: str, _work: Path, _precision: str) -> tuple[Any, None]:
    hidden, inner, layers, heads, shared, words = SHAPES[base]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        vocab_size=words,
        tie_word_embeddings="SmolLM2" in base,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config), None


@pytest.mark.parametrize("path", sorted(BASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_larger_base_is_trained_by_its_config(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage.read(path)
    monkeypatch.setattr(train, "load_base", of_shape)
    network, _ = train.build(stage)
    assert network.head.ends
    assert network.head.fits(network.causal.config)
    assert stage.lora is not None
    adapter = [p for p in network.model.parameters() if p.requires_grad]
    layers = network.causal.config.num_hidden_layers - stage.lora.first_layer
    assert len(adapter) == 2 * len(train.LINEARS) * layers
    assert 2 * sum(p.numel() for p in adapter) < MAX_MB[path.stem] * 1e6  # stored in bf16


def test_there_is_one_for_every_base() -> None:
    assert {Stage.read(path).base for path in BASES.glob("*.yaml")} == set(SHAPES)
    assert {path.stem for path in BASES.glob("*.yaml")} == set(MAX_MB)
