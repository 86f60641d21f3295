"""Tokens a second of this trainer beside TRL's SFTTrainer: both in one run, in turns.

    python -m models.experiments.throughput configs/train/contrastive_preference.yaml --out runs/throughput

Both train the same adapter on the same base, by the same token ids and targets; every pair keeps its target. Padding is
not counted. TRL groups rows by length into batches of as many as ours hold on average. Ours computes the loss of the
detector head besides. The rounds of the trainers alternate, so that what else the machine does hits all of them, and
the first steps of a round are not timed. A table and a plot are written, the last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from models.data.pairs import PairError, read_pairs, write_pairs
from models.reporting import output
from models.train import batches, train
from models.train.base_model import load_base
from models.train.batches import load_examples, pad_length
from models.train.config import StageConfig, StageError
from models.train.distributed import open_accelerator, prepare_network
from models.train.features import EncodedExample

TRL = "TRL SFTTrainer"
MISSING = "TRL is not installed; it is needed for this comparison only: pip install 'aligner-proxy[trl]'"


@dataclass(frozen=True, slots=True)
class TimedRound:
    """What one trainer did in its timed steps."""

    tokens: int
    seconds: float
    steps: int

    @property
    def speed(self) -> float:
        """Tokens a second, without padding."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Speed:
    """One trainer over all of its rounds."""

    trainer: str
    rounds: tuple[TimedRound, ...]
    median: float
    """Tokens a second of the middle round."""
    faster: float
    """Its median as a multiple of TRL's."""

    @property
    def steps(self) -> int:
        """The timed steps of all rounds."""
        return sum(round_.steps for round_ in self.rounds)


Trainer = Callable[[], TimedRound]


def make_stage(config: Path, pairs: int, out: Path) -> StageConfig:
    """The stage for this comparison: its first pairs, each with its target, one batch a step, no compared replies."""
    stage = StageConfig.read(config)
    count = write_pairs(out / "pairs.jsonl", islice(read_pairs(stage.data), pairs))
    if not count:
        raise PairError(f"{stage.data} holds no pairs")
    same = {"target_share": 1.0, "edit_share": 1.0, "accumulate": 1, "bags": None, "init": None}
    return stage.model_copy(update=same | {"data": out / "pairs.jsonl", "out": out / "run"})


# ---------------------------------------------------------------- ours


def train_ours(stage: StageConfig, *, fused: bool, untimed: int, steps: int) -> TimedRound:
    """Train `untimed` steps with this repository's trainer, then time `steps` more."""
    torch.manual_seed(stage.seed)
    accelerator = open_accelerator()
    built, tokenizer = train.build_network(stage)
    network, optimizer = prepare_network(accelerator, built, torch.optim.AdamW(built.trained_parameters(), lr=stage.lr))
    if fused:
        torch.compiler.reset()
        built.fuse()
    stream = batches.make_steps(stage, tokenizer)
    for step in range(untimed):
        train.advance(network, stage, optimizer, next(stream), step, accelerator)
    began = time.perf_counter()
    tokens = 0
    for step in range(untimed, untimed + steps):
        gathered = next(stream)
        tokens += sum(len(example.ids) for batch in gathered for example in batch.examples)
        train.advance(network, stage, optimizer, gathered, step, accelerator)
    return TimedRound(tokens, time.perf_counter() - began, steps)


# ---------------------------------------------------------------- TRL


