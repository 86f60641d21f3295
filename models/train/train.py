"""Training of one stage: adapter (or whole model) and detector head together, on pairs of `models.data.mixture`.

    python -m models.train configs/train/warmup.yaml [out=runs/elsewhere max_seconds=300 ...]

The stages of MetaAligner (section 3.2.2) share one loss (Eqn 6, cross-entropy on the target) and differ only in data;
the detector head adds what `models.train.detector_loss` knows. A run that is stopped goes on from its last checkpoint.
Started by `accelerate launch`, several processes share every step (`models.train.distributed`).
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
import yaml
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, get_peft_model
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.weights.manifest import ADAPTER
from models.reporting import loss_curves

from . import batches, checkpoint
from .base_model import load_base, prepare_source
from .batches import TrainingBatch
from .config import Lora, StageConfig, StageError
from .detector_loss import BatchFacts, collect_facts
from .distributed import leave_group, open_accelerator, prepare_network
from .network import Network
from .save import save
from .snapshots import Snapshots


def build_network(stage: StageConfig) -> tuple[Network, Any]:
    """(network, tokenizer), built on the base, or on what the stage before left."""
    source = str(stage.init) if stage.lora is None and stage.init else stage.base_source
    base, tokenizer = load_base(source, stage.out.parent, stage.precision)
    stored_head = stage.init / "detector.safetensors" if stage.init else None
    if stored_head and (stored_head.exists() or not stage.head_only):
        head = DetectorHead.load(stored_head).train()
    else:
        head = DetectorHead.create_for_model(base.config)
    if not head.fits(base.config):
        raise StageError(f"init: the detector head in {stage.init} is of another base than this stage names")
    head.ends.logical_or_(torch.tensor(stage.ends))
    model = add_adapter(base, stage)
    if stage.head_only:
        model.requires_grad_(False)
    network = Network(model, head)
    if stage.gradient_checkpointing:
        network.recompute()
    return network, tokenizer


def add_adapter(base: Any, stage: StageConfig) -> Any:
    """The base with the adapter of this stage, or as it is where the whole model is trained."""
    if stage.lora is None:
        return base
    if stage.init:
        return _load_adapter(base, stage.init)
    return get_peft_model(base, _make_lora_config(stage.lora, base))


def list_linears(base: Any) -> list[str]:
    """The names of the linear layers inside the decoder layers, for example `q_proj`; each gets an adapter."""
    modules = base.model.layers.named_modules()
    return sorted({name.rpartition(".")[2] for name, module in modules if isinstance(module, nn.Linear)})


def _load_adapter(base: Any, folder: Path) -> Any:
    """The base with the adapter in `folder`, which is trained further; raises `StageError`."""
    if not (folder / ADAPTER).exists():
        raise StageError(f"init: {folder} holds no adapter; train that stage with a lora, or this one without")
    try:
        return PeftModel.from_pretrained(base, str(folder), is_trainable=True)
    except RuntimeError as error:
        raise StageError(f"init: the adapter in {folder} is of another base than this stage names") from error


def _make_lora_config(lora: Lora, base: Any) -> LoraConfig:
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list_linears(base),
        layers_to_transform=list(range(lora.first_layer, base.config.num_hidden_layers)),
        task_type="CAUSAL_LM",
    )


def collect_step_facts(gathered: Sequence[TrainingBatch], stage: StageConfig) -> list[BatchFacts]:
    """What is known about each batch of a step before the model has read it."""
    return [collect_facts(batch.examples, stage.other_prompts, stage.whole_weight) for batch in gathered]


def backpropagate_step(
    network: Any,
    stage: StageConfig,
    gathered: Sequence[TrainingBatch],
    accelerator: Accelerator,
    facts: Sequence[BatchFacts] | None = None,
) -> tuple[Tensor, Tensor]:
    """Back-propagate one step, and return its losses (correction, detection).

    Sums are divided by the weight of all batches of the step, so that how a step is cut into batches, and who computes
    them, changes nothing.
    """
    facts = facts or collect_step_facts(gathered, stage)
    target_weight = sum(sum(example.weights) for batch in gathered for example in batch.examples) or 1.0
    segment_weight = (
        sum(of_batch.weight for of_batch, batch in zip(facts, gathered, strict=True) if not batch.bags) or 1.0
    )
    bag_count = sum(len(batch.examples) // 2 for batch in gathered if batch.bags) or 1
    # Several processes average their gradients, each over its own batches; these losses are to be summed.
    scale = stage.accumulate if accelerator.num_processes > 1 else 1
    sums = torch.zeros(2, device=accelerator.device)
    own_share = slice(accelerator.process_index, None, accelerator.num_processes)
    for batch, fact in list(zip(gathered, facts, strict=True))[own_share]:
        with accelerator.accumulate(network):
            correction_loss, detection_loss = network(batch, fact)
            correction_loss = correction_loss / target_weight
            detection_loss = detection_loss / (bag_count if batch.bags else segment_weight)
            accelerator.backward((correction_loss + stage.detector_weight * detection_loss) * scale)
        # Nothing waits here for the device: it computes while the next step is prepared.
        sums += torch.stack([correction_loss.detach(), detection_loss.detach()]).float()
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums, reduction="sum")
    correction, detection = sums.unbind()
    return correction, detection


def learning_rate_share(stage: StageConfig, step: int, time_share: float = 0.0) -> float:
    """Linear warm-up, then a cosine from 1 down to `lr_floor`; `time_share` is how much of its time is over."""
    if step < stage.lr_warmup_steps:
        return (step + 1) / stage.lr_warmup_steps
    whole = stage.schedule or stage.steps
    done = (step - stage.lr_warmup_steps) / max(1, whole - stage.lr_warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(max(done, time_share) * math.pi))
    return stage.lr_floor + (1.0 - stage.lr_floor) * cosine


# ---------------------------------------------------------------- the run


class RunClock:
    """The share of a run's time that is over, counted from its first step; always 0 where its time is not limited."""

    def __init__(self, stage: StageConfig, began: float) -> None:
        self._first = time.monotonic()
        self._limit = began + stage.max_seconds - self._first if stage.max_seconds else None

    def share(self) -> float:
        """1 or more when nothing is left."""
        if self._limit is None:
            return 0.0
        return (time.monotonic() - self._first) / self._limit if self._limit > 0 else 1.0


