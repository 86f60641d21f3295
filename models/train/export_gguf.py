"""Export of an aligner as one GGUF file, for llama.cpp: base and adapter merged, tokenizer included.

    python -m models.train.export_gguf embedded aligner.gguf --type q8_0

The detector head does not go along: a completions server has no use for it (docs/guides/scaling.md puts it in front).
Only Llama's architecture is written. A tokenizer is taken over from a GGUF base as it is; otherwise it must be of the
SentencePiece kind (Llama 2 and so every MetaAligner), or `--tokenizer-from` names a GGUF of the same base.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType, get_tensor_name_map
from gguf.quants import quantize
from gguf.vocab import LlamaHfVocab, SpecialVocab
from safetensors import safe_open
from transformers import AutoConfig

from aligner_proxy import prompts
from aligner_proxy.engine.weights import quantise, sources
from aligner_proxy.errors import WeightsError

TYPES = {  # number format of a tensor, and of the file, by the name of `--type`
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_1": (GGMLQuantizationType.Q4_1, LlamaFileType.MOSTLY_Q4_1),
}
_TOKENIZER = "tokenizer."


def export(model: str, out: Path, kind: str = "q8_0", *, template: str | None = None, like: Path | None = None) -> None:
    """Write `model` (embedded, a folder, a hub id that was pulled) to `out`, by one rename at the end.

    `kind` is a key of `TYPES`, `like` a GGUF file whose tokenizer is taken over.
    """
    source = sources.resolve(model, template)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        # A model without an adapter is only copied, in fp32: so its tensors get the names that are expected below.
        merged = quantise.merge(source, Path(scratch) / "merged")
        part = Path(scratch) / out.name
        _write(part, merged, source, kind, like or _gguf_of(source))
        part.replace(out)


def _gguf_of(source: sources.ModelSource) -> Path | None:
    return source.base.folder / source.base.gguf if source.base.gguf else None


def _write(path: Path, merged: Path, source: sources.ModelSource, kind: str, like: Path | None) -> None:
    """Write the GGUF file of the model in `merged`; raises `WeightsError` for another architecture than Llama's."""
    config = AutoConfig.from_pretrained(str(merged))
    if config.model_type != "llama":
        raise WeightsError(f"{source.model} is a {config.model_type} model; only Llama's architecture is written")
    writer = GGUFWriter(path, "llama")
    _describe(writer, config, source, TYPES[kind][1])
    if like is not None:
        _copy_tokenizer(writer, like, config.vocab_size)
    else:
        _write_sentencepiece(writer, source.base.folder)
    for name, tensor in _read_tensors(merged, config):
        dtype = GGMLQuantizationType.F32 if tensor.ndim == 1 else _choose_type(name, kind)
        raw = quantize(tensor, dtype)
        writer.add_tensor(name, raw, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: GGUFWriter, config: Any, source: sources.ModelSource, file_type: LlamaFileType) -> None:
    """Write the file's header: the model's sizes, and the aligner's template and window."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        raise WeightsError(f"{source.model} scales its positions ({rope['rope_type']}), which is not written here")
    family = prompts.find_template(source.template)
    writer.add_name(source.model)
    writer.add_string("aligner.template", family.name)
    writer.add_string("aligner.template_hash", family.hash)
    writer.add_uint32("aligner.window", source.window)
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10_000.0)))
    writer.add_rope_dimension_count(config.head_dim or config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)


def _copy_tokenizer(writer: GGUFWriter, like: Path, size: int) -> None:
    """Copy the tokenizer of another GGUF with `size` tokens, without its chat template, which aligners do not use."""
    for key, field in GGUFReader(like).fields.items():
        if not key.startswith(_TOKENIZER) or key == "tokenizer.chat_template":
            continue
        value = field.contents()
        if key == "tokenizer.ggml.tokens" and len(value) != size:
            raise WeightsError(f"{like.name} has {len(value)} tokens, the model {size}; it is of another base")
        writer.add_key_value(key, value, field.types[0], field.types[1] if len(field.types) > 1 else None)


def _write_sentencepiece(writer: GGUFWriter, folder: Path) -> None:
    """Write the SentencePiece tokenizer of a model folder; raises `WeightsError` for one of another kind."""
    try:
        vocab = LlamaHfVocab(folder)
    except (FileNotFoundError, TypeError, ValueError) as error:
        raise WeightsError(f"{folder}: no tokenizer of Llama 2's kind ({error}); use --tokenizer-from") from None
    tokens, scores, kinds = zip(*vocab.all_tokens(), strict=True)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(tokens))
    writer.add_token_scores(list(scores))
    writer.add_token_types(list(kinds))
    special = SpecialVocab(folder, n_vocab=len(tokens))
    special.chat_template = None
    special.add_to_gguf(writer, quiet=True)


def _read_tensors(merged: Path, config: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor in fp32, with the name that llama.cpp has for it."""
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for file in _list_files(merged):
        with safe_open(str(file), framework="np") as weights:
            for key in weights.keys():  # noqa: SIM118 - not a mapping
                name = names.get_name(key, try_suffixes=(".weight",))
                if name is None:
                    raise WeightsError(f"tensor {key} has no place in a GGUF of Llama's architecture")
                yield name, _reorder_rows(key, weights.get_tensor(key), config)


def _list_files(merged: Path) -> list[Path]:
    """The files of a model folder that hold weights."""
    index = merged / "model.safetensors.index.json"
    if not index.exists():
        return [merged / "model.safetensors"]
    return sorted({merged / name for name in json.loads(index.read_text())["weight_map"].values()})


def _reorder_rows(key: str, tensor: np.ndarray, config: Any) -> np.ndarray:
    """The rows of a query or key projection in llama.cpp's order; other tensors unchanged.

    Rotary embeddings turn pairs of a head's numbers. In transformers, number i is paired with number i + size / 2, in
    llama.cpp with its neighbour: the rows 0 1 2 3 of a head become 0 2 1 3.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((n for part, n in heads.items() if f".{part}." in key), None)
    if count is None:
        return tensor
    return tensor.reshape(count, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _choose_type(name: str, kind: str) -> GGMLQuantizationType:
    """The number format of a tensor. In 4-bit files embeddings keep 8 bits, as they may be the output layer, too."""
    if kind.startswith("q4") and name.startswith(("token_embd", "output")):
        return GGMLQuantizationType.Q8_0
    return TYPES[kind][0]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="embedded, an aligner folder, or a Hugging Face id that was pulled")
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=sorted(TYPES), default="q8_0")
    parser.add_argument("--template", choices=sorted(prompts.TEMPLATES), help="of a model that does not name its own")
    parser.add_argument("--tokenizer-from", type=Path, help="a GGUF of the same base")
    arguments = parser.parse_args(argv)
    try:
        export(
            arguments.model,
            arguments.out,
            arguments.type,
            template=arguments.template,
            like=arguments.tokenizer_from,
        )
    except WeightsError as error:
        raise SystemExit(f"models.train.export_gguf: {error}") from None
    print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.0f} MB")


if __name__ == "__main__":
    main()
