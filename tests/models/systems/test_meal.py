"""Meal: the gradient through the inner step, runs that go on, prompts that are kept back, and what is measured."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn.attention import SDPBackend, sdpa_kernel

from aligner_proxy.engine.model.tokenizer import PromptTokenizer
from models.systems.meal import bilevel, compare, data, ranks, train
from models.systems.meal.config import Meal, MealError
from models.systems.meal.data import AnsweredPrompt, WeighingTask
from models.systems.meal.encoder import Encoder
from models.systems.meal.export import ship
from models.systems.meal.learner import DIRECTION, Learner
from models.systems.meal.net import TorchWeightNet
from tests.support import tiny


@pytest.fixture(autouse=True)
def use_plain_attention() -> Iterator[None]:
    """The one attention in fp64 whose derivative can be differentiated again."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


TASK = WeighingTask(
    "toy",
    ("kind", "brief", "exact"),
    ("Kindness: be kind", "Brevity: be short", "Precision: be exact"),
    (AnsweredPrompt("When?", "At six."), AnsweredPrompt("Where is it?", "There.")),
    (("Dear friend, at six.", "Six.", "At 06:00."), ("Dear friend, there.", "There.", "At 12 Quay Road.")),
    (
        (AnsweredPrompt("Who?", "He."), "Dear friend, he.", "A man of 40."),
        (AnsweredPrompt("Why?", "So."), "Dear me, so.", "So: 3."),
    ),
)
LR = 0.05
BETA = 2.0


def toy(*, embedded: bool) -> tuple[Learner, Any, TorchWeightNet, Encoder]:
    """(learner, its parameters, a net whose weights are far from equal, its encoder), all in fp64."""
    model: Any = tiny.model().double()
    for layer in (*model.model.layers, model.model):  # transformers' own norms compute in fp32, whatever comes in
        for name in ("input_layernorm", "post_attention_layernorm", "norm"):
            if hasattr(layer, name):
                setattr(layer, name, torch.nn.RMSNorm(64, eps=1e-6, dtype=torch.float64))
    tokenizer = PromptTokenizer(tiny.backend(), frozenset({1}))
    learner = Learner(model, tokenizer, "ultrafeedback", embedded=embedded)
    torch.manual_seed(3)
    params = learner.initial_params(r"layers\.1\.mlp\.down_proj")
    if embedded:
        params[DIRECTION] = (0.3 * torch.randn(64, dtype=torch.float64)).requires_grad_()
    net = TorchWeightNet.from_config(model.config, 4).double()
    return learner, params, net, Encoder(model, tokenizer, net.layers.tolist())


def outer(
    learner: Learner, params: Any, net: TorchWeightNet, encoder: Encoder, *, unrolled: bool = True
) -> torch.Tensor:
    weigh = partial(encoder.weigh, net)
    return bilevel.step(learner, params, weigh, TASK, lr=LR, beta=BETA, unrolled=unrolled).outer


def gradient(value: torch.Tensor, net: TorchWeightNet) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(net.parameters()))])


