"""Train one stage of an aligner: LoRA and detector head together, on pairs of `models.mixture`.

    python -m models.train configs/train/warmup.yaml
    python -m models.train configs/train/equal_preference.yaml
    python -m models.train configs/train/contrastive_preference.yaml

The three stages of MetaAligner (section 3.2.2) share one loss (Eqn 6, cross-entropy on the target) and differ only in
data; the detector head adds binary cross-entropy per segment. A run that is stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import BaseModel, ConfigDict
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from aligner_proxy.engine.detector import DetectorHead
from aligner_proxy.engine.manifest import sha256
from aligner_proxy.prompts import template
from models.base import load_base
from models.features import Example, encode
from models.pairs import read_pairs

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Lora(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    rank: int
    alpha: int
    first_layer: int = 0


class Stage(BaseModel):
    """One stage config; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage: str
    base: str
    data: Path
    out: Path
    init: Path | None
    template: str
    seed: int
    lora: Lora
    lr: float
    lr_floor: float
    lr_warmup_steps: int
    steps: int
    batch_tokens: int
    max_tokens: int
    target_share: float
    edit_share: float = 1.0
    detector_weight: float
    checkpoint_every: int
    compile: bool = False


# ---------------------------------------------------------------- data


def load_examples(stage: Stage, tokenizer: Any) -> list[Example]:
    """All examples of a stage, tokenised; which pairs keep their target is drawn from the seed."""
    rng = random.Random(stage.seed)
    family = template(stage.template)
    examples, too_long = [], 0
    for pair in read_pairs(stage.data):
        share = stage.target_share if pair.target == pair.answer else stage.edit_share
        example = encode(pair, tokenizer, family, with_target=rng.random() < share)
        if len(example.ids) > stage.max_tokens:
            too_long += 1
        else:
            examples.append(example)
    print(f"{stage.stage}: {len(examples)} pairs, {too_long} longer than {stage.max_tokens} tokens left out")
    return examples


def batches(examples: list[Example], stage: Stage) -> Iterator[list[Example]]:
    """Endless batches of similar length, padded to multiples of 64 so that shapes (and memory) stay few."""
    epoch = 0
    while True:
        rng = random.Random(f"{stage.seed}/{epoch}")
        order = sorted(examples, key=lambda e: (_padded(len(e.ids)), rng.random()))
        groups: list[list[Example]] = []
        for example in order:
            width = _padded(len(example.ids))
            last = groups[-1] if groups else []
            if last and _padded(len(last[0].ids)) == width and (len(last) + 1) * width <= stage.batch_tokens:
                last.append(example)
            else:
                groups.append([example])
        rng.shuffle(groups)
        yield from groups
        epoch += 1