def train_by_trl(stage: StageConfig, untimed: int, steps: int) -> TimedRound:
    """Train `untimed` steps with TRL's trainer, then time `steps` more."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.manual_seed(stage.seed)
    base, tokenizer = load_base(stage.base, stage.out.parent, stage.precision)
    model = train.add_adapter(base, stage)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    examples = load_examples(stage, tokenizer)
    rows = [{"input_ids": example.ids, "labels": _labels(example)} for example in examples]

    class StepClock(TrainerCallback):  # type: ignore[misc]
        """When the timed steps began and ended, and how many tokens had been seen by then."""

        def __init__(self) -> None:
            self.began = self.end = 0.0
            self.tokens: list[int] = []

        def on_step_begin(self, arguments: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step == untimed:
                self.began = time.perf_counter()

        def on_step_end(self, arguments: Any, state: Any, control: Any, **more: Any) -> None:
            self.end = time.perf_counter()

        def on_log(self, arguments: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if "num_tokens" in (logs or {}):
                self.tokens.append(int(logs["num_tokens"]))

    clock = StepClock()
    settings = SFTConfig(
        output_dir=str(stage.out),
        per_device_train_batch_size=rows_a_batch(stage, examples),
        train_sampling_strategy="group_by_length",
        max_steps=untimed + steps,
        max_length=None,
        learning_rate=stage.lr,
        bf16=True,
        use_cpu=True,
        gradient_checkpointing=stage.gradient_checkpointing,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=stage.seed,
    )
    dataset = Dataset.from_list(rows)
    SFTTrainer(model=model, args=settings, train_dataset=dataset, processing_class=tokenizer, callbacks=[clock]).train()
    before = clock.tokens[untimed - 1] if untimed else 0
    return TimedRound(clock.tokens[untimed + steps - 1] - before, clock.end - clock.began, steps)


def _labels(example: EncodedExample) -> list[int]:
    """The tokens that are learned; all others are the -100 that TRL skips."""
    return [token if weight > 0 else -100 for token, weight in zip(example.ids, example.weights, strict=True)]


def rows_a_batch(stage: StageConfig, examples: Sequence[EncodedExample]) -> int:
    """The mean number of rows in a batch of ours."""
    each = [max(1, stage.batch_tokens // pad_length(len(example.ids))) for example in examples]
    return max(1, round(len(each) / sum(1 / rows for rows in each)))


# ---------------------------------------------------------------- the comparison


def measure(trainers: dict[str, Trainer], rounds: int) -> list[Speed]:
    """Run all trainers in turns, `rounds` times."""
    by_trainer: dict[str, list[TimedRound]] = {name: [] for name in trainers}
    for _ in range(rounds):
        for name, trainer in trainers.items():
            by_trainer[name].append(trainer())
    median_speed = {
        name: median(round_.speed for round_ in rounds_of_trainer) for name, rounds_of_trainer in by_trainer.items()
    }
    return [
        Speed(name, tuple(rounds_of_trainer), median_speed[name], median_speed[name] / median_speed[TRL])
        for name, rounds_of_trainer in by_trainer.items()
    ]


def format_table(speeds: Sequence[Speed]) -> str:
    """Markdown: a row for each trainer."""
    rows = []
    for speed_of_trainer in speeds:
        speeds_of_rounds = sorted(round_.speed for round_ in speed_of_trainer.rounds)
        spread = f"{speeds_of_rounds[0]:.0f} to {speeds_of_rounds[-1]:.0f}"
        tokens = sum(round_.tokens for round_ in speed_of_trainer.rounds)
        seconds = sum(round_.seconds for round_ in speed_of_trainer.rounds)
        speed = (f"{speed_of_trainer.median:.0f}", spread, f"{speed_of_trainer.faster:.2f}")
        rows.append((speed_of_trainer.trainer, *speed, speed_of_trainer.steps, tokens, f"{seconds:.0f}"))
    head = ("trainer", "tokens/s, median of rounds", "slowest to fastest", "times TRL", "n, steps", "tokens", "s")
    return output.table(head, rows)


def plot(speeds: Sequence[Speed], path: Path) -> None:
    """A line for each trainer, with a dot for each round."""
    with output.plot(path, size=(6, 1 + 0.5 * len(speeds))) as ((axis,),):
        for place, speed in enumerate(reversed(speeds)):
            axis.plot([round_.speed for round_ in speed.rounds], [place] * len(speed.rounds), "o")
        axis.set_yticks(range(len(speeds)), [speed.trainer for speed in reversed(speeds)])
        axis.set_xlim(left=0)
        axis.set_xlabel("tokens a second (a dot is a round)")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", type=Path, help="config of a stage")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=600, help="of the stage's file, the first ones")
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round")
    parser.add_argument("--unseen", type=int, default=4, help="steps before them")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    if find_spec("trl") is None:
        sys.exit(MISSING)
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        stage = make_stage(arguments.stage, arguments.pairs, arguments.out)
        count = {"untimed": arguments.unseen, "steps": arguments.steps}
        trainers: dict[str, Trainer] = {"ours": partial(train_ours, stage, fused=False, **count)}
        if stage.compile:
            trainers["ours, layers fused"] = partial(train_ours, stage, fused=True, **count)
        speeds = measure(trainers | {TRL: partial(train_by_trl, stage, **count)}, arguments.rounds)
    except (StageError, PairError) as problem:
        sys.exit(str(problem))
    table = format_table(speeds)
    output.write(arguments.out, "throughput", table, speeds)
    plot(speeds, arguments.out / "throughput.svg")
    print(table)
    print(json.dumps([asdict(speed) for speed in speeds]))


if __name__ == "__main__":
    main()
