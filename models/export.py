"""Turn a trained stage into an aligner folder that the gateway loads.

    python -m models.export runs/contrastive_preference aligner_proxy/embedded --shift 0

The adapter is stored in bf16, the head in fp32; the manifest names base, template (with its hash) and all file hashes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from aligner_proxy.engine.detector import DetectorHead
from aligner_proxy.engine.manifest import sha256
from aligner_proxy.prompts import template
from models.base import EMBEDDED_BASE, gguf_path

FILES = ("adapter_model.safetensors", "adapter_config.json", "detector.safetensors")


def export(trained: Path, folder: Path, *, window: int, shift: float = 0.0) -> None:
    """Write adapter, head and manifest.

    `shift` (nats) is added to every score, so that the operating point chosen on development data becomes log-odds 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _adapter(trained, folder)
    _head(trained, folder, shift)
    config = json.loads((trained / "stage.json").read_text())["config"]
    manifest = {
        "format": 1,
        "base": _base(config["base"]),
        "template": config["template"],
        "template_hash": template(config["template"]).hash,
        "window": window,
        "shift": shift,
        "files": {name: sha256(folder / name) for name in FILES},
    }
    (folder / "aligner.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _adapter(trained: Path, folder: Path) -> None:
    state = load_file(str(trained / "adapter_model.safetensors"))
    save_file(
        {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()},
        str(folder / "adapter_model.safetensors"),
        metadata={"format": "pt"},
    )
    config = json.loads((trained / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": EMBEDDED_BASE["hub"], "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _head(trained: Path, folder: Path, shift: float) -> None:
    head = DetectorHead.load(trained / "detector.safetensors")
    with torch.no_grad():
        head.layers[-1].bias += shift
    head.save(folder / "detector.safetensors")


def _base(source: str) -> dict[str, object]:
    if not source.startswith("gguf:"):
        return {"hub": source}
    package, _, name = source.removeprefix("gguf:").partition("/")
    return {
        "hub": EMBEDDED_BASE["hub"],
        "gguf": {"package": package, "file": name, "sha256": sha256(gguf_path(package, name))},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shift", type=float, default=0.0, help="nats added to every score")
    parser.add_argument("--window", type=int, default=4096)
    arguments = parser.parse_args()
    export(arguments.trained, arguments.folder, window=arguments.window, shift=arguments.shift)


if __name__ == "__main__":
    main()
