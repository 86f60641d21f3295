"""Check of a base before anything is trained, and what its architecture decides.

Every shape that the engine can run is a stack of decoder layers (`model.layers`) with rotary positions under an output
layer: Llama, Mistral, Qwen2, Qwen3, Gemma and their kin. All else is refused in one sentence.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from aligner_proxy.engine.gpu.stack import find_config_obstacle
from aligner_proxy.engine.weights import sources
from aligner_proxy.errors import AlignerProxyError
from aligner_proxy.text.structure import split
from models.train.base_model import prepare_source
from models.train.config import StageConfig
from models.train.train import list_linears

from .settings import RecipeError

REFERENCE_HIDDEN = 576
REFERENCE_LAYERS = 30
"""Of SmolLM2-135M, whose learning rates and first adapted layer stand in configs/train."""
_LARGE = 10**9
"""Parameters from which activations are computed again instead of kept."""
_SAMPLE = "The harbour opens at six. Bring a coat!\n\n- Boil the water.\n- Add the rice.\n\nIs it late? It is."


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What the base is, and what follows from that. `notes` say what is slower or less exact with it."""

    folder: str
    architecture: str
    parameters: int
    hidden: int
    layers: int
    positions: int
    linears: tuple[str, ...]
    tied: bool
    notes: tuple[str, ...]

    def derive(self, stage: StageConfig, processes: int) -> dict[str, object]:
        """The settings of a stage that depend on the base and the machine; they replace those in its config."""
        changes: dict[str, object] = {
            # Wider models take smaller steps; none takes larger ones than those that were tried.
            "lr": stage.lr * min(1.0, math.sqrt(REFERENCE_HIDDEN / self.hidden)),
            "max_tokens": min(stage.max_tokens, self.positions),
            "compile": stage.compile and (torch.cuda.is_available() or _has_compiler()),
            "gradient_checkpointing": stage.gradient_checkpointing or self.parameters > _LARGE,
            "accumulate": math.ceil(stage.accumulate / processes) * processes,
        }
        if stage.lora:
            first = stage.lora.first_layer * self.layers // REFERENCE_LAYERS
            changes["lora"] = stage.lora.model_copy(update={"first_layer": first}).model_dump()
        return changes


def find_base(name: str, work: Path) -> Path:
    """The folder of a base: a folder itself, one made from a GGUF, or one fetched from the hub.

    Raises `RecipeError` in one sentence.
    """
    if name.startswith("gguf:"):
        return Path(prepare_source(name, work))
    if Path(name).is_dir():
        return Path(name).resolve()
    if not sources.is_hub_id(name):
        raise RecipeError(f"base: {name} is no folder here, and no name on the hub (owner/name)")
    try:
        return sources.fetch(name)
    except AlignerProxyError as error:
        raise RecipeError(f"base: {error}") from None


def check_base(folder: Path) -> BaseFacts:
    """Check config, shape, tokenizer and weights; raises `RecipeError` for the first thing that rules the base out."""
    try:
        config: Any = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        # The last line says what is wrong, for example an odd size of heads.
        raise RecipeError(f"base: {folder} holds no model that writes text ({_last_line(error)})") from None
    _check_shape(model)
    notes = [*_check_tokenizer(folder, config)]
    obstacle = find_config_obstacle(config)
    if obstacle:
        notes.append(f"on a GPU the engine computes it by transformers, slower than by its own kernels: {obstacle}")
    tied = bool(config.tie_word_embeddings)
    _check_weights(folder, tied=tied)
    return BaseFacts(
        folder=str(folder),
        architecture=config.model_type,
        parameters=sum(weight.numel() for weight in model.parameters()),
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        positions=config.max_position_embeddings,
        linears=tuple(list_linears(model)),
        tied=tied,
        notes=tuple(notes),
    )


def _check_shape(model: Any) -> None:
    """Raise `RecipeError` for a model whose layers the engine cannot read."""
    stack = getattr(model, "model", None)
    kind = model.config.model_type
    if not all(hasattr(stack, name) for name in ("layers", "norm", "embed_tokens")) or not hasattr(model, "lm_head"):
        raise RecipeError(f"base: {kind} is no stack of decoder layers such as Llama's, which the engine needs")
    if not hasattr(stack, "rotary_emb"):
        raise RecipeError(f"base: {kind} has no rotary positions (rope), which the engine needs")
    for number, layer in enumerate(stack.layers):
        if not hasattr(layer, "self_attn") or not hasattr(layer, "mlp"):
            raise RecipeError(f"base: layer {number} of {kind} lacks attention or MLP; the engine needs both")


def _check_tokenizer(folder: Path, config: Any) -> list[str]:
    """Notes on the tokenizer for the model card: whether it merges the end of a segment with what follows.

    Raises `RecipeError` if it cannot be used: it does not say which characters a token stands for, has no end mark, or
    knows more tokens than the model.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise RecipeError(f"base: {folder} has no tokenizer ({_last_line(error)})") from None
    if not tokenizer.is_fast:
        raise RecipeError(f"base: the tokenizer in {folder} knows no characters; add tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise RecipeError(f"base: the tokenizer in {folder} has no end mark (eos_token), so no correction could end")
    if len(tokenizer) > config.vocab_size:
        raise RecipeError(f"base: the tokenizer knows {len(tokenizer)} tokens, the model {config.vocab_size} of them")
    borders = [segment.end for segment in split(_SAMPLE)][:-1]
    offsets = tokenizer(_SAMPLE, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    merged = sum(any(start < border < end for start, end in offsets) for border in borders)
    if merged:
        return [
            f"the tokenizer merges {merged} of {len(borders)} segment ends with what follows, which both segments read"
        ]
    return []


def _check_weights(folder: Path, *, tied: bool) -> None:
    """Raise `RecipeError` where a file of weights is missing or a tensor is not in it."""
    try:
        _, report = AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.bfloat16, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise RecipeError(f"base: the weights in {folder} cannot be read ({_last_line(error)})") from None
    missing = sorted(report["missing_keys"])
    if missing:
        embeddings = "" if tied else " (its config says that embeddings and output are not tied)"
        raise RecipeError(f"base: {folder} lacks weights, the first {missing[0]}{embeddings}")


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++"))
