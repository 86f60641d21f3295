"""Training of one stage: adapter (or whole model) and detector head together, on pairs of `models.data.mixture`.

    python -m models.train configs/train/warmup.yaml

The stages of MetaAligner (section 3.2.2) share one loss (Eqn 6, cross-entropy on the target) and differ only in data;
the detector head adds what `models.train.detector_loss` knows. A run that is stopped goes on from its last checkpoint.
Started by `accelerate launch`, several processes share every step (`models.train.distributed`).
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, get_peft_model
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.weights.manifest import ADAPTER, sha256
from models.reporting import loss_curves

from . import batches, checkpoint
from .base_model import load_base, on_disk
from .batches import Batch
from .config import Lora, Stage, StageError
from .detector_loss import known
from .distributed import launched, leave, prepare
from .network import Network

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def build(stage: Stage) -> tuple[Network, Any]:
    """(network, tokenizer), from the base or from the stage before."""
    source = str(stage.init) if stage.lora is None and stage.init else stage.base
    base, tokenizer = load_base(source, stage.out.parent, stage.precision)
    head = DetectorHead.load(stage.init / "detector.safetensors").train() if stage.init else None
    head = head or DetectorHead.create_for_model(base.config)
    if not head.fits(base.config):
        raise StageError(f"init: the detector head in {stage.init} is of another base than this stage names")
    head.ends.logical_or_(torch.tensor(stage.ends))
    network = Network(trainable(base, stage), head)
    if stage.gradient_checkpointing:
        network.recompute()
    return network, tokenizer


def trainable(base: Any, stage: Stage) -> Any:
    """The base with the adapter of this stage, or as it is where the whole model is trained."""
    if stage.lora is None:
        return base
    if stage.init:
        return _adapted(base, stage.init)
    return get_peft_model(base, _config(stage.lora, base.config.num_hidden_layers))


def _adapted(base: Any, folder: Path) -> Any:
    if not (folder / ADAPTER).exists():
        raise StageError(f"init: {folder} holds no adapter; train that stage with a lora, or this one without")
    try:
        return PeftModel.from_pretrained(base, str(folder), is_trainable=True)
    except RuntimeError as error:
        raise StageError(f"init: the adapter in {folder} is of another base than this stage names") from error


def _config(lora: Lora, depth: int) -> LoraConfig:
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=LINEARS,
        layers_to_transform=list(range(lora.first_layer, depth)),
        task_type="CAUSAL_LM",
    )


def losses(network: Any, stage: Stage, gathered: Sequence[Batch], accelerator: Accelerator) -> tuple[float, float]:
    """Back-propagate one step and say (correction, detection) loss.

    Sums are divided by the weight of all batches of the step, so that how a step is cut into batches, and who computes
    them, changes nothing.
    """
    facts = [known(b.examples, stage.other_prompts) for b in gathered]
    targets = sum(sum(e.weights) for b in gathered for e in b.examples) or 1.0
    segments = sum(f.weight for f, b in zip(facts, gathered, strict=True) if not b.bags) or 1.0
    bags = sum(len(b.examples) // 2 for b in gathered if b.bags) or 1
    # Several processes average their gradients, each over its own batches; these losses are to be summed.
    scale = stage.accumulate if accelerator.num_processes > 1 else 1
    correction = 0.0
    detection = 0.0
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    for batch, fact in list(zip(gathered, facts, strict=True))[mine]:
        with accelerator.accumulate(network):
            repaired, judged = network(batch, fact)
            repaired = repaired / targets
            judged = judged / (bags if batch.bags else segments)
            accelerator.backward((repaired + stage.detector_weight * judged) * scale)
        correction += repaired.item()
        detection += judged.item()
    if accelerator.num_processes > 1:
        sums = torch.tensor((correction, detection), device=accelerator.device)
        correction, detection = accelerator.reduce(sums, reduction="sum").tolist()
    return correction, detection


def rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine from 1 down to `lr_floor`."""
    if step < stage.lr_warmup_steps:
        return (step + 1) / stage.lr_warmup_steps
    whole = stage.schedule or stage.steps
    done = (step - stage.lr_warmup_steps) / max(1, whole - stage.lr_warmup_steps)
    cosine = 0.5 * (1.0 + float(torch.cos(torch.tensor(done * torch.pi))))
    return stage.lr_floor + (1.0 - stage.lr_floor) * cosine


