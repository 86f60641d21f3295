"""Export of a trained stage into an aligner folder that the gateway loads.

    python -m models.train.export runs/contrastive_preference aligner_proxy/embedded --calibration calibration.json

The adapter is stored in bf16, the head in fp32; the manifest names base, template (with its hash) and all file hashes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.taught_head import TaughtHead, pack
from aligner_proxy.engine.weights.manifest import ADAPTER, HEAD, MANIFEST, TAUGHT, hash_files, sha256
from aligner_proxy.prompts import find_template
from models.data.pairs import STAYS, Pair, read_pairs

from . import train
from .base_model import EMBEDDED_BASE, gguf_path
from .config import StageConfig
from .features import encode

NEUTRAL_SEGMENTS = 256
"""Neutral segments that a head stores."""
LONGEST_CHARS = 900
"""Longest question and answer together that they are taken from: many answers tell more than long ones."""


def read_neutral_segments(trained: Path, pairs: Path) -> Tensor:
    """Read the vectors that the head of a trained stage has for segments to which nobody objects.

    They come from the good answers in the file `pairs`, at most `NEUTRAL_SEGMENTS` of them: [segments, width]. Raises
    ValueError if the file has no good answer.
    """
    config = json.loads((trained / "stage.json").read_text())["config"]
    loads_trained = {"init": str(trained), "out": str(trained), "base_folder": None}
    network, tokenizer = train.build_network(StageConfig.model_validate(config | loads_trained))
    family = find_template(config["template"])
    rows: list[Tensor] = []
    for pair in _read_good_pairs(pairs):
        example = encode(pair, tokenizer, family, with_target=False)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            _, _, states = network.read([example])
        rows.append(network.head.read(states[0], example.spans)[0])
        if sum(map(len, rows)) >= NEUTRAL_SEGMENTS:
            break
    if not rows:
        raise ValueError(f"{pairs} has no good answer of at most {LONGEST_CHARS} characters")
    return torch.cat(rows)[:NEUTRAL_SEGMENTS]


def _read_good_pairs(pairs: Path) -> Iterator[Pair]:
    """The short pairs of a file in which nothing changes and no segment is a defect."""
    return (
        pair
        for pair in read_pairs(pairs)
        if len(pair.answer) + len(pair.query) <= LONGEST_CHARS
        and pair.target == pair.answer
        and not any(pair.kinds)
        and all(label == STAYS for label in pair.labels)
    )


def export(
    trained: Path,
    folder: Path,
    *,
    window: int,
    shift: float = 0.0,
    temperature: float = 1.0,
    end_shift: float = 0.0,
    ends: bool = True,
    neutral: Path | None = None,
) -> None:
    """Write the aligner folder: adapter or whole model, manifest, and the head if the template names objectives.

    `shift` (nats) is added to every score, `end_shift` besides to the score of the end of the answer. The sum is
    divided by `temperature`. So the threshold that was chosen on development data becomes 0, and a nat of caution is a
    nat. Without `ends` the end of the answer is not judged, and no text is added there unless the whole answer is
    verified. `neutral` is a file of pairs whose good answers become the head's neutral segments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((trained / "stage.json").read_text())["config"]
    base = _describe_base(config["base"]) if (trained / ADAPTER).exists() else None
    if base:
        _write_adapter(trained, folder, base)
    else:
        _write_model(trained, folder)
    if find_template(config["template"]).names_objectives:
        head = DetectorHead.load(trained / "detector.safetensors")
        if neutral is not None:
            head.store_neutral(read_neutral_segments(trained, neutral))
        head.calibrate(shift, temperature, end_shift)
        head.ends.logical_and_(torch.tensor(ends))
        head.save(folder / "detector.safetensors")
    manifest = {
        "format": 1,
        "base": base,
        "template": config["template"],
        "template_hash": find_template(config["template"]).hash,
        "window": window,
        "shift": shift / temperature,
        "files": {name: digest for name, digest in hash_files(folder).items() if name != MANIFEST},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def add_heads(folder: Path, heads: Sequence[TaughtHead]) -> None:
    """Write the taught heads that an exported aligner comes with, and their hash into its manifest."""
    (folder / TAUGHT).write_bytes(pack(heads))
    _record_file(folder, TAUGHT)


def replace_head(folder: Path, head: DetectorHead) -> None:
    """Write another general head into an exported aligner, and its hash into the manifest."""
    head.save(folder / HEAD)
    _record_file(folder, HEAD)


def _record_file(folder: Path, name: str) -> None:
    """Write the hash of this file into the manifest."""
    path = folder / MANIFEST
    document = json.loads(path.read_text())
    document["files"] = dict(sorted({**document["files"], name: sha256(folder / name)}.items()))
    path.write_text(json.dumps(document, indent=2) + "\n")


def _write_model(trained: Path, folder: Path) -> None:
    """All weights of a model that was trained as a whole, in bf16, with its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(str(trained), dtype=torch.bfloat16)
    model.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(trained)).save_pretrained(str(folder))


def _write_adapter(trained: Path, folder: Path, base: dict[str, object]) -> None:
    """The adapter in bf16, with a config that names its base."""
    state = load_file(str(trained / "adapter_model.safetensors"))
    save_file(
        {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()},
        str(folder / "adapter_model.safetensors"),
        metadata={"format": "pt"},
    )
    config = json.loads((trained / ADAPTER).read_text())
    config |= {"base_model_name_or_path": base["hub"], "inference_mode": True}
    (folder / ADAPTER).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _describe_base(source: str) -> dict[str, object]:
    """The entry `base` of the manifest for a `base` of a stage: "owner/name" -> {"hub": "owner/name"}."""
    if not source.startswith("gguf:"):
        return {"hub": source}
    package, _, name = source.removeprefix("gguf:").partition("/")
    return {
        "hub": EMBEDDED_BASE["hub"],
        "gguf": {"package": package, "file": name, "sha256": sha256(gguf_path(package, name))},
    }


def read_operating_point(calibration: Path) -> dict[str, float]:
    """Shifts and temperature that models.evaluate.calibrate found."""
    document = json.loads(calibration.read_text())
    return {name: document[name] for name in ("shift", "temperature", "end_shift") if name in document}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--calibration", type=Path, help="what models.evaluate.calibrate wrote; without it scores stay as they are"
    )
    parser.add_argument("--neutral", type=Path, help="pairs whose good answers tell what nobody objects to")
    parser.add_argument("--no-ends", action="store_true", help="do not judge what is missing behind the last segment")
    parser.add_argument("--window", type=int, default=4096)
    arguments = parser.parse_args()
    point = read_operating_point(arguments.calibration) if arguments.calibration else {}
    options = {"window": arguments.window, "ends": not arguments.no_ends, "neutral": arguments.neutral}
    export(arguments.trained, arguments.folder, **options, **point)


if __name__ == "__main__":
    main()
