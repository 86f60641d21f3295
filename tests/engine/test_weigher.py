"""The net that weighs objectives, and the way from a prompt to its weights through each kind of engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aligner_proxy.engine.admission import LocalAdmission
from aligner_proxy.engine.breaker import Breaker
from aligner_proxy.engine.client import HttpEngine
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.protocol import WeighRequest, weigh
from aligner_proxy.engine.replicas import Replicas
from aligner_proxy.engine.scripted import ScriptedEngine
from aligner_proxy.engine.weigher import MOST_TOKENS, Weigher, WeightNet, encode, shortened
from aligner_proxy.engine.weights import Settings, open_aligner
from aligner_proxy.errors import BreakerOpen, CannotWeigh, InvalidOutput, WeightsError
from aligner_proxy.types import Turn

from . import tiny
from .test_server import serving

TEXTS = ("Kindness: be kind", "Brevity: be short", "Wit: be funny", "Care: warn of risks")


def net(seed: int = 0) -> WeightNet:
    torch.manual_seed(seed)
    return WeightNet.over(tiny.model().config, 8)


def asked(*texts: str, said: str = "How many boats are there?") -> WeighRequest:
    return WeighRequest(request_id="w", turns=(Turn("user", said),), objectives=texts or TEXTS, deadline_s=30)


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    made = LocalEngine(lambda: replace(tiny.aligner(), weigher=Weigher(net())))
    await made.start()
    yield made
    await made.aclose()


def test_texts_are_scored_and_not_places() -> None:
    made, prompts, texts = net(), torch.randn(3, 64), torch.randn(5, 64)
    found = made(prompts, texts).exp()
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(found.sum(-1), torch.ones(3))
    assert torch.allclose(made(prompts, texts[order]).exp(), found[:, order], atol=1e-6)
    fewer = made(prompts, texts[:2]).exp()
    assert torch.allclose(fewer[:, 0] / fewer[:, 1], found[:, 0] / found[:, 1], rtol=1e-4)


def test_a_text_is_read_alike_alone_and_beside_longer_ones() -> None:
    model = tiny.model()
    alone = encode(model, [[5, 6, 7]], (0, 1))
    assert torch.allclose(encode(model, [[5, 6, 7], list(range(9, 40))], (0, 1))[:1], alone, atol=1e-5)
    assert len(shortened(list(range(1000)))) == MOST_TOKENS
    assert shortened(list(range(1000)))[-1] == 999


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    made = net()
    made.centre(torch.randn(9, 64), torch.randn(9, 64))
    made.save(tmp_path / "net.safetensors")
    again = WeightNet.load(tmp_path / "net.safetensors")
    prompts, texts = torch.randn(2, 64), torch.randn(3, 64)
    assert torch.allclose(again(prompts, texts), made(prompts, texts), atol=0.02)


async def test_the_engine_weighs_and_keeps_no_prompt(engine: LocalEngine) -> None:
    weights = await engine.weigh(asked())
    assert sum(weights) == pytest.approx(1)
    turned = await engine.weigh(asked(*TEXTS[::-1]))
    assert turned == pytest.approx(weights[::-1], abs=1e-5)
    other = await engine.weigh(asked(said="Tell me a joke."))
    assert other != pytest.approx(weights, abs=1e-4)
    twice = await engine.weigh(asked(TEXTS[0], TEXTS[0]))
    assert twice == pytest.approx((0.5, 0.5))


async def test_over_the_wire_and_through_all_that_stands_before_an_engine(engine: LocalEngine, tmp_path: Path) -> None:
    weights = await engine.weigh(asked())
    async with serving(LocalAdmission(engine), tmp_path / "e.sock") as client:
        assert await client.weigh(asked()) == pytest.approx(weights)
        assert await weigh(Breaker(Replicas([("a", client)])), asked()) == pytest.approx(weights)


async def test_an_engine_without_a_net_says_so(tmp_path: Path) -> None:
    plain = LocalEngine(tiny.aligner)
    await plain.start()
    try:
        with pytest.raises(CannotWeigh):
            await plain.weigh(asked())
        async with serving(plain, tmp_path / "e.sock") as client:
            with pytest.raises(CannotWeigh, match="no net"):
                await client.weigh(asked())
            replicas = Replicas([("a", client)])
            with pytest.raises(CannotWeigh):
                await replicas.weigh(asked())
            assert not replicas.replicas[0].faults, "it did nothing wrong"
    finally:
        await plain.aclose()


async def test_a_prompt_of_nobody_cannot_be_weighed(engine: LocalEngine) -> None:
    with pytest.raises(CannotWeigh):
        await engine.weigh(asked(said=" "))
    assert len(await engine.weigh(asked(said="boats " * 20_000))) == len(TEXTS)


async def test_nonsense_over_the_wire_is_refused(tmp_path: Path) -> None:
    made = ScriptedEngine()
    made.weights = lambda _: (0.5, 0.5)
    async with serving(made, tmp_path / "e.sock") as client:
        assert isinstance(client, HttpEngine)
        with pytest.raises(InvalidOutput, match="other objectives"):
            await client.weigh(asked())
        made.weights = lambda _: (3.0, 0.0, 0.0, 0.0)
        with pytest.raises(InvalidOutput, match="no weights"):
            await client.weigh(asked())


async def test_a_breaker_that_is_open_is_not_asked() -> None:
    breaker = Breaker(ScriptedEngine())
    for _ in range(3):
        breaker.circuit.failed(0.0, late=False)
    with pytest.raises(BreakerOpen):
        await breaker.weigh(asked())


def test_a_net_beside_the_weights_is_served(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "aligner")
    settings = Settings(folder, template="ultrafeedback", quantization="none")
    before = open_aligner(settings, tmp_path / "home").info
    assert not before.weighs
    net().save(folder / "meal.safetensors")
    after = open_aligner(settings, tmp_path / "home").info
    assert after.weighs
    assert after.content_hash != before.content_hash
    torch.manual_seed(0)
    WeightNet(32, (0, 1), 8).save(folder / "meal.safetensors")
    with pytest.raises(WeightsError, match="another base"):
        open_aligner(settings, tmp_path / "home")
    (folder / "meal.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        open_aligner(settings, tmp_path / "home")
