"""One run of Meal: its YAML file, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class MealError(ValueError):
    """A config or a run that cannot be used. The message names the file, the key and what is wrong."""


class Meal(BaseModel):
    """One run; unknown keys are errors. The inner step is plain gradient descent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    """embedded, or a folder with a Llama-family model; encoder and base learner both."""
    out: Path
    template: str = "ultrafeedback"
    depth: int | None = Field(default=None, ge=1)
    """Layers of the base that the base learner has; the encoder has them all. Fewer make a step on a CPU bearable."""
    trained: str
    """Regular expression: the parameters of the base learner that the inner step moves."""
    gradient: Literal["unrolled", "first_order"]
    weights_as: Literal["words", "embedding"] = "words"
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """How the frozen base computes; what moves is kept in fp32 at least."""
    seed: int = 0
    steps: int = Field(ge=1)
    width: int = Field(default=48, ge=1)
    objectives: int = Field(default=4, ge=2)
    """Objectives that compete in one inner step."""
    prompts: int = Field(default=1, ge=1)
    """Prompts of a kind in one inner step, and as many others in the outer one."""
    inner_lr: float = Field(gt=0)
    outer_lr: float = Field(gt=0)
    beta: float = Field(default=0.1, gt=0)
    """Nats of preference for a nat per answer between the preferred and the other."""
    entropy: float = Field(default=0.0, ge=0)
    """Share of the entropy of the weights in the outer loss, so that no weight becomes 0 or 1 for a lucky draw."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """The longest gradient that the net takes."""
    held_out_every: int = Field(default=10, ge=1)
    checkpoint_every: int = Field(default=10, ge=1)

    @classmethod
    def read(cls, path: Path) -> Meal:
        """Read a YAML file; raises `MealError` that names the first mistake."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise MealError(f"{path} cannot be read ({error})") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise MealError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
