"""Settings of the recipe: its stages, and how much of each a size makes, from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.data.mixture import StageName as MixtureName
from models.train.config import StageConfig

DEFAULT = Path(__file__).parents[2] / "configs" / "train" / "recipe.yaml"


class RecipeError(ValueError):
    """A base, setting or folder that the recipe cannot use. The message says which, and what to do."""


class StageSettings(BaseModel):
    """One stage: its config file, settings that replace some of it, and the examples it learns from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: Path
    mixture: MixtureName
    seed: int
    examples: int = Field(ge=1)
    changes: dict[str, object] = Field(default_factory=dict)


class RecipeSize(BaseModel):
    """How much is made: stages, their share of examples and steps, and answers of each test set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: tuple[str, ...] = Field(min_length=1)
    head_stages: tuple[str, ...] = Field(min_length=1)
    share: float = Field(gt=0, le=1)
    answers: int = Field(ge=2)


class RecipeSettings(BaseModel):
    """The settings file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: str
    window: int = Field(ge=256)
    ends: bool = False
    """Whether the aligner judges what is missing behind the last segment."""
    dev_seed: int
    test_seed: int
    stages: dict[str, StageSettings]
    sizes: dict[str, RecipeSize]

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for size_name, size in self.sizes.items():
            missing = sorted({*size.stages, *size.head_stages} - self.stages.keys())
            if missing:
                raise ValueError(f"sizes.{size_name} names stages that are not there: {', '.join(missing)}")
        return self

    def choose_stages(self, size_name: str, *, head_only: bool) -> dict[str, StageSettings]:
        """The stages of a size, in order; raises `RecipeError` for an unknown size."""
        size = self.choose_size(size_name)
        return {name: self.stages[name] for name in (size.head_stages if head_only else size.stages)}

    def choose_size(self, size_name: str) -> RecipeSize:
        """The size of this name; raises `RecipeError` for an unknown one."""
        if size_name not in self.sizes:
            raise RecipeError(f"unknown size {size_name!r}; the config has: {', '.join(self.sizes)}")
        return self.sizes[size_name]


def read_settings(path: Path) -> RecipeSettings:
    """Read the file; raises `RecipeError` that names the first mistake. Paths are relative to the file."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings = RecipeSettings.model_validate(document)
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read ({error})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RecipeError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    stages = {
        name: stage.model_copy(update={"config": path.parent / stage.config}) for name, stage in settings.stages.items()
    }
    for stage in stages.values():
        StageConfig.read(stage.config, stage.changes)  # so that a wrong one is found before anything is computed
    return settings.model_copy(update={"stages": stages})
