"""The second of two stages: direct preference optimisation (TRL) of an adapter that `models.train` made.

    python -m models.systems.metaalign.dpo configs/train/metaalign_dpo.yaml

The adapter of the stage before is where it starts and what it is held to. The detector head goes along as it is: what
it reads moves a little with the adapter, so calibrate anew. TRL is needed for this stage alone.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from peft import PeftModel
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aligner_proxy.engine.weights.manifest import ADAPTER, sha256
from models.train.base_model import load_base
from models.train.config import StageError

MISSING = "TRL is not installed; it is needed for this stage only: pip install 'aligner-proxy[trl]'"
HEAD = "detector.safetensors"


class DpoStage(BaseModel):
    """The config of one stage; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    base: str
    data: Path
    out: Path
    init: Path
    seed: int
    beta: float = Field(gt=0)
    lr: float = Field(gt=0)
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    max_tokens: int = Field(ge=16)

    @classmethod
    def read(cls, path: Path) -> DpoStage:
        """Read a YAML file; raises `StageError` that names the first mistake."""
        try:
            stage = cls.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise StageError(f"{path} cannot be read ({error})") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise StageError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if not (stage.init / ADAPTER).exists():
            raise StageError(f"init: {stage.init} holds no adapter; train the stage before with a lora")
        return stage


def read_comparisons(path: Path, end: str) -> list[dict[str, str]]:
    """Read what `models.systems.metaalign.data` writes. Both answers get the end mark of a corrector's output."""
    comparisons = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        if not isinstance(row, dict) or set(row) != {"prompt", "chosen", "rejected"}:
            raise StageError(f"{path}:{number}: needs prompt, chosen and rejected, and nothing else")
        comparisons.append({name: row[name] + (end if name != "prompt" else "") for name in row})
    if not comparisons:
        raise StageError(f"{path}: holds no comparison")
    return comparisons


def train_stage(stage: DpoStage) -> list[dict[str, Any]]:
    """Train and save, and return TRL's log, step by step."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    base, tokenizer = load_base(stage.base, stage.out.parent, "fp32")
    model = PeftModel.from_pretrained(base, str(stage.init), is_trainable=True)
    settings = DPOConfig(
        output_dir=str(stage.out),
        per_device_train_batch_size=stage.batch,
        max_steps=stage.steps,
        max_length=stage.max_tokens,
        learning_rate=stage.lr,
        beta=stage.beta,
        seed=stage.seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    data = Dataset.from_list(read_comparisons(stage.data, tokenizer.eos_token))
    trainer = DPOTrainer(model=model, args=settings, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    log = [dict(row) for row in trainer.state.log_history if "loss" in row]
    model.save_pretrained(str(stage.out), selected_adapters=["default"])
    return log


def main(config: Path) -> None:
    """Run the stage to its end."""
    if find_spec("trl") is None:
        raise StageError(MISSING)
    stage = DpoStage.read(config)
    stage.out.mkdir(parents=True, exist_ok=True)
    log = train_stage(stage)
    shutil.copyfile(stage.init / HEAD, stage.out / HEAD)
    before = json.loads((stage.init / "stage.json").read_text())
    document = {
        "config": before["config"] | {"stage": stage.stage, "out": str(stage.out)},
        "dpo": stage.model_dump(mode="json"),
    }
    (stage.out / "stage.json").write_text(json.dumps(document | {"data_sha256": sha256(stage.data)}, indent=1))
    (stage.out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except StageError as problem:
        sys.exit(str(problem))
