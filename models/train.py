"""Train one stage of an aligner: adapter (or whole model) and detector head together, on pairs of `models.mixture`.

    python -m models.train configs/train/warmup.yaml

The stages of MetaAligner (section 3.2.2) share one loss (Eqn 6, cross-entropy on the target) and differ only in data;
the detector head adds what `models.detection` knows. A run that is stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from aligner_proxy.engine.detector import DetectorHead, Taps
from aligner_proxy.engine.manifest import ADAPTER, sha256
from models import batches, curves
from models.base import load_base
from models.batches import Batch
from models.detection import bag_loss, detection_loss, known
from models.features import Example
from models.stage import Lora, Stage, StageError

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Network:
    """The model that is trained, its head, and the states that the head reads."""

    def __init__(self, model: Any, head: DetectorHead) -> None:
        self.model, self.head = model, head
        self.causal = model.get_base_model() if isinstance(model, PeftModel) else model
        self._taps: Taps = head.taps(self.causal.model)

    def parameters(self) -> list[Tensor]:
        """Everything that is trained."""
        return [p for p in (*self.model.parameters(), *self.head.parameters()) if p.requires_grad]

    def compile(self) -> None:
        """Fuse the element-wise work of each layer; on 2 CPU cores a step takes half the time (docs/experiments)."""
        for layer in self.causal.model.layers:
            layer.compile(dynamic=True)

    def forward(self, batch: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
        """(token ids, states after the final norm, states for the head) of a padded batch."""
        width = batches.padded(max(len(e.ids) for e in batch))
        ids = torch.tensor([e.ids + [0] * (width - len(e.ids)) for e in batch])
        # Right padding under a causal mask is never looked at, so no attention mask is needed.
        hidden = self.causal.model(input_ids=ids, use_cache=False).last_hidden_state
        return ids, hidden, self._taps.take(hidden)

    def correction_loss(self, batch: Sequence[Example], ids: Tensor, hidden: Tensor) -> Tensor:
        """Weighted sum of cross-entropies on the targets; logits are made only there."""
        found = [(row, i, w) for row, e in enumerate(batch) for i, w in enumerate(e.weights) if w > 0]
        if not found:
            return hidden.new_zeros((), dtype=torch.float32)
        rows, positions, weights = (list(column) for column in zip(*found, strict=True))
        logits = self.causal.lm_head(hidden[rows, [p - 1 for p in positions]]).float()
        each = F.cross_entropy(logits, ids[rows, positions], reduction="none")
        return (each * torch.tensor(weights)).sum()


def build(stage: Stage) -> tuple[Network, Any]:
    """(network, tokenizer), from the base or from the stage before."""
    source = str(stage.init) if stage.lora is None and stage.init else stage.base
    base, tokenizer = load_base(source, stage.out.parent, stage.precision)
    head = DetectorHead.load(stage.init / "detector.safetensors").train() if stage.init else None
    head = head or DetectorHead.over(base.config)
    if stage.lora is None:
        return Network(base, head), tokenizer
    if stage.init:
        return Network(_adapted(base, stage.init), head), tokenizer
    return Network(get_peft_model(base, _config(stage.lora, base.config.num_hidden_layers)), head), tokenizer


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


def losses(network: Network, stage: Stage, gathered: Sequence[Batch]) -> tuple[float, float]:
    """Back-propagate one step and say (correction, detection) loss.

    Sums are divided by the weight of all batches of the step, so that how a step is cut into batches changes nothing.
    """
    facts = [known(b.examples, stage.other_prompts) for b in gathered]
    targets = sum(sum(e.weights) for b in gathered for e in b.examples) or 1.0
    segments = sum(f.weight for f, b in zip(facts, gathered, strict=True) if not b.bags) or 1.0
    bags = sum(len(b.examples) // 2 for b in gathered if b.bags) or 1
    correction, detection = 0.0, 0.0
    for batch, fact in zip(gathered, facts, strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            ids, hidden, states = network.forward(batch.examples)
            repaired = network.correction_loss(batch.examples, ids, hidden) / targets
        if batch.bags:
            judged = bag_loss(network.head, states, batch.examples) / bags
        else:
            judged = detection_loss(network.head, states, batch.examples, fact) / segments
        (repaired + stage.detector_weight * judged).backward()  # type: ignore[no-untyped-call]
        correction, detection = correction + repaired.item(), detection + judged.item()
    return correction, detection


def rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine from 1 down to `lr_floor`."""
    if step < stage.lr_warmup_steps:
        return (step + 1) / stage.lr_warmup_steps
    whole = stage.schedule or stage.steps
    done = (step - stage.lr_warmup_steps) / max(1, whole - stage.lr_warmup_steps)
    cosine = 0.5 * (1.0 + float(torch.cos(torch.tensor(done * torch.pi))))
    return stage.lr_floor + (1.0 - stage.lr_floor) * cosine


