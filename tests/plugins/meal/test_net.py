"""Meal's net in numpy: the same weights as the net that was trained, and through an engine that is none of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from aligner_proxy.engine.api import StatesRequest, text_states
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import StatesUnavailable
from aligner_proxy.types import Turn
from aligner_proxy_systems.meal.net import WEIGHTS, WeightNet
from aligner_proxy_systems.meal.selector import Weigher
from models.systems.meal.net import TorchWeightNet
from tests.support import tiny

TEXTS = ("Kindness: be kind", "Brevity: be short", "Wit: be funny", "Care: warn of risks")
TURNS = (Turn("user", "How many boats are there?"),)


class Encoder:
    """Rows that depend on the text alone; remembers what it was asked."""

    def __init__(self, size: int, identity: str = "a") -> None:
        self.size = size
        self.name = identity
        self.seen: list[str] = []

    async def identity(self) -> str:
        return self.name

    async def states(self, texts: Sequence[str], layers: Sequence[int]) -> list[list[float]]:
        self.seen += texts
        return [np.random.default_rng(sum(map(ord, text))).normal(size=self.size).tolist() for text in texts]


def test_numpy_says_what_torch_says() -> None:
    trained = TorchWeightNet.load(WEIGHTS)
    served = WeightNet.load(WEIGHTS)
    assert list(served.layers) == trained.layers.tolist()
    assert served.size == trained.prompt.in_features
    rng = np.random.default_rng(1)
    for _ in range(20):
        prompt = rng.normal(size=served.size).astype(np.float32)
        texts = rng.normal(size=(7, served.size)).astype(np.float32)
        with torch.no_grad():
            expected = trained(torch.from_numpy(prompt[None]), torch.from_numpy(texts)).exp()[0].tolist()
        weights = served.weights(prompt, list(texts))
        assert weights == pytest.approx(expected, abs=2e-5)
        assert sum(weights) == pytest.approx(1, abs=1e-5)


async def test_objective_texts_are_asked_for_once_for_each_aligner_and_prompts_never_kept() -> None:
    weigher = Weigher()
    encoder = Encoder(WeightNet.load().size)
    first = await weigher.weights(TEXTS, TURNS, encoder)
    assert await weigher.weights(TEXTS[::-1], TURNS, encoder) == pytest.approx(tuple(first or ())[::-1])
    assert encoder.seen == [*TEXTS, TURNS[0].content, TURNS[0].content]
    await weigher.weights(TEXTS[:1], TURNS, Encoder(encoder.size, "b"))
    twice = await weigher.weights((TEXTS[0], TEXTS[0]), TURNS, encoder)
    assert twice == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("turns", [(), (Turn("assistant", "Hello."),), (Turn("user", " "),)])
async def test_a_conversation_without_a_user_cannot_be_weighed(turns: tuple[Turn, ...]) -> None:
    encoder = Encoder(1)
    assert await Weigher().weights(TEXTS, turns, encoder) is None
    assert encoder.seen == []


async def test_an_aligner_of_another_width_cannot_be_weighed() -> None:
    assert await Weigher().weights(TEXTS, TURNS, Encoder(7)) is None


async def test_a_net_over_a_real_engine(tmp_path: Path) -> None:
    torch.manual_seed(0)
    TorchWeightNet.from_config(tiny.model().config, 8).save(tmp_path / "net.safetensors")
    net = WeightNet.load(tmp_path / "net.safetensors")
    engine = LocalEngine(tiny.aligner)
    await engine.start()
    try:
        texts = (TURNS[0].content, *TEXTS)
        request = StatesRequest(request_id="w", texts=texts, layers=net.layers, deadline_s=30)
        rows = [np.asarray(row, dtype=np.float32) for row in await text_states(engine, request)]
        assert sum(net.weights(rows[0], rows[1:])) == pytest.approx(1, abs=1e-5)
        with pytest.raises(StatesUnavailable, match="layer"):
            await text_states(engine, request.model_copy(update={"layers": WeightNet.load().layers}))
    finally:
        await engine.aclose()