def finite(learner: Learner, params: Any, net: TorchWeightNet, encoder: Encoder, along: torch.Tensor) -> float:
    """The slope of the outer loss along a direction of the net's parameters, by central differences."""
    flat = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    step = 1e-4
    ends = []
    for sign in (1, -1):
        torch.nn.utils.vector_to_parameters(flat + sign * step * along, net.parameters())
        ends.append(outer(learner, params, net, encoder).item())
    torch.nn.utils.vector_to_parameters(flat, net.parameters())
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("embedded", "unrolled"), [(False, True), (True, True), (False, False)], ids=["words", "embedding", "first order"]
)
def test_the_gradient_through_the_step_agrees_with_finite_differences(embedded: bool, unrolled: bool) -> None:
    learner, params, net, encoder = toy(embedded=embedded)
    found = gradient(outer(learner, params, net, encoder, unrolled=unrolled), net)
    for seed in range(3):
        along = torch.randn(len(found), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        along = along / along.norm() + found / found.norm()  # one that is nearly level would measure rounding
        expected = finite(learner, params, net, encoder, along)
        assert float(found @ along) == pytest.approx(expected, rel=1e-3)


def test_first_order_leaves_out_what_weights_do_inside_the_prompt() -> None:
    learner, params, net, encoder = toy(embedded=True)
    whole = gradient(outer(learner, params, net, encoder), net)
    first = gradient(outer(learner, params, net, encoder, unrolled=False), net)
    assert float(torch.nn.functional.cosine_similarity(first, whole, dim=0)) > 0.5
    assert float((first - whole).norm() / whole.norm()) > 1e-3
    assert outer(learner, params, net, encoder, unrolled=False).item() == pytest.approx(
        outer(learner, params, net, encoder).item()
    )


def test_the_heaviest_objective_stands_first_and_in_words() -> None:
    learner, params, _, _ = toy(embedded=False)
    rows = [
        bilevel.LearnerRow(TASK.inner[0], TASK.texts, torch.tensor(weights, dtype=torch.float64), "Six.")
        for weights in ((0.1, 0.8, 0.1), (0.8, 0.1, 0.1), (0.1, 0.8, 0.1))
    ]
    one, other, again = learner.losses(params, rows).tolist()
    assert one == pytest.approx(again)
    assert one != pytest.approx(other, rel=1e-4)
    with pytest.raises(MealError, match="nonesuch"):
        learner.initial_params("nonesuch")


def test_probes_are_never_trained_on() -> None:
    known = data.material()
    trained = {one.query for task, _ in zip(data.draw_tasks(0, 4, 2), range(300), strict=False) for one in task.inner}
    probes = {text for kind in known.kinds.values() for text in kind.probes.prompts()}
    assert not trained & probes
    for kind in known.kinds.values():
        assert not set(kind.asks) & set(kind.probes.asks)
        assert not set(kind.about) & set(kind.probes.about)
    texts = {text for task, _ in zip(data.draw_tasks(0, 4, 2), range(300), strict=False) for text in task.texts}
    assert not texts & {facet.texts[-1] for facet in known.objectives.values()}


def test_a_task_holds_what_matters_and_prefers_it() -> None:
    known = data.material()
    firsts = 0
    for number in range(200):
        name = sorted(known.kinds)[number % len(known.kinds)]
        task = data.draw_task(name, random.Random(number), 4, 1)
        first, second = known.kinds[name].matters
        assert {first, second} < set(task.names)
        (asked, better, worse), *_ = task.pairs
        liked = {o for o in (first, second) if better.startswith(known.objectives[o].styles)}
        assert liked
        assert not worse.startswith(known.objectives[first].styles)
        assert asked not in task.inner or asked.query in known.kinds[name].prompts()
        firsts += first in liked
    assert 130 < firsts < 190


@pytest.fixture
def config(tmp_path: Path) -> Path:
    base = tiny.save(tmp_path / "base")
    told = {
        "base": str(base),
        "out": str(tmp_path / "out"),
        "trained": "down_proj",
        "gradient": "unrolled",
        "steps": 4,
        "width": 4,
        "objectives": 3,
        "inner_lr": 0.1,
        "outer_lr": 0.01,
        "held_out_every": 4,
        "checkpoint_every": 2,
    }
    return _write(tmp_path / "meal.yaml", told)


def _write(path: Path, told: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "HELD_OUT", 2)
    monkeypatch.setattr(compare, "TASKS", 2)
    monkeypatch.setattr(ranks, "DRAWS", 200)


@pytest.mark.full
@pytest.mark.usefixtures("short")
def test_a_run_that_is_stopped_goes_on_exactly(config: Path, tmp_path: Path) -> None:
    train.main(config)
    told = yaml.safe_load(config.read_text())
    halves = told | {"out": str(tmp_path / "halves")}
    train.main(_write(config, halves | {"steps": 2}))
    train.main(_write(config, halves))
    whole, stopped = (torch.load(Path(out) / train.CHECKPOINT) for out in (told["out"], halves["out"]))
    for name, tensor in whole["net"].items():
        assert torch.equal(tensor, stopped["net"][name]), name
    for name, tensor in whole["params"].items():
        assert torch.equal(tensor, stopped["params"][name]), name
    rows = [json.loads(line) for line in (tmp_path / "halves" / train.LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert {"inner", "outer", "held_out", "held_out_uniform", "norm"} <= set(rows[0])
    assert (tmp_path / "halves" / "curves.svg").stat().st_size > 1000
    with pytest.raises(MealError, match="beta"):
        train.main(_write(config, halves | {"beta": 3.0}))


@pytest.mark.usefixtures("short")
def test_the_comparison_measures_each_weighting(config: Path, tmp_path: Path) -> None:
    train.main(config)
    compare.main(config)
    told = json.loads((tmp_path / "out" / "compare.json").read_text())
    rows = {(row["weights"], row["probes"], row["texts"]): row for row in told["ranks"]}
    assert rows["uniform", "fresh", "trained"]["reciprocal_rank"]["mean"] == pytest.approx(
        sum(1 / i for i in range(1, 13)) / 12
    ), "what chance gives"
    assert rows["net", "kept back", "trained"]["kept"]["n"] == 144
    assert rows["net", "fresh", "others"]["kept"]["n"] == told["fresh"] == 72
    names = ["uniform", "static", "net before training", "net"]
    assert [step["weights"] for step in told["steps"]] == [*names, "told"]
    assert told["steps"][0]["below"][0]["mean"] == 0.0
    outer = {step["weights"]: step["outer"]["mean"] for step in told["steps"]}
    assert told["steps"][3]["below"][2]["mean"] == pytest.approx(outer["net before training"] - outer["net"])
    leads = {tuple(lead[:3]): lead[3]["mean"] for lead in told["leads"]}
    here = rows["net", "fresh", "trained"]["reciprocal_rank"]["mean"]
    lead = here - rows["static", "fresh", "trained"]["reciprocal_rank"]["mean"]
    assert leads["static", "fresh", "trained"] == pytest.approx(lead)
    assert "| net | fresh | others |" in (tmp_path / "out" / "compare.md").read_text()


def test_fresh_probes_are_none_that_anything_was_chosen_on() -> None:
    known = data.material()
    told = ranks.fresh_prompts()
    assert set(told) == set(known.kinds)
    prompts = [prompt for some in told.values() for prompt in some]
    assert len(set(prompts)) == len(prompts) >= 60
    assert min(map(len, told.values())) >= 5
    old = {text for kind in known.kinds.values() for text in (*kind.prompts(), *kind.probes.prompts())}
    assert not old & set(prompts)


def test_the_cheap_step_leads_where_the_dear_one_does() -> None:
    learner, params, net, encoder = toy(embedded=False)
    weigh = partial(encoder.weigh, net)
    dear = bilevel.step(learner, params, weigh, TASK, lr=LR, beta=BETA, unrolled=True)
    cheap = bilevel.take_inner_step(learner, params, weigh, TASK, lr=LR)
    for name, tensor in dear.moved.items():
        assert torch.allclose(tensor, cheap[name], atol=1e-12), name
        assert not cheap[name].requires_grad


def test_a_weighting_that_is_told_knows_what_matters() -> None:
    known = data.material()
    texts = [facet.texts[-1] for facet in known.objectives.values()]
    kind = known.kinds["dosage"]
    weights = compare.informed_weights(kind.probes.prompts()[:1], texts)[0]
    assert float(weights.sum()) == pytest.approx(1)
    assert list(known.objectives)[int(weights.argmax())] == kind.matters[0]


def test_rank_statistics() -> None:
    assert ranks.spearman([3, 2, 1], [30, 20, 10]) == pytest.approx(1)
    assert ranks.spearman([3, 2, 1], [1, 2, 3]) == pytest.approx(-1)
    assert ranks.spearman([1, 1, 1], [1, 2, 3]) == 0
    assert ranks.ranks([5, 7, 5]) == [2.5, 1, 2.5]
    assert ranks.reciprocal_rank([0.2, 0.5, 0.3], 2) == pytest.approx(0.5)
    assert ranks.reciprocal_rank([1, 1], 0) == pytest.approx(0.75)
    mean = ranks.Mean.from_groups({"a": [0, 0], "b": [1, 1]})
    assert (mean.n, mean.mean, mean.low, mean.high) == (4, 0.5, 0, 1)


def test_a_net_learns_what_the_outer_loss_prefers() -> None:
    # Words and order of the prompt would jump, which a model of random weights takes for anything.
    learner, params, net, encoder = toy(embedded=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        losses.append(outer(learner, params, net, encoder))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1].item() < losses[0].item() - 1e-3


@pytest.mark.parametrize("told", [{"steps": 0}, {"other": 1}, {"gradient": "third_order"}])
def test_a_bad_config_is_named(config: Path, told: dict[str, Any]) -> None:
    with pytest.raises(MealError, match=next(iter(told))):
        Meal.read(_write(config, yaml.safe_load(config.read_text()) | told))


def test_the_shipped_config_can_be_read() -> None:
    assert Meal.read(Path(__file__).parents[3] / "configs/meal/embedded.yaml").base == "embedded"


def test_a_net_is_shipped_to_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    TorchWeightNet.from_config(tiny.model().config, 4).save(tmp_path / "run" / train.NET)
    shipped = ship(tmp_path / "run", tmp_path)
    assert (
        TorchWeightNet.load(shipped).layers.tolist()
        == TorchWeightNet.from_config(tiny.model().config, 4).layers.tolist()
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    net = TorchWeightNet.from_config(tiny.model().config, 8)
    net.centre(torch.randn(9, 64), torch.randn(9, 64))
    net.save(tmp_path / "net.safetensors")
    again = TorchWeightNet.load(tmp_path / "net.safetensors")
    prompts = torch.randn(2, 64)
    texts = torch.randn(3, 64)
    assert torch.allclose(again(prompts, texts), net(prompts, texts), atol=0.02)


def test_texts_are_scored_and_not_places() -> None:
    net = TorchWeightNet.from_config(tiny.model().config, 8)
    prompts = torch.randn(3, 64)
    texts = torch.randn(5, 64)
    found = net(prompts, texts).exp()
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(found.sum(-1), torch.ones(3))
    assert torch.allclose(net(prompts, texts[order]).exp(), found[:, order], atol=1e-6)
    fewer = net(prompts, texts[:2]).exp()
    assert torch.allclose(fewer[:, 0] / fewer[:, 1], found[:, 0] / found[:, 1], rtol=1e-4)
