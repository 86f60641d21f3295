"""The steps of one training: composes the data generators, the trainer, the export and the evaluation.

Each stage begins with the weights of the one before. On several GPUs the stages run by accelerate, one process a GPU.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from aligner_proxy import __version__
from aligner_proxy.engine.loader import EngineSettings
from aligner_proxy.engine.weights import manifest, sources
from aligner_proxy.errors import WeightsError
from models.data import mixture
from models.data.answers import Side, preference_bags
from models.data.pairs import write_pairs
from models.data.preference_sets import KNOWN_FILES
from models.data.test_sets import make_held_out_sets
from models.evaluate import test_sets
from models.evaluate.calibrate import calibrate
from models.reporting import output
from models.train import train
from models.train.config import StageConfig
from models.train.export import export, read_operating_point

from .base_check import BaseFacts, check_base, find_base
from .model_card import write_card
from .settings import RecipeError, RecipeSettings, StageSettings
from .steps import RecipeStep

CAUTION = 0.0


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What the first stage starts from: the base, and the adapter of a finished aligner, if any."""

    base: str
    init: Path | None
    template: str


class Training:
    """One run of the recipe, as a list of steps. Raises `RecipeError` where base, data or size cannot be used."""

    def __init__(
        self, base: str, data: Path, out: Path, size: str, settings: RecipeSettings, *, head_only: bool = False
    ) -> None:
        self._data = data
        self._out = out
        self._settings = settings
        self._size = settings.choose_size(size)
        self._stages = settings.choose_stages(size, head_only=head_only)
        self._start = find_start(base, settings.template) if head_only else StartingPoint(base, None, settings.template)
        self._about = {"size": size, "head only": head_only}
        self.aligner = out / "aligner"
        """The folder that the gateway loads."""

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """The SHA-256 of each file of research data."""
        files = {name: self._data / f"{name}.jsonl.gz" for name in KNOWN_FILES}
        hashes = {name: manifest.sha256(path) for name, path in files.items() if path.is_file()}
        if not hashes:
            raise RecipeError(f"data: {self._data} holds no research data; python -m models.data.fetch brings it")
        return hashes

    @cached_property
    def _folder(self) -> Path:
        return find_base(self._start.base, self._out)

    @cached_property
    def _facts(self) -> BaseFacts:
        return check_base(self._folder)

    def list_steps(self) -> list[RecipeStep]:
        """All steps in order. The base is checked here, before any step runs."""
        made_from = {"data": self._hashes, "version": __version__, "base": self._identify_base()}
        steps = [self._check_step(made_from)]
        for name, stage in self._stages.items():
            steps.append(self._data_step(name, stage))
        if self._use_bags():
            steps.append(self._step("bags", self._out / "data" / "bags.jsonl", {}, ["base"], self._write_bags))
        for side, seed in (("dev", self._settings.dev_seed), ("test", self._settings.test_seed)):
            folder = self._out / "data" / side
            settings = {"seed": seed, "limit": self._choose_limit(side)}
            steps.append(self._step(f"{side} sets", folder, settings, ["base"], partial(self._write_sets, side)))
        former = ""
        for name, stage in self._stages.items():
            steps.append(self._train_step(name, stage, former))
            former = name
        return [*steps, *self._last_steps(former)]

    def _step(self, name: str, path: Path, settings: Mapping[str, object], needs: list[str], run: object) -> RecipeStep:
        assert callable(run)
        return RecipeStep(name, path, settings, tuple(needs), run)

    # ---------------------------------------------------------------- base and data

    def _identify_base(self) -> dict[str, object]:
        """What identifies the base: its name and the hashes of its files."""
        init = self._start.init
        identity = {"name": self._start.base, "files": manifest.hash_files(self._folder)}
        return identity | ({"init": manifest.hash_files(init)} if init else {})

    def _check_step(self, made_from: Mapping[str, object]) -> RecipeStep:
        return self._step("base", self._out / "base.json", made_from, [], self._report_base)

    def _report_base(self) -> None:
        """Print the notes on the base, and write its facts to base.json."""
        facts = {name: getattr(self._facts, name) for name in BaseFacts.__slots__}
        for note in self._facts.notes:
            print(f"note: {note}")
        (self._out / "base.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def _data_step(self, name: str, stage: StageSettings) -> RecipeStep:
        """The step that makes the pairs of one stage."""
        count = max(1, round(stage.examples * self._size.share))
        path = self._pairs_of(name)
        settings = {"mixture": stage.mixture, "seed": stage.seed, "examples": count}
        return self._step(f"data {name}", path, settings, ["base"], partial(self._write_pairs, stage, count, path))

    def _pairs_of(self, name: str) -> Path:
        return self._out / "data" / f"{name}.jsonl"

    def _write_pairs(self, stage: StageSettings, count: int, path: Path) -> None:
        write_pairs(path, mixture.build_examples(self._data, stage.seed, count, stage.mixture))

    def _use_bags(self) -> bool:
        return any(StageConfig.read(stage.config, stage.changes).bags for stage in self._stages.values())

    def _write_bags(self) -> None:
        write_pairs(self._out / "data" / "bags.jsonl", preference_bags(self._data))

    def _write_sets(self, side: Side) -> None:
        """Make the sets of one side."""
        seed = self._settings.dev_seed if side == "dev" else self._settings.test_seed
        for name, pairs in make_held_out_sets(self._data, seed, side, self._choose_limit(side)).items():
            write_pairs(self._out / "data" / side / f"{name}.jsonl", pairs)

    def _choose_limit(self, side: Side) -> int:
        """How many answers of each set are read. Good answers choose the operating point, so that side has more."""
        return self._size.answers * 5 // 2 if side == "dev" else self._size.answers

    # ---------------------------------------------------------------- stages

    def _train_step(self, name: str, stage: StageSettings, former: str) -> RecipeStep:
        """The step that trains one stage, from what the stage `former` left."""
        changes = self._change_stage(name, stage, former)
        settings = StageConfig.read(stage.config, changes).model_dump(mode="json")
        needs = [f"data {name}", *(["bags"] if settings["bags"] else []), *([f"train {former}"] if former else [])]
        run = partial(run_stage, stage.config, changes, _count_processes())
        return self._step(f"train {name}", self._out / "runs" / name, settings, needs, run)

    def _change_stage(self, name: str, stage: StageSettings, former: str) -> dict[str, object]:
        """The settings that replace those in the stage's file; `former` is the stage before, "" for the first one.

        A stage goes on from the stage before, the first one from what the run starts with. Steps are scaled to the
        run's size. Changes that the recipe names for the stage come last.
        """
        base = self._start.base
        if not self._start.init and Path(base).is_dir():
            base = str(self._folder)
        init = self._start.init and str(self._start.init)
        if former:
            init = str(self._out / "runs" / former)
        place = {
            "base": base,
            "base_folder": str(self._folder),
            "data": str(self._pairs_of(name)),
            "out": str(self._out / "runs" / name),
            "init": init,
            "template": self._start.template,
        }
        config = StageConfig.read(stage.config, {**stage.changes, **place})
        bags = str(self._out / "data" / "bags.jsonl") if config.bags else None
        steps = {"steps": max(2, round(config.steps * self._size.share)), "schedule": None}
        if config.schedule:
            steps["schedule"] = max(2, round(config.schedule * self._size.share))
        derived = self._facts.derive(config, _count_processes())
        return {**derived, **steps, **place, "bags": bags, **stage.changes}

    # ---------------------------------------------------------------- aligner

    def _last_steps(self, last: str) -> list[RecipeStep]:
        """The steps after the training: operating point, export, evaluation, model card."""
        window = min(self._settings.window, self._facts.positions)
        trained = self._out / "runs" / last
        plain = {"window": window}
        sizes = {"answers": self._size.answers}
        calibration = self._out / "calibration"
        return [
            self._step(
                "export uncalibrated",
                self._out / "uncalibrated",
                plain,
                [f"train {last}"],
                partial(export, trained, self._out / "uncalibrated", window=window),
            ),
            self._step("calibrate", calibration, sizes, ["export uncalibrated", "dev sets"], self._calibrate),
            self._step(
                "export",
                self.aligner,
                plain | {"ends": self._settings.ends},
                ["calibrate", f"train {last}"],
                partial(self._export, trained, window),
            ),
            self._step("evaluate", self._out / "evaluation", sizes, ["export", "test sets"], self._evaluate),
            self._step("model card", self.aligner / "README.md", {}, ["evaluate"], self._write_card),
        ]

    def _calibrate(self) -> None:
        folders = [self._out / "uncalibrated", self._out / "data" / "dev", self._out / "calibration"]
        calibrate(*folders, limit=self._choose_limit("dev"), others=self._size.answers // 2)

    def _export(self, trained: Path, window: int) -> None:
        point = read_operating_point(self._out / "calibration" / "calibration.json")
        export(trained, self.aligner, window=window, ends=self._settings.ends, **point)

    def _evaluate(self) -> None:
        """Run the test sets, and write table and plot."""
        sets = test_sets.read_sets(self._out / "data" / "test", self._size.answers)
        results = asyncio.run(test_sets.evaluate(EngineSettings(self.aligner), sets, CAUTION))
        figures = {name: test_sets.compute_rates(cases) for name, cases in results.items()}
        output.write(self._out / "evaluation", "table", test_sets.format_table(results), figures)

    def _write_card(self) -> None:
        """Write the model card into the aligner folder."""
        table = (self._out / "evaluation" / "table.md").read_text(encoding="utf-8")
        stages = {
            name: json.loads((self._out / "runs" / name / "stage.json").read_text(encoding="utf-8"))
            for name in self._stages
        }
        write_card(self.aligner / "README.md", self._start.base, self._facts, self._about, self._hashes, stages, table)


def find_start(aligner: str, template: str) -> StartingPoint:
    """What a head alone is trained on: the base, adapter and template of a finished aligner."""
    folder = Path(aligner)
    if not (folder / manifest.ADAPTER).exists():
        return StartingPoint(aligner, None, sources.known_template(aligner) or template)
    try:
        about = manifest.read(folder)
    except WeightsError as error:
        raise RecipeError(f"base: {error}") from None
    if about is None or about.base is None:
        raise RecipeError(
            f"base: {aligner} holds an adapter without a base in its {manifest.MANIFEST}; export it again"
        )
    packed = about.base.gguf
    return StartingPoint(f"gguf:{packed.package}/{packed.file}" if packed else about.base.hub, folder, about.template)


def run_stage(config: Path, changes: Mapping[str, object], processes: int) -> None:
    """Train one stage in this process, or by accelerate where there are several GPUs."""
    if processes == 1:
        train.main(config, changes)
        return
    if subprocess.run(launch_command(config, changes, processes), check=False).returncode:
        raise RecipeError(f"stage {config.stem}: the processes on {processes} GPUs failed; their messages stand above")


def launch_command(config: Path, changes: Mapping[str, object], processes: int) -> list[str]:
    """The command line that trains a stage on several GPUs."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--mixed_precision", "no"]
    words = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    return [*launcher, "--num_processes", str(processes), "-m", "models.train", str(config), *words]


def _count_processes() -> int:
    return max(1, torch.cuda.device_count())