# ---------------------------------------------------------------- what stays


def save(stage: Stage, network: Network, tokenizer: Any, weights: dict[str, Tensor] | None = None) -> None:
    """What the next stage and the export read; `weights` are those of a network that is spread over processes."""
    if weights is None:
        network.model.save_pretrained(str(stage.out))
        network.head.save(stage.out / "detector.safetensors")
    else:
        if network.causal.config.tie_word_embeddings:
            weights.pop("model.lm_head.weight", None)  # the embeddings again
        network.model.save_pretrained(str(stage.out), state_dict=_below("model.", weights))
        save_file(_below("head.", weights), str(stage.out / "detector.safetensors"))
    if stage.lora is None:
        tokenizer.save_pretrained(str(stage.out))
    document = {"config": stage.model_dump(mode="json"), "data_sha256": sha256(stage.data)}
    (stage.out / "stage.json").write_text(json.dumps(document, indent=1))


def _below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    mine = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return {name: tensor.contiguous() for name, tensor in mine.items()}


# ---------------------------------------------------------------- the run


def main(config: Path) -> None:
    """Run one stage to its end."""
    stage = Stage.read(config)
    accelerator = launched(stage.accumulate)
    together = accelerator.num_processes > 1
    stage.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(stage.seed)
    with accelerator.main_process_first():  # one converts it, the others find it
        on_disk(stage.base, stage.out.parent)
    built, tokenizer = build(stage)  # at the same time: sharded weights are loaded together
    built.touch_all = together
    plain = torch.optim.AdamW(built.trained(), lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.0)
    network, optimizer = prepare(accelerator, built, plain)
    start = checkpoint.start(stage, accelerator, network, optimizer)
    if stage.compile:
        torch.compiler.reset()  # a process that trains many stages would come to its limit of compiled shapes
        built.fuse()
    stream = islice(batches.steps(stage, tokenizer), start, None)
    first = accelerator.is_main_process
    with _log(stage, first, start) as log, _progress(stage, start, first) as bar:
        for step in range(start, stage.steps):
            row = {"step": step} | advance(network, stage, optimizer, next(stream), step, accelerator)
            if log:
                log.write(json.dumps(row) + "\n")
                log.flush()
            bar.update(bar.task_ids[0], completed=step + 1, description=f"{stage.stage} {row['detection']:.3f}")
            if (step + 1) % stage.checkpoint_every == 0:
                checkpoint.keep(stage, accelerator, network, optimizer, step + 1)
    weights = accelerator.get_state_dict(network) if together else None  # whole; every process has to ask
    if first:
        save(stage, built, tokenizer, weights)
        loss_curves.draw(stage.out)


def _log(stage: Stage, first: bool, start: int) -> AbstractContextManager[TextIO | None]:
    """A row for every step; those of steps that are made again, the last of them perhaps torn, are cut off."""
    if not first:
        return nullcontext()
    path = stage.out / "log.jsonl"
    rows: dict[int, str] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            rows[json.loads(line)["step"]] = line
    path.write_text("".join(f"{rows[step]}\n" for step in sorted(rows) if step < start))
    return path.open("a")


def advance(
    network: Any, stage: Stage, optimizer: Any, gathered: Sequence[Batch], step: int, accelerator: Accelerator
) -> dict[str, float]:
    """One optimiser step; what goes into the log."""
    began = time.monotonic()
    optimizer.param_groups[0]["lr"] = stage.lr * rate(stage, step)
    correction, detection = losses(network, stage, gathered, accelerator)
    norm = float(accelerator.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {
        "correction": round(correction, 4),
        "detection": round(detection, 4),
        "norm": round(norm, 3),
        "bags": sum(batch.bags for batch in gathered),
        "tokens": sum(len(e.ids) for batch in gathered for e in batch.examples),
        "s": round(time.monotonic() - began, 2),
    }


def _progress(stage: Stage, start: int, shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    bar = Progress(*columns, TimeRemainingColumn(), disable=not (shown and sys.stderr.isatty()))
    bar.add_task(stage.stage, total=stage.steps, completed=start)
    return bar


def command() -> None:
    """Command line."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except (StageError, batches.PairError) as problem:
        sys.exit(str(problem))
    finally:
        leave()