def _padded(length: int) -> int:
    return -(-length // 64) * 64


# ---------------------------------------------------------------- model


def build(stage: Stage) -> tuple[Any, DetectorHead, Any]:
    """(peft model, head, tokenizer), from the base or from the stage before."""
    base, tokenizer = load_base(stage.base, stage.out.parent)
    if stage.init:
        model = PeftModel.from_pretrained(base, str(stage.init), is_trainable=True)
        head = DetectorHead.load(stage.init / "detector.safetensors").train()
    else:
        layers = list(range(stage.lora.first_layer, base.config.num_hidden_layers))
        lora = LoraConfig(
            r=stage.lora.rank,
            lora_alpha=stage.lora.alpha,
            target_modules=LINEARS,
            layers_to_transform=layers,
            task_type="CAUSAL_LM",
        )
        model, head = get_peft_model(base, lora), DetectorHead(base.config.hidden_size)
    return model, head, tokenizer


def compile_layers(model: Any) -> None:
    """Fuse the element-wise work of each layer; on 2 CPU cores a step then takes half the time (docs/experiments)."""
    for layer in model.get_base_model().model.layers:
        layer.compile(dynamic=True)


def losses(model: Any, head: DetectorHead, batch: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """(correction loss, detector loss) of one batch; logits are made only where the target is predicted."""
    width = _padded(max(len(e.ids) for e in batch))
    ids = torch.tensor([e.ids + [0] * (width - len(e.ids)) for e in batch])
    causal = model.get_base_model()
    # Right padding under a causal mask is never looked at, so no attention mask is needed.
    hidden = causal.model(input_ids=ids, use_cache=False).last_hidden_state
    rows, positions, weights = _target_positions(batch)
    correction = hidden.new_zeros((), dtype=torch.float32)
    if rows:
        logits = causal.lm_head(hidden[rows, [p - 1 for p in positions]]).float()
        each = F.cross_entropy(logits, ids[rows, positions], reduction="none")
        weight = torch.tensor(weights)
        correction = (each * weight).sum() / weight.sum()
    rows = [row for row, e in enumerate(batch) for _ in e.ends]
    labels = torch.tensor([float(label) for e in batch for label in e.labels])
    scores = head(hidden[rows, [end for e in batch for end in e.ends]])
    return correction, F.binary_cross_entropy_with_logits(scores, labels)


def _target_positions(batch: list[Example]) -> tuple[list[int], list[int], list[float]]:
    found = [(row, i, w) for row, e in enumerate(batch) for i, w in enumerate(e.weights) if w > 0]
    return [f[0] for f in found], [f[1] for f in found], [f[2] for f in found]


def rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine from 1 down to `lr_floor`."""
    if step < stage.lr_warmup_steps:
        return (step + 1) / stage.lr_warmup_steps
    done = (step - stage.lr_warmup_steps) / max(1, stage.steps - stage.lr_warmup_steps)
    cosine = 0.5 * (1.0 + float(torch.cos(torch.tensor(done * torch.pi))))
    return stage.lr_floor + (1.0 - stage.lr_floor) * cosine


# ---------------------------------------------------------------- checkpoints


def save(stage: Stage, model: Any, head: DetectorHead) -> None:
    """What the next stage and the export read."""
    model.save_pretrained(str(stage.out))
    head.save(stage.out / "detector.safetensors")


def checkpoint(stage: Stage, model: Any, head: DetectorHead, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Everything a resumed run needs to go on exactly: trained tensors, optimizer moments, step; written atomically."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    state = {"step": step, "model": trained, "head": head.state_dict(), "optimizer": optimizer.state_dict()}
    partial = stage.out / "checkpoint.partial"
    torch.save(state, partial)
    partial.rename(stage.out / "checkpoint.pt")


def resume(stage: Stage, model: Any, head: DetectorHead, optimizer: torch.optim.Optimizer) -> int:
    """Load the last checkpoint if there is one; returns the step to go on from."""
    path = stage.out / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"], strict=False)
    head.load_state_dict(state["head"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


# ---------------------------------------------------------------- the run


def main(config: Path) -> None:
    """Run one stage to its end."""
    stage = Stage.model_validate(yaml.safe_load(config.read_text()))
    stage.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(stage.seed)
    model, head, tokenizer = build(stage)
    examples = load_examples(stage, tokenizer)
    parameters = [p for p in model.parameters() if p.requires_grad] + list(head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.0)
    start = resume(stage, model, head, optimizer)
    if stage.compile:
        compile_layers(model)
    stream = batches(examples, stage)
    for _ in range(start):
        next(stream)
    run(stage, model, head, optimizer, stream, start)
    save(stage, model, head)
    (stage.out / "stage.json").write_text(
        json.dumps({"config": stage.model_dump(mode="json"), "data_sha256": sha256(stage.data)}, indent=1)
    )


def run(
    stage: Stage, model: Any, head: DetectorHead, optimizer: torch.optim.Optimizer, stream: Any, start: int
) -> None:
    """The loop: one batch a step, one JSON line a step in `log.jsonl`."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with (
        Progress(*columns, TimeRemainingColumn(), disable=not sys.stderr.isatty()) as bar,
        (stage.out / "log.jsonl").open("a") as log,
    ):
        task = bar.add_task(stage.stage, total=stage.steps, completed=start)
        for step in range(start, stage.steps):
            began = time.monotonic()
            batch = next(stream)
            optimizer.param_groups[0]["lr"] = stage.lr * rate(stage, step)
            with torch.autocast("cpu", torch.bfloat16):
                correction, detection = losses(model, head, batch)
            (correction + stage.detector_weight * detection).backward()
            norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tokens = sum(len(e.ids) for e in batch)
            row = {"step": step, "correction": round(correction.item(), 4), "detection": round(detection.item(), 4)}
            row |= {"norm": round(float(norm), 3), "tokens": tokens, "s": round(time.monotonic() - began, 2)}
            log.write(json.dumps(row) + "\n")
            log.flush()
            bar.update(task, completed=step + 1, description=f"{stage.stage} {row['detection']:.3f}")
            if (step + 1) % stage.checkpoint_every == 0:
                checkpoint(stage, model, head, optimizer, step + 1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
