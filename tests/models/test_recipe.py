"""The recipe of the embedded aligner from data to figures, by its own script, on a tiny model and sentences of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.loop import correct_alone
from models.evaluate.calibrate import GOOD
from tests.support import tiny

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("warmup", "equal_preference", "contrastive_preference", "conversation", "dense", "denser", "wishes", "settle")


def configs(folder: Path) -> Path:
    """The committed stage configs with a tiny base and few steps."""
    base = tiny.save(folder / "base")
    told = json.loads((base / "config.json").read_text())
    # The tiny tokenizer needs some three times the tokens of a real one.
    (base / "config.json").write_text(json.dumps(told | {"max_position_embeddings": 8192}))
    (folder / "configs").mkdir()
    for stage in STAGES:
        told = yaml.safe_load((ROOT / "configs" / "train" / f"{stage}.yaml").read_text())
        told |= {
            "base": str(base),
            "steps": 4,
            "max_tokens": 1500,
            "batch_tokens": 3000,
            "schedule": None,
            "compile": False,
        }
        told["lora"] |= {"first_layer": 0}
        for key in ("data", "out", "init", "bags"):
            if told.get(key):
                told[key] = str(folder / told[key])
        (folder / "configs" / f"{stage}.yaml").write_text(yaml.safe_dump(told))
    return folder / "configs"


@pytest.mark.long  # each of its commands has a short run of its own
@pytest.mark.timeout(900)
def test_the_recipe_goes_from_data_to_an_aligner_that_is_served(tmp_path: Path, data_dir: Path) -> None:
    told = {"DATA": data_dir, "CONFIGS": configs(tmp_path), "RUNS": tmp_path / "runs", "N": 60, "LIMIT": 4}
    told |= {"ALIGNER": tmp_path / "aligner", "PYTHON": sys.executable, "ALIGNER_PROXY_HOME": tmp_path / "home"}
    environment = os.environ | {name: str(value) for name, value in told.items()}
    done = subprocess.run(
        [ROOT / "runs" / "embedded.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-600:]
    for stage in STAGES:
        assert (tmp_path / "runs" / stage / "curves.svg").exists()
    point = json.loads((tmp_path / "runs" / "calibration" / "calibration.json").read_text())
    assert set(point["n"]) == set(GOOD)
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    assert figures["clean"]["exact"]["n"] == 4
    opened = open_aligner(EngineSettings(tmp_path / "aligner"), tmp_path / "home")
    assert correct_alone(opened, tiny.request()).segments[0].objective == 0
