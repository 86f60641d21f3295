"""Training of Meal's Preference-Weight-Net, in two levels, over a frozen aligner.

    python -m models.systems.meal.train configs/meal/embedded.yaml

Each step takes one task: a kind of prompt and a few objectives that compete. A run that is stopped goes on from its
last checkpoint, exactly. In `out` lie the net, the base learner's moved parameters, a log and its curves.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_proxy.engine.loader import EngineSettings, prepare
from aligner_proxy.engine.model.tokenizer import PromptTokenizer
from aligner_proxy.policy.config import home_folder
from models.reporting import loss_curves, output

from . import bilevel, data
from .config import Meal, MealError
from .encoder import Encoder, uniform
from .learner import Learner, Params
from .net import WeightNet

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
NET = "meal.safetensors"
HELD_OUT = 36
"""Tasks: every kind three times."""


def load(meal: Meal) -> tuple[Any, Any, PromptTokenizer]:
    """(encoder, base learner, tokenizer), from the embedded aligner with its adapter merged, or from a folder."""
    folder = (
        prepare(EngineSettings("embedded", quantization="none"), home_folder())[1]
        if meal.base == "embedded"
        else meal.base
    )
    options = {"dtype": getattr(torch, meal.dtype), "attn_implementation": "eager"}
    # The attention that is written out is the only one whose derivative can be differentiated again.
    model, learner = (AutoModelForCausalLM.from_pretrained(str(folder), **options) for _ in range(2))
    learner.model.layers = learner.model.layers[: meal.depth]
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    eos = frozenset({int(tokenizer.eos_token_id)})
    return model.eval(), learner, PromptTokenizer(tokenizer.backend_tokenizer, eos)


def begun(meal: Meal, encoder: Encoder, config: Any) -> WeightNet:
    """A new net that knows the middle of its training texts."""
    net = WeightNet.over(config, meal.width)
    known = data.material()
    with torch.no_grad():
        texts = [text for facet in known.objectives.values() for text in facet.texts[:-1]]
        prompts = [text for kind in known.kinds.values() for text in kind.prompts()]
        net.centre(encoder.rows(prompts), encoder.rows(texts))
    return net


def measured(meal: Meal, learner: Learner, start: Params, weigh: bilevel.Weigh) -> float:
    """Mean outer loss on probes, one step from where the base learner began: so it tells of these weights alone."""
    lost = []
    for task in data.held_out(meal.seed, HELD_OUT, meal.objectives):
        moved = bilevel.taken(learner, start, weigh, task, lr=meal.inner_lr)
        with torch.no_grad():
            lost.append(bilevel.preference(learner, moved, weigh, task, meal.beta).item())
    return sum(lost) / len(lost)


# ---------------------------------------------------------------- what stays


def keep(meal: Meal, step: int, net: WeightNet, params: Params, optimizer: torch.optim.Optimizer) -> None:
    """Write the checkpoint beside the one before, and put it in its place when it is whole."""
    partial_file = meal.out / "checkpoint.partial"
    state = {"step": step, "net": net.state_dict(), "params": params, "optimizer": optimizer.state_dict()}
    torch.save(state | {"settings": settings(meal)}, partial_file)
    partial_file.replace(meal.out / CHECKPOINT)


def resume(meal: Meal, net: WeightNet, params: Params, optimizer: torch.optim.Optimizer) -> int:
    """Load the last checkpoint if there is one; the step to go on from. Raises `MealError` for another run's."""
    path = meal.out / CHECKPOINT
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["settings"] != settings(meal):
        changed = [n for n, value in settings(meal).items() if state["settings"].get(n) != value]
        raise MealError(f"out: {path} is of a run with another {', '.join(changed)}; name another folder, or remove it")
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    params.update({n: p.requires_grad_() for n, p in state["params"].items()})
    return int(state["step"])


def settings(meal: Meal) -> dict[str, Any]:
    """All that decides which steps a run makes."""
    free = {"out", "steps", "checkpoint_every"}
    return {n: value for n, value in meal.model_dump(mode="json").items() if n not in free}


def draw(folder: Path) -> Path:
    """Write curves.svg from the log; a step that was done again counts once."""
    rows = {row["step"]: row for row in map(json.loads, (folder / LOG).read_text().splitlines())}
    with output.plot(folder / "curves.svg", size=(7, 3.5)) as ((axis,),):
        for name in ("inner", "outer", "held_out", "held_out_uniform"):
            mine = [row for row in rows.values() if name in row]
            values = [row[name] for row in mine]
            shown = values if name.startswith("held_out") else loss_curves.smooth_losses(values)
            axis.plot([row["step"] for row in mine], shown, label=name.replace("_", " "))
        axis.set_xlabel("step")
        axis.set_ylabel("loss (nats)")
        axis.legend()
    return folder / "curves.svg"


# ---------------------------------------------------------------- the run


def main(config: Path) -> None:
    """Run to the end."""
    meal = Meal.read(config)
    meal.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(meal.seed)
    model, base, tokenizer = load(meal)
    learner = Learner(base, tokenizer, meal.template, embedded=meal.weights_as == "embedding")
    encoder = Encoder(model, tokenizer, WeightNet.over(model.config).layers.tolist())
    net = begun(meal, encoder, model.config)
    params = learner.initial(meal.trained)
    start = {n: p.detach().clone().requires_grad_() for n, p in params.items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=meal.outer_lr, weight_decay=meal.weight_decay)
    weigh = partial(encoder.weigh, net)
    first = resume(meal, net, params, optimizer)
    by_uniform = measured(meal, learner, start, uniform)
    stream = islice(data.tasks(meal.seed, meal.objectives, meal.prompts), first, None)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), disable=not sys.stderr.isatty()
    )
    shown = bar.add_task("meal", total=meal.steps, completed=first)
    with (meal.out / LOG).open("a") as log, bar:
        for number in range(first, meal.steps):
            began = time.monotonic()
            task = next(stream)
            row: dict[str, Any] = {"step": number, "kind": task.kind}
            if number % meal.held_out_every == 0:
                row |= {"held_out": measured(meal, learner, start, weigh), "held_out_uniform": by_uniform}
            unrolled = meal.gradient == "unrolled"
            done = bilevel.step(learner, params, weigh, task, lr=meal.inner_lr, beta=meal.beta, unrolled=unrolled)
            chosen = weigh([one.query for one in task.inner], task.texts)
            spread = -(chosen * chosen.clamp(min=1e-9).log()).sum(-1).mean()
            (done.outer - meal.entropy * spread).backward()
            norm = float(torch.nn.utils.clip_grad_norm_(net.parameters(), meal.clip))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            params = done.moved  # the step that was looked through is also taken
            matters = task.names.index(data.material().kinds[task.kind].matters[0])
            row |= {"inner": done.inner, "outer": done.outer.item(), "norm": norm}
            row |= {"weight": float(done.weights[:, matters].mean()), "s": round(time.monotonic() - began, 2)}
            log.write(json.dumps(row) + "\n")
            log.flush()
            bar.update(shown, completed=number + 1, description=f"meal {row['outer']:.3f}")
            if (number + 1) % meal.checkpoint_every == 0 or number + 1 == meal.steps:
                keep(meal, number + 1, net, params, optimizer)
    net.save(meal.out / NET)
    print(json.dumps({"held_out": measured(meal, learner, start, weigh), "held_out_uniform": by_uniform}))
    print(draw(meal.out))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except MealError as problem:
        sys.exit(str(problem))