# ---------------------------------------------------------------- checkpoints


def save(stage: Stage, network: Network, tokenizer: Any) -> None:
    """What the next stage and the export read."""
    network.model.save_pretrained(str(stage.out))
    network.head.save(stage.out / "detector.safetensors")
    if stage.lora is None:
        tokenizer.save_pretrained(str(stage.out))
    told = {"config": stage.model_dump(mode="json"), "data_sha256": sha256(stage.data)}
    (stage.out / "stage.json").write_text(json.dumps(told, indent=1))


def checkpoint(stage: Stage, network: Network, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Everything a resumed run needs to go on exactly: trained tensors, optimizer moments, step; written atomically."""
    trained = {name: p for name, p in network.model.named_parameters() if p.requires_grad}
    state = {"step": step, "model": trained, "head": network.head.state_dict(), "optimizer": optimizer.state_dict()}
    partial = stage.out / "checkpoint.partial"
    torch.save(state, partial)  # a full disk fails here, and the checkpoint before stays
    partial.rename(stage.out / "checkpoint.pt")


def resume(stage: Stage, network: Network, optimizer: torch.optim.Optimizer) -> int:
    """Load the last checkpoint if there is one; returns the step to go on from."""
    path = stage.out / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    network.model.load_state_dict(state["model"], strict=False)
    network.head.load_state_dict(state["head"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


# ---------------------------------------------------------------- the run


def main(config: Path) -> None:
    """Run one stage to its end."""
    stage = Stage.read(config)
    stage.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(stage.seed)
    network, tokenizer = build(stage)
    optimizer = torch.optim.AdamW(network.parameters(), lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.0)
    start = resume(stage, network, optimizer)
    if stage.compile:
        network.compile()
    stream = batches.steps(stage, tokenizer)
    for _ in range(start):
        next(stream)
    with (stage.out / "log.jsonl").open("a") as log, _progress(stage, start) as bar:
        for step in range(start, stage.steps):
            row = {"step": step} | advance(network, stage, optimizer, next(stream), step)
            log.write(json.dumps(row) + "\n")
            log.flush()
            bar.update(bar.task_ids[0], completed=step + 1, description=f"{stage.stage} {row['detection']:.3f}")
            if (step + 1) % stage.checkpoint_every == 0:
                checkpoint(stage, network, optimizer, step + 1)
    save(stage, network, tokenizer)
    curves.draw(stage.out)


def advance(
    network: Network, stage: Stage, optimizer: torch.optim.Optimizer, gathered: Sequence[Batch], step: int
) -> dict[str, float]:
    """One optimiser step; what goes into the log."""
    began = time.monotonic()
    optimizer.param_groups[0]["lr"] = stage.lr * rate(stage, step)
    correction, detection = losses(network, stage, gathered)
    norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {
        "correction": round(correction, 4),
        "detection": round(detection, 4),
        "norm": round(float(norm), 3),
        "bags": sum(batch.bags for batch in gathered),
        "tokens": sum(len(e.ids) for batch in gathered for e in batch.examples),
        "s": round(time.monotonic() - began, 2),
    }


def _progress(stage: Stage, start: int) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    bar = Progress(*columns, TimeRemainingColumn(), disable=not sys.stderr.isatty())
    bar.add_task(stage.stage, total=stage.steps, completed=start)
    return bar


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except (StageError, batches.PairError) as problem:
        sys.exit(str(problem))
