"""The committed configs of all stages, made small for a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.support import tiny

ROOT = Path(__file__).resolve().parents[3]
STAGES = ("warmup", "equal_preference", "contrastive_preference", "conversation", "dense", "denser", "wishes", "settle")


def configs(folder: Path) -> Path:
    """The committed stage configs with a tiny base and few steps."""
    base = tiny.save(folder / "base")
    document = json.loads((base / "config.json").read_text())
    # The tiny tokenizer needs some three times the tokens of a real one.
    (base / "config.json").write_text(json.dumps(document | {"max_position_embeddings": 8192}))
    (folder / "configs").mkdir()
    for stage in STAGES:
        settings = yaml.safe_load((ROOT / "configs" / "train" / f"{stage}.yaml").read_text())
        settings |= {
            "base": str(base),
            "steps": 4,
            "max_tokens": 1500,
            "batch_tokens": 3000,
            "schedule": None,
            "compile": False,
        }
        settings["lora"] |= {"first_layer": 0}
        for key in ("data", "out", "init", "bags"):
            if settings.get(key):
                settings[key] = str(folder / settings[key])
        (folder / "configs" / f"{stage}.yaml").write_text(yaml.safe_dump(settings))
    return folder / "configs"
