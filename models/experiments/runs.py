"""One run of a plan: data, stages in order, calibration, and the folders that the engine loads.

What is there already is not made again, and a stage that was stopped goes on from its checkpoint; what was made by
other settings is refused by name.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import yaml

from aligner_proxy.engine.weights.manifest import MANIFEST, sha256
from models.data import answers, metaaligner, mixture
from models.data.mixture import StageName as StageName
from models.data.pairs import Pair, write_pairs
from models.data.preference_sets import JUDGED, load_judged
from models.data.test_sets import make_held_out_sets
from models.defects.objectives import BUILT_IN
from models.evaluate.calibrate import calibrate
from models.train import checkpoint, train
from models.train.config import StageConfig
from models.train.export import export, read_operating_point

from .plan import Plan, PlanError, PlannedRun

WINDOW = 4096
_PARTS: dict[StageName, metaaligner.Part] = {
    "warmup": "warmup",
    "equal_preference": "equal",
    "contrastive_preference": "better",
}
_SIDES: tuple[answers.Side, ...] = ("dev", "test")


class RunWorkshop:
    """Trains the runs of a plan.

    `data` has the research files; everything that is made goes into `out`.
    """

    def __init__(self, plan: Plan, data: Path, out: Path) -> None:
        self._plan = plan
        self._data = data
        self._out = out

    def prepare(self) -> None:
        """Check the settings of every stage of every run, and make the test sets, development sets and bags."""
        for name in self._plan.runs:
            for stage in self._plan.list_stages(name):
                self._make_config(name, stage, None, None)
        for side in _SIDES:
            folder = self._out / "data" / side
            if not (folder / "made").exists():
                for name, pairs in make_held_out_sets(self._data, self._plan.seed, side).items():
                    write_pairs(folder / f"{name}.jsonl", pairs)
                (folder / "made").touch()  # comes last: a folder without it is half made
        for run in filter(lambda run: run.compared, self._plan.runs.values()):
            _make_once(self._bags(run), partial(self._write_bags, run))

    def train(self, name: str) -> None:
        """Train all stages of a run."""
        before: Path | None = None
        for stage, count in self._plan.list_stages(name).items():
            before = self._train_stage(name, stage, count, before)

    def finish(self, name: str, limit: int) -> None:
        """Write the aligner folders of a trained run, and only those that are older than its training.

        `uncalibrated` is always written. `aligner` is written if a row of the table asks for calibration: its threshold
        is chosen on `limit` good answers of the development side.
        """
        folder = self._out / name
        last_stage = folder / self._plan.last
        trained = last_stage / "stage.json"
        uncalibrated = folder / "uncalibrated"
        if not _is_newer(uncalibrated / MANIFEST, trained):
            export(last_stage, uncalibrated, window=WINDOW, neutral=self._good)
        needs_calibration = any(row.calibrated for row in self._plan.methods if row.run == name)
        if not needs_calibration or _is_newer(folder / "aligner" / MANIFEST, trained):
            return
        point = folder / "calibration" / "calibration.json"
        if not _is_newer(point, trained):
            # Good answers decide the threshold; a fifth of every other sort is enough for the temperature.
            limit_of_others = math.ceil(limit / 5)
            calibrate(uncalibrated, self._out / "data" / "dev", point.parent, limit, limit_of_others)
        export(last_stage, folder / "aligner", window=WINDOW, neutral=self._good, **read_operating_point(point))

    def aligner(self, name: str, *, calibrated: bool) -> Path:
        """The folder that the engine loads."""
        return self._out / name / ("aligner" if calibrated else "uncalibrated")

    # ---------------------------------------------------------------- stages

    def _train_stage(self, name: str, stage: StageName, count: int, before: Path | None) -> Path:
        """Train one stage, unless it is trained already, and return its folder."""
        folder = self._out / name / stage
        stage_config = self._make_config(name, stage, self._make_pairs(stage, count, self._plan.runs[name]), before)
        done = folder / "stage.json"
        if done.exists():
            _check_same(done, stage_config)
            if before is None or _is_newer(done, before / "stage.json"):
                return folder
            shutil.rmtree(folder)  # the stage before was trained anew
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(stage_config.model_dump(mode="json")))
        train.main(config)
        (folder / checkpoint.FILE).unlink(missing_ok=True)  # the stage is saved, and its moments are large
        return folder

    def _make_config(self, name: str, stage: StageName, pairs: Path | None, before: Path | None) -> StageConfig:
        """The settings of one stage of one run."""
        run = self._plan.runs[name]
        path = self._plan.configs / f"{stage}.yaml"
        if not path.exists():
            raise PlanError(f"configs: {path} is not there; each stage needs a config of its name")
        settings: dict[str, Any] = yaml.safe_load(path.read_text())
        settings |= {
            "data": str(pairs),
            "out": str(self._out / name / stage),
            "init": str(before) if before else None,
            "bags": str(self._bags(run)) if settings.get("bags") and run.compared and run.examples == "edits" else None,
            "schedule": None,
        }
        if stage == self._plan.last:
            settings["steps"] = self._count_left_steps(name)
        return StageConfig.from_document(settings | run.settings, f"{name}/{stage}")

    def _count_left_steps(self, name: str) -> int:
        """The steps of the last stage: what the other stages leave of the plan's steps."""
        others = [stage for stage in self._plan.list_stages(name) if stage != self._plan.last]
        used_steps = sum(yaml.safe_load((self._plan.configs / f"{one}.yaml").read_text())["steps"] for one in others)
        steps = (self._plan.runs[name].steps or self._plan.steps) - used_steps
        if steps < 1:
            raise PlanError(
                f"runs: {name}: its first stages take {used_steps} steps, and leave none for {self._plan.last}"
            )
        return steps

    # ---------------------------------------------------------------- data

    @property
    def _good(self) -> Path:
        """The file of good answers, by which a head learns what nobody objects to."""
        return self._make_pairs("warmup", self._plan.pairs.get("warmup", 300), PlannedRun())

    def _bags(self, run: PlannedRun) -> Path:
        """The file of the compared replies of a run."""
        return self._out / "data" / f"bags-{'-'.join(name.partition('_')[0] for name in run.compared)}.jsonl"

    def _write_bags(self, run: PlannedRun, path: Path) -> int:
        return write_pairs(path, answers.preference_bags(self._data, sets=run.compared))

    def _make_pairs(self, stage: StageName, count: int, run: PlannedRun) -> Path:
        """The file of a stage's pairs. A file with fewer pairs is the beginning of a longer one."""
        without = run.without if stage == self._plan.last else ()
        file_name = "-".join([stage, run.examples, *(f"no_{kind}" for kind in without), str(count)])
        source = partial(self._edits, without) if run.examples == "edits" else self._make_preferences
        return _make_once(
            self._out / "data" / f"{file_name}.jsonl", lambda draft: write_pairs(draft, source(stage, count))
        )

    def _edits(self, without: tuple[str, ...], stage: StageName, count: int) -> Iterator[Pair]:
        return mixture.build_examples(self._data, self._plan.seed, count, stage, without)

    def _make_preferences(self, stage: StageName, count: int) -> Iterator[Pair]:
        """Pairs of Algorithm 1, shuffled, from questions that are in no test set."""
        if stage not in _PARTS:
            raise PlanError(f"stage {stage!r} has no part in Algorithm 1; known: {', '.join(_PARTS)}")
        ranked = [
            replace(item, query=answers.plain_query(item.query))
            for name in JUDGED
            for item in load_judged(self._data, name, BUILT_IN)
            if answers.side_of(item.query, answers.TEST_PERCENT_RARE) == "train"
        ]
        margin = metaaligner.Margin(better=0.5)
        pairs = list(metaaligner.reformulate(ranked, margin, self._plan.seed, _PARTS[stage]))
        if not pairs:
            raise PlanError(f"stage {stage!r}: no replies that people compared in {self._data} make a pair for it")
        Random(self._plan.seed).shuffle(pairs)
        return islice(iter(pairs), count)


def _make_once(path: Path, make: Callable[[Path], object]) -> Path:
    """The file; `make` writes it where it is missing."""
    if not path.exists():
        make(path)
    return path


def _is_newer(product: Path, cause: Path) -> bool:
    """Whether `product` exists and is not older than `cause`."""
    return product.exists() and product.stat().st_mtime_ns >= cause.stat().st_mtime_ns


def _check_same(done: Path, stage: StageConfig) -> None:
    """Raise `PlanError` where a finished stage was trained otherwise than the plan says."""
    trained = json.loads(done.read_text())
    if trained["data_sha256"] != sha256(stage.data):
        other = f"{done.parent} was trained on other pairs than {stage.data}"
        raise PlanError(f"{other}; remove it, or take another --out")
    for name, value in stage.model_dump(mode="json").items():
        if trained["config"].get(name) != value:
            raise PlanError(
                f"{done.parent} was trained with {name}: {trained['config'].get(name)}, and the plan says {value}; "
                "remove it, or take another --out"
            )