def main(config: Path, changes: Mapping[str, object] | None = None) -> None:
    """Run one stage to its end; `changes` are settings in place of those in the file."""
    began = time.monotonic()
    stage = StageConfig.read(config, changes)
    accelerator = open_accelerator(stage.accumulate)
    together = accelerator.num_processes > 1
    if together and (stage.max_seconds or stage.snapshots or stage.blends):
        raise StageError("max_seconds, snapshots and blends are for a run of one process")
    stage.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(stage.seed)
    with accelerator.main_process_first():  # one converts it, the others find it
        prepare_source(stage.base_source, stage.out.parent)
    built, tokenizer = build_network(stage)  # at the same time: sharded weights are loaded together
    built.touch_all = together
    plain = torch.optim.AdamW(built.trained_parameters(), lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.0)
    network, optimizer = prepare_network(accelerator, built, plain)
    start = checkpoint.find_start(stage, accelerator, network, optimizer)
    if stage.compile:
        torch.compiler.reset()  # a process that trains many stages would come to its limit of compiled shapes
        built.fuse()
    stream = islice(batches.make_steps(stage, tokenizer), start, None)
    snapshots = Snapshots(stage, built, tokenizer)
    step = _run(stage, accelerator, network, optimizer, _RunCourse(stream, snapshots, start, began))
    weights = accelerator.get_state_dict(network) if together else None  # whole; every process has to ask
    if accelerator.is_main_process:
        save(stage, built, tokenizer, weights)
        snapshots.finish(step)
        with contextlib.suppress(ModuleNotFoundError):  # a borrowed machine may have nothing to draw with
            loss_curves.draw_curves(stage.out)


@dataclass(frozen=True, slots=True)
class _RunCourse:
    """What the steps of a run take from, and where they begin."""

    stream: Iterator[list[TrainingBatch]]
    snapshots: Snapshots
    start: int
    """The number of the first step."""
    began: float
    """When the time of the run began (time.monotonic)."""


