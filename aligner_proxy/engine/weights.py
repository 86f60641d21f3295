"""From a model's name to a loaded aligner: resolve, prepare once, load.

    aligner = open_aligner(Settings("embedded"), home)

Preparation (merging, quantising) happens the first time, takes a while and is stored under `home`; afterwards the
stored weights are checked and loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_proxy import prompts
from aligner_proxy.engine import manifest, sources
from aligner_proxy.engine.correct import Aligner
from aligner_proxy.engine.detector import DetectorHead
from aligner_proxy.engine.protocol import AlignerInfo
from aligner_proxy.engine.runner import ModelRunner
from aligner_proxy.engine.store import Prepared, Store
from aligner_proxy.engine.tokens import PromptTokenizer
from aligner_proxy.errors import WeightsError

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """Which aligner, and how it computes. `template` only for models that do not name theirs; 0 threads: as torch."""

    model: str | Path = "embedded"
    template: str | None = None
    quantization: Literal["nf4", "none"] = "nf4"
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    threads: int = 0


def open_aligner(settings: Settings, home: Path, progress: Progress = lambda _: None) -> Aligner:
    """Prepare if need be, and load. Raises `WeightsError` or `ConfigError`."""
    prepared, folder = prepare(settings, home, progress)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    progress("loading")
    runner = load(folder, settings)
    family = prompts.template(prepared.template)
    return Aligner(
        runner,
        AlignerInfo(
            model=prepared.model,
            content_hash=prepared.content_hash,
            template=family.name,
            template_hash=family.hash,
            window=min(prepared.window, runner.positions),
            has_head=runner.has_head,
            quantization=prepared.quantization,
            device=runner.device,
        ),
    )


def prepare(settings: Settings, home: Path, progress: Progress = lambda _: None) -> tuple[Prepared, Path]:
    """Weights in the form in which they are loaded, made now if they are not in the store."""
    store = Store(home)
    if sources.is_hub_id(settings.model) and (known := _recalled(store, settings)):
        return known
    progress("reading the files")
    source = sources.resolve(settings.model, settings.template)
    prepared = describe(source, settings.quantization)
    if settings.quantization == "none" and not (source.adapter or source.base.gguf):
        # Nothing to change about a full model: a copy of many gigabytes would gain nothing.
        return prepared, source.base.folder
    folder = store.find(prepared)
    if folder is None:
        progress("merging and quantising, this happens once")
        folder = store.make(prepared, partial(_fill, source, settings.quantization))
    if sources.is_hub_id(settings.model):
        store.remember(str(settings.model), prepared)
    return prepared, folder


def _fill(source: sources.Source, quantization: str, folder: Path) -> None:
    # Imported here: what merging and quantising need costs seconds, and most starts only load.
    from aligner_proxy.engine import quantise

    quantise.fill(source, quantization, folder)


def _recalled(store: Store, settings: Settings) -> tuple[Prepared, Path] | None:
    known = store.recall(str(settings.model), settings.quantization)
    if known is None or settings.template not in (None, known.template):
        return None
    folder = store.find(known)
    return (known, folder) if folder else None


def describe(source: sources.Source, quantization: str) -> Prepared:
    """What the weights will be called; the hash covers everything that changes what they say."""
    family = prompts.template(source.template)
    parts = {"files": source.identity, "template": family.hash, "window": source.window, "quantization": quantization}
    return Prepared(source.model, manifest.digest(parts), family.name, source.window, quantization)


def load(folder: Path, settings: Settings) -> ModelRunner:
    """Load prepared weights, on CUDA where there is one. Raises `WeightsError` naming the folder."""
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), device_map=device, dtype=_dtype(settings), local_files_only=True
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        head = _head(folder / manifest.HEAD, model)
    except (OSError, ValueError, KeyError, json.JSONDecodeError, SafetensorError) as error:
        raise WeightsError(
            f"{folder} cannot be loaded ({type(error).__name__}: {error}); fetch or export it again"
        ) from error
    return ModelRunner(model, PromptTokenizer(tokenizer.backend_tokenizer, _eos_ids(model, tokenizer, folder)), head)


def _head(path: Path, model: Any) -> DetectorHead | None:
    if not path.exists():
        return None
    head = DetectorHead.load(path)
    if not head.fits(model.config):
        raise ValueError("its detector head is of another base model")
    return head


def _dtype(settings: Settings) -> torch.dtype:
    """4-bit kernels compute in bf16; without them fp32 is exact on CPU, and bf16 is what a GPU does well."""
    if settings.dtype != "auto":
        return torch.float32 if settings.dtype == "fp32" else torch.bfloat16
    return torch.bfloat16 if settings.quantization == "nf4" or torch.cuda.is_available() else torch.float32


def _eos_ids(model: Any, tokenizer: Any, folder: Path) -> frozenset[int]:
    told = model.generation_config.eos_token_id
    ids = told if isinstance(told, list) else [told, tokenizer.eos_token_id]
    found = frozenset(int(i) for i in ids if i is not None)
    if not found:
        raise WeightsError(f"{folder} names no end-of-text token; set eos_token_id in its generation_config.json")
    return found
