"""Config of one stage of training: its YAML file, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class StageError(ValueError):
    """A stage config that cannot be used; the text names the file, the key and what is wrong."""


class Lora(BaseModel):
    """Shape of the adapter; layers below `first_layer` stay as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(ge=1)
    alpha: int
    first_layer: int = 0


class StageConfig(BaseModel):
    """One stage; unknown keys are errors. Without `lora` the whole model is trained; `nf4` is QLoRA's frozen base."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str  # its name, for logs
    base: str  # hub id, folder, or gguf:PACKAGE/FILE
    quantization: Literal["none", "nf4"] = "none"
    data: Path  # the file of pairs
    bad_rows: Literal["stop", "skip"] = "stop"
    out: Path
    init: Path | None  # folder of the stage before, whose weights this one starts from
    template: str  # name of the prompt template
    seed: int
    lora: Lora | None
    head_only: bool = False  # base and adapter stay as they are, the detector head alone learns from their states
    lr: float
    lr_floor: float  # share of `lr` at the end
    lr_warmup_steps: int
    steps: int
    schedule: int | None = None  # steps of the whole cosine, where a run ends before it
    batch_tokens: int  # most tokens in a batch, with padding
    accumulate: int = Field(default=1, ge=1)  # batches of a step
    max_tokens: int  # longer examples are left out
    target_share: float  # share of the pairs without an edit whose target is learned
    edit_share: float = 1.0  # share of the pairs with an edit whose target is learned
    detector_weight: float  # weight of the detector's loss beside that of the correction
    other_prompts: float = 0.15  # weight of a segment under an objective of another prompt in the batch
    ends: bool = False  # whether the head learns what is missing after the last segment
    bags: Path | None = None  # file of replies in twos, the preferred one first
    bag_every: int = 10  # every so many batches, one of `bags`
    checkpoint_every: int  # steps
    whole_weight: float = 2.0  # weight of a reply in which an unknown segment goes against an objective
    max_seconds: float | None = None  # the run ends by then, its schedule complete, with fewer steps if need be
    snapshots: tuple[float, ...] = ()  # after these shares of the run, the weights are saved
    blends: tuple[float, ...] = ()  # at the end, means with `init` are scored, too: the share of the end in each
    watch: Path | None = None  # pairs that each snapshot scores
    base_folder: Path | None = None  # the folder to read the base from, if not from `base`
    workers: int = Field(default=1, ge=1)  # processes that tokenise
    compile: bool = False
    gradient_checkpointing: bool = False  # layers are computed again on the way back: less memory, a third more time

    @property
    def base_source(self) -> str:
        """What the base is read from."""
        return str(self.base_folder or self.base)

    @property
    def precision(self) -> Literal["fp32", "bf16", "nf4"]:
        """How the base is held: what is trained itself in fp32, what stays frozen in fewer bits."""
        return "fp32" if self.lora is None else "nf4" if self.quantization == "nf4" else "bf16"

    @classmethod
    def read(cls, path: Path, changes: Mapping[str, object] | None = None) -> StageConfig:
        """From a YAML file with some settings changed; raises `StageError` naming the first thing that is wrong."""
        try:
            document = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise StageError(f"{path} cannot be read ({error})") from None
        return cls.from_document(
            {**document, **changes} if changes and isinstance(document, dict) else document, str(path)
        )

    @classmethod
    def from_document(cls, document: object, where: str) -> StageConfig:
        """From what a file says; `where` is its name in the `StageError` about the first thing that is wrong."""
        try:
            stage = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise StageError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if stage.quantization == "nf4" and stage.lora is None:
            raise StageError(f"{where}: a base in nf4 cannot be trained itself; give it a lora, or quantization: none")
        return stage