def _run(stage: StageConfig, accelerator: Accelerator, network: Any, optimizer: Any, course: _RunCourse) -> int:
    """Make steps until there are enough or the time is over, and return the number of the step that would be next."""
    is_main = accelerator.is_main_process
    step = course.start
    with _open_log(stage, step, is_main=is_main) as log, _open_progress(stage, step, is_main=is_main) as bar:
        prepared_step = _prepare_step(course.stream, stage)
        clock = RunClock(stage, course.began)
        while step < stage.steps and (time_share := clock.share()) < 1:
            course.snapshots.take_due(max(time_share, step / stage.steps), step)
            step_start = time.monotonic()
            measured = advance(
                network, stage, optimizer, prepared_step.batches, step, accelerator, prepared_step.facts, time_share
            )
            prepared_step = _prepare_step(course.stream, stage)
            row = {"step": step} | {name: round(float(value), 4) for name, value in measured.items()}
            row["s"] = round(time.monotonic() - step_start, 2)
            if log:
                log.write(json.dumps(row) + "\n")
                log.flush()
            step += 1
            bar.update(bar.task_ids[0], completed=step, description=f"{stage.stage} {row['detection']:.3f}")
            if step % stage.checkpoint_every == 0:
                checkpoint.keep_checkpoint(stage, accelerator, network, optimizer, step)
    return step


class _PreparedStep(NamedTuple):
    batches: list[TrainingBatch]
    facts: list[BatchFacts]
    """What is known about each batch before the model has read it."""


def _prepare_step(stream: Iterator[list[TrainingBatch]], stage: StageConfig) -> _PreparedStep:
    """Draw the batches of the next step, and collect what is known about them."""
    gathered = next(stream)
    return _PreparedStep(gathered, collect_step_facts(gathered, stage))


def _open_log(stage: StageConfig, start: int, *, is_main: bool) -> AbstractContextManager[TextIO | None]:
    """Open the log, which gets a row for each step; None for all processes but the main one.

    Rows of steps that will be made again are cut off, and so is a torn last row.
    """
    if not is_main:
        return nullcontext()
    path = stage.out / "log.jsonl"
    rows: dict[int, str] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            rows[json.loads(line)["step"]] = line
    path.write_text("".join(f"{rows[step]}\n" for step in sorted(rows) if step < start))
    return path.open("a")


def advance(
    network: Any,
    stage: StageConfig,
    optimizer: Any,
    gathered: Sequence[TrainingBatch],
    step: int,
    accelerator: Accelerator,
    facts: Sequence[BatchFacts] | None = None,
    time_share: float = 0.0,
) -> dict[str, float | Tensor]:
    """Make one optimiser step, and return its row of the log. Losses may still be computing on the device."""
    optimizer.param_groups[0]["lr"] = stage.lr * learning_rate_share(stage, step, time_share)
    correction, detection = backpropagate_step(network, stage, gathered, accelerator, facts)
    norm = accelerator.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {
        "correction": correction,
        "detection": detection,
        "norm": norm,
        "bags": sum(batch.bags for batch in gathered),
        "tokens": sum(len(example.ids) for batch in gathered for example in batch.examples),
    }


def _open_progress(stage: StageConfig, start: int, *, is_main: bool) -> Progress:
    """A progress bar that only the main process shows, and only on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    bar = Progress(*columns, TimeRemainingColumn(), disable=not (is_main and sys.stderr.isatty()))
    bar.add_task(stage.stage, total=stage.steps, completed=start)
    return bar


def run_command() -> None:
    """Command line."""
    if len(sys.argv) < 2 or not all("=" in word for word in sys.argv[2:]):
        sys.exit(__doc__)
    changes = {name: yaml.safe_load(value) for name, _, value in (word.partition("=") for word in sys.argv[2:])}
    try:
        main(Path(sys.argv[1]), changes)
    except (StageError, batches.PairError) as problem:
        sys.exit(str(problem))
    finally:
        leave_group()
