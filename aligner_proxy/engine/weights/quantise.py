"""Preparation of weights: read the base, merge the adapter, quantise, and save the result for later loading.

A 4-bit model is saved before its first forward pass and never again. Saving it after a forward pass, or after loading
it, loses precision (docs of the 4-bit library, measured). Only preparation runs this module.
"""

from __future__ import annotations

import contextlib
import gc
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from aligner_proxy.engine.weights import manifest
from aligner_proxy.engine.weights.sources import ModelSource

_GGUF_BYTES = 4.5
"""Bytes on the disk for each number of a base in a GGUF file: four while it is merged, and half a byte afterwards."""


def fill(source: ModelSource, quantization: str, folder: Path, check_room: Callable[[float], None]) -> None:
    """Prepare `source` and write its model, tokenizer and heads into `folder`.

    `quantization` is "nf4", or other text for weights that stay as they are. `check_room` is called with the bytes that
    a base in a GGUF file will need on the disk, because only the file tells its size; it raises if there is no room.
    """
    merged_folder = folder / "merged"
    reading_once = _parse_gguf_once() if source.base.gguf else contextlib.nullcontext()
    with reading_once:
        if source.base.gguf:
            check_room(_count_numbers(source.base.folder / source.base.gguf) * _GGUF_BYTES)
        plain_folder = source.base.folder
        # a base in a GGUF file is rewritten, too, because both steps below read a plain model folder
        if source.adapter or source.base.gguf:
            plain_folder = merge(source, merged_folder)
        tokenizer = load_tokenizer(source)
    if quantization == "nf4":
        _save_nf4(plain_folder, folder)
    else:
        shutil.copytree(plain_folder, folder, dirs_exist_ok=True)
    shutil.rmtree(merged_folder, ignore_errors=True)
    tokenizer.save_pretrained(str(folder))
    if source.head:
        shutil.copyfile(source.head, folder / manifest.HEAD)
    if source.taught_heads:
        shutil.copyfile(source.taught_heads, folder / manifest.TAUGHT)
    gc.collect()  # frees the models that were read


def _count_numbers(file: Path) -> int:
    """Return the number of weights in a GGUF file."""
    import gguf

    return sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(str(file)).tensors)


@contextlib.contextmanager
def _parse_gguf_once() -> Iterator[None]:
    """Within this context, parse a GGUF file only once, and make its table of names only once.

    Otherwise transformers parses the file for the configuration, the weights and the tokenizer, and makes the table for
    every module of the model, which takes twice as long as all other steps of preparing the embedded aligner.
    """
    import gguf

    # replaced in the library's module, so that transformers calls the versions that remember their results
    originals = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    vars(gguf).update({name: cache(function) for name, function in originals.items()})
    try:
        yield
    finally:
        vars(gguf).update(originals)


def merge(source: ModelSource, folder: Path) -> Path:
    """Merge the adapter, if there is one, into the base, save the model to `folder`, and return the folder.

    Merging is done in fp32, because fewer bits would round the adapter away.
    """
    gguf_option = {"gguf_file": source.base.gguf} if source.base.gguf else {}
    model: Any = AutoModelForCausalLM.from_pretrained(str(source.base.folder), dtype=torch.float32, **gguf_option)
    # a model read from a GGUF file is still marked as quantised, so that saving it would fail
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if source.adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(source.adapter)).merge_and_unload()
    model.save_pretrained(str(folder))
    return folder


def _save_nf4(plain_folder: Path, folder: Path) -> None:
    """Load `plain_folder` in 4 bits, and save it before a forward pass could lose precision (module docstring)."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(plain_folder),
        quantization_config=make_nf4_config(),
        dtype=torch.bfloat16,
        device_map="cuda:0" if torch.cuda.is_available() else "cpu",
    )
    model.save_pretrained(str(folder))


def make_nf4_config(unquantised_layers: list[str] | None = None) -> BitsAndBytesConfig:
    """Return the configuration by which transformers quantises a model; `unquantised_layers` are left as they are."""
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=unquantised_layers,
    )


def load_tokenizer(source: ModelSource) -> Any:
    gguf_option = {"gguf_file": source.base.gguf} if source.base.gguf else {}
    return AutoTokenizer.from_pretrained(str(source.base.folder), **gguf_option)
