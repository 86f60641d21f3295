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
from .encoder import Encoder, uniform_weights
from .learner import Learner, Params
from .net import TorchWeightNet

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
NET = "meal.safetensors"
HELD_OUT = 36
"""Tasks: every kind three times."""


def load_models(meal: Meal) -> tuple[Any, Any, PromptTokenizer]:
    """(encoder, base learner, tokenizer).

    They come from the embedded aligner with its adapter merged, or from a folder.
    """
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


def make_net(meal: Meal, encoder: Encoder, config: Any) -> TorchWeightNet:
    """A new net, which scales its inputs by mean and deviation of the training texts."""
    net = TorchWeightNet.from_config(config, meal.width)
    material = data.material()
    with torch.no_grad():
        # the last text of each objective only tests
        texts = [text for facet in material.objectives.values() for text in facet.texts[:-1]]
        prompts = [text for kind in material.kinds.values() for text in kind.prompts()]
        net.centre(encoder.rows(prompts), encoder.rows(texts))
    return net


def measure_outer_loss(meal: Meal, learner: Learner, start: Params, weigh: bilevel.Weigh) -> float:
    """The mean outer loss on probes after one step from the base learner's start: it shows these weights alone."""
    losses = []
    for task in data.draw_probe_tasks(meal.seed, HELD_OUT, meal.objectives):
        moved = bilevel.take_inner_step(learner, start, weigh, task, lr=meal.inner_lr)
        with torch.no_grad():
            losses.append(bilevel.preference_loss(learner, moved, weigh, task, meal.beta).item())
    return sum(losses) / len(losses)


# ---------------------------------------------------------------- what stays


def write_checkpoint(
    meal: Meal, step: int, net: TorchWeightNet, params: Params, optimizer: torch.optim.Optimizer
) -> None:
    """Write the checkpoint beside the one before, and replace that one once it is whole."""
    partial_file = meal.out / "checkpoint.partial"
    state = {"step": step, "net": net.state_dict(), "params": params, "optimizer": optimizer.state_dict()}
    torch.save(state | {"settings": run_settings(meal)}, partial_file)
    partial_file.replace(meal.out / CHECKPOINT)


def resume(meal: Meal, net: TorchWeightNet, params: Params, optimizer: torch.optim.Optimizer) -> int:
    """Load the last checkpoint if there is one, and return the next step. Raises `MealError` for another run's."""
    path = meal.out / CHECKPOINT
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["settings"] != run_settings(meal):
        changed = [name for name, value in run_settings(meal).items() if state["settings"].get(name) != value]
        raise MealError(f"out: {path} is of a run with another {', '.join(changed)}; name another folder, or remove it")
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    params.update({name: parameter.requires_grad_() for name, parameter in state["params"].items()})
    return int(state["step"])


def run_settings(meal: Meal) -> dict[str, Any]:
    """All settings that decide the steps of a run."""
    free = {"out", "steps", "checkpoint_every"}
    return {n: value for n, value in meal.model_dump(mode="json").items() if n not in free}


def draw_curves(folder: Path) -> Path:
    """Draw curves.svg from the log. Of a step that was made twice the later row counts."""
    rows = {row["step"]: row for row in map(json.loads, (folder / LOG).read_text().splitlines())}
    with output.plot(folder / "curves.svg", size=(7, 3.5)) as ((axis,),):
        for name in ("inner", "outer", "held_out", "held_out_uniform"):
            selected = [row for row in rows.values() if name in row]
            values = [row[name] for row in selected]
            curve = values if name.startswith("held_out") else loss_curves.smooth_losses(values)
            axis.plot([row["step"] for row in selected], curve, label=name.replace("_", " "))
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
    model, base, tokenizer = load_models(meal)
    learner = Learner(base, tokenizer, meal.template, embedded=meal.weights_as == "embedding")
    encoder = Encoder(model, tokenizer, TorchWeightNet.from_config(model.config).layers.tolist())
    net = make_net(meal, encoder, model.config)
    params = learner.initial_params(meal.trained)
    start = {n: parameter.detach().clone().requires_grad_() for n, parameter in params.items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=meal.outer_lr, weight_decay=meal.weight_decay)
    weigh = partial(encoder.weigh, net)
    first = resume(meal, net, params, optimizer)
    uniform_loss = measure_outer_loss(meal, learner, start, uniform_weights)
    stream = islice(data.draw_tasks(meal.seed, meal.objectives, meal.prompts), first, None)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), disable=not sys.stderr.isatty()
    )
    progress_task = bar.add_task("meal", total=meal.steps, completed=first)
    with (meal.out / LOG).open("a") as log, bar:
        for number in range(first, meal.steps):
            began = time.monotonic()
            task = next(stream)
            row: dict[str, Any] = {"step": number, "kind": task.kind}
            if number % meal.held_out_every == 0:
                row |= {"held_out": measure_outer_loss(meal, learner, start, weigh), "held_out_uniform": uniform_loss}
            unrolled = meal.gradient == "unrolled"
            result = bilevel.step(learner, params, weigh, task, lr=meal.inner_lr, beta=meal.beta, unrolled=unrolled)
            weights = weigh([prompt.query for prompt in task.inner], task.texts)
            spread = -(weights * weights.clamp(min=1e-9).log()).sum(-1).mean()
            (result.outer - meal.entropy * spread).backward()
            norm = float(torch.nn.utils.clip_grad_norm_(net.parameters(), meal.clip))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            params = result.moved  # the step that was looked through is also taken
            matters = task.names.index(data.material().kinds[task.kind].matters[0])
            row |= {"inner": result.inner, "outer": result.outer.item(), "norm": norm}
            row |= {"weight": float(result.weights[:, matters].mean()), "s": round(time.monotonic() - began, 2)}
            log.write(json.dumps(row) + "\n")
            log.flush()
            bar.update(progress_task, completed=number + 1, description=f"meal {row['outer']:.3f}")
            if (number + 1) % meal.checkpoint_every == 0 or number + 1 == meal.steps:
                write_checkpoint(meal, number + 1, net, params, optimizer)
    net.save(meal.out / NET)
    print(json.dumps({"held_out": measure_outer_loss(meal, learner, start, weigh), "held_out_uniform": uniform_loss}))
    print(draw_curves(meal.out))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except MealError as problem:
        sys.exit(str(problem))
