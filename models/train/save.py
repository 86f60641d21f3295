"""What a stage leaves: adapter or whole model, detector head, and its config with the hash of its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from aligner_proxy.engine.weights.manifest import sha256

from .config import StageConfig
from .network import Network


def save(
    stage: StageConfig,
    network: Network,
    tokenizer: Any,
    weights: dict[str, Tensor] | None = None,
    folder: Path | None = None,
) -> None:
    """Write what the next stage and the export read: adapter or whole model, head, config and the data's hash.

    They go to `out`, or to another folder. `weights` are those of a network that is spread over processes.
    """
    out = folder or stage.out
    if weights is None:
        network.model.save_pretrained(str(out))
        network.head.save(out / "detector.safetensors")
    else:
        if network.causal.config.tie_word_embeddings:
            weights.pop("model.lm_head.weight", None)  # the same tensor as the embeddings
        network.model.save_pretrained(str(out), state_dict=_select_prefix("model.", weights))
        save_file(_select_prefix("head.", weights), str(out / "detector.safetensors"))
    if stage.lora is None:
        tokenizer.save_pretrained(str(out))
    document = {"config": stage.model_dump(mode="json"), "data_sha256": sha256(stage.data)}
    (out / "stage.json").write_text(json.dumps(document, indent=1))


def _select_prefix(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    selected = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return {name: tensor.contiguous() for name, tensor in selected.items()}
