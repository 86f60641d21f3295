"""Plan of short runs to compare and of their differences: a YAML file, checked.

All runs of a plan follow the same stage configs and take the same number of steps, unless one says otherwise: what a
run leaves out goes to its last stage. The file says what each run changes, and under which name its figures stand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aligner_proxy.types import Verify
from models.data.answers import HARMLESS
from models.data.mixture import RECIPES, STAGES, StageName
from models.data.preference_sets import JUDGED


class PlanError(ValueError):
    """A plan that cannot be used. The message names the file, the place and what is wrong."""


class PlannedRun(BaseModel):
    """One run, and where it departs from the plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    leave_out: tuple[StageName, ...] = ()
    examples: Literal["edits", "preferences"] = "edits"
    """`preferences`: pairs by Algorithm 1 from replies that people compared, in place of edits."""
    without: tuple[str, ...] = ()
    """Kinds of example that the last stage does not see."""
    compared: tuple[str, ...] = HARMLESS
    """Sets of compared replies that the head learns from."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings that every stage of the run gets."""
    pairs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)


class PlanRow(BaseModel):
    """One row of the table: a run, and how it decodes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    run: str
    calibrated: bool = True
    """An aligner that is not calibrated flags at even odds."""
    caution: float = 0.0
    verify: Verify = Verify.FLAGGED


class Plan(BaseModel):
    """A YAML file with the runs to train and the rows to measure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    configs: Path
    pairs: dict[StageName, int] = Field(min_length=1)
    """The number of pairs of each stage."""
    steps: int = Field(ge=1)
    """The steps of all stages together."""
    seed: int = 1
    runs: dict[str, PlannedRun]
    methods: tuple[PlanRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_consistency(self) -> Plan:
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names):
            raise ValueError("methods: give each a name of its own")
        for method in self.methods:
            if method.run not in self.runs:
                raise ValueError(f"methods: {method.name}: no run {method.run!r}; known: {', '.join(self.runs)}")
        for name, run in self.runs.items():
            if self.last in run.leave_out:
                raise ValueError(f"runs: {name}: the last stage ({self.last}) cannot be left out")
            for key, given_names, allowed in (
                ("without", run.without, RECIPES[self.last]),
                ("compared", run.compared, JUDGED),
            ):
                if unknown_names := set(given_names) - set(allowed):
                    raise ValueError(f"runs: {name}: {key}: no {min(unknown_names)!r}; known: {', '.join(allowed)}")
        return self

    @property
    def last(self) -> StageName:
        """The last stage, which takes the steps that the others leave."""
        return max(self.pairs, key=STAGES.index)

    def list_stages(self, name: str) -> dict[StageName, int]:
        """The stages of a run in their order, each with the number of its pairs."""
        run = self.runs[name]
        stages = [stage for stage in STAGES if stage in self.pairs and stage not in run.leave_out]
        sizes = {stage: self.pairs[stage] for stage in stages}
        return sizes | {self.last: run.pairs or sizes[self.last]}

    def count_pairs(self, name: str) -> int:
        """The pairs of a run's last stage."""
        return self.list_stages(name)[self.last]

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a YAML file; raises `PlanError` that names the first mistake."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise PlanError(f"{path} cannot be read ({type(error).__name__})") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise PlanError(f"{path}: {place}: {first['msg']}" if place else f"{path}: {first['msg']}") from None
