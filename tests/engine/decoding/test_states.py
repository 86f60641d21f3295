"""Hidden states of texts: through each kind of engine, bounded, and with a clear error where there are none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from aligner_proxy.engine.admission import LocalAdmission
from aligner_proxy.engine.api import MAX_TEXTS, StatesRequest, text_states
from aligner_proxy.engine.client.circuit_breaker import Breaker
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.client.replicas import Replicas
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.model.encoder import MAX_TOKENS, encode, shorten_ids
from aligner_proxy.errors import BreakerOpen, InvalidOutput, QuotaSpent, StatesUnavailable
from aligner_proxy.types import Quota
from tests.engine.server.test_app import serving
from tests.support import tiny
from tests.support.scripted import ScriptedEngine

TEXTS = ("Kindness: be kind", "Brevity: be short", "How many boats are there?")
HIDDEN = 64


def request(*texts: str, layers: tuple[int, ...] = (0, 1), **more: Any) -> StatesRequest:
    return StatesRequest(request_id="s", texts=texts or TEXTS, layers=layers, deadline_s=30, **more)


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    local = LocalEngine(tiny.aligner)
    await local.start()
    yield local
    await local.aclose()


def test_a_text_is_read_alike_alone_and_beside_longer_ones() -> None:
    model = tiny.model()
    alone = encode(model, [[5, 6, 7]], (0, 1))
    assert torch.allclose(encode(model, [[5, 6, 7], list(range(9, 40))], (0, 1))[:1], alone, atol=1e-5)
    assert len(shorten_ids(list(range(1000)))) == MAX_TOKENS
    assert shorten_ids(list(range(1000)))[-1] == 999


async def test_rows_stand_for_texts_whatever_stands_beside_them(engine: LocalEngine) -> None:
    rows = await engine.states(request())
    assert [len(row) for row in rows] == [2 * HIDDEN] * len(TEXTS)
    assert rows[0] != pytest.approx(rows[1], abs=1e-3)
    for layer in (0, 1):
        part = rows[0][layer * HIDDEN : (layer + 1) * HIDDEN]
        assert sum(part) / HIDDEN == pytest.approx(0, abs=1e-3), "each layer is normalised"
    (alone,) = await engine.states(request(TEXTS[2]))
    assert alone == pytest.approx(rows[2], abs=1e-4)
    (upper,) = await engine.states(request(TEXTS[2], layers=(1,)))
    assert upper == pytest.approx(rows[2][HIDDEN:], abs=1e-4)


async def test_long_texts_are_shortened(engine: LocalEngine) -> None:
    (row,) = await engine.states(request("boats " * 20_000))
    assert len(row) == 2 * HIDDEN


async def test_over_the_wire_and_through_all_that_stands_before_an_engine(engine: LocalEngine, tmp_path: Path) -> None:
    (expected,) = await engine.states(request(TEXTS[0]))
    async with serving(LocalAdmission(engine), tmp_path / "e.sock") as client:
        for one in (client, Breaker(Replicas([("a", client)]))):
            (row,) = await text_states(one, request(TEXTS[0]))
            assert row == pytest.approx(expected, abs=1e-6)


async def test_a_layer_that_the_model_lacks_is_named(engine: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(StatesUnavailable, match="layers 0 to 1; layer 7"):
        await engine.states(request(layers=(0, 7)))
    async with serving(engine, tmp_path / "e.sock") as client:
        with pytest.raises(StatesUnavailable, match="layer 7"):
            await client.states(request(layers=(7,)))
        replicas = Replicas([("a", client)])
        with pytest.raises(StatesUnavailable):
            await replicas.states(request(layers=(7,)))
        assert replicas.replicas[0].healthy, "it did nothing wrong"


async def test_an_engine_without_hidden_states_says_so() -> None:
    with pytest.raises(StatesUnavailable):
        await text_states(ScriptedEngine(), request())


def test_requests_are_bounded() -> None:
    for wrong in ({"texts": ("a",) * (MAX_TEXTS + 1)}, {"texts": ("",)}, {"layers": ()}, {"layers": (-1,)}):
        with pytest.raises(ValidationError):
            StatesRequest(**{"request_id": "s", "texts": ("a",), "layers": (0,), **wrong})


async def test_states_count_on_the_quota_of_the_tenant(engine: LocalEngine) -> None:
    admission = LocalAdmission(engine)
    quota = Quota("acme", 1e-9)
    await admission.states(request(tenant="acme", quota=quota))
    with pytest.raises(QuotaSpent):
        await admission.states(request(tenant="acme", quota=quota))
    await admission.states(request(tenant="other"))


@pytest.mark.parametrize("rows", [[[0.5]], [[0.5], [0.5], [0.5, 1.0]]])
async def test_states_of_other_texts_are_refused(tmp_path: Path, rows: list[list[float]]) -> None:
    scripted = ScriptedEngine()
    scripted.rows = lambda _: rows
    async with serving(scripted, tmp_path / "e.sock") as client:
        assert isinstance(client, HttpEngine)
        with pytest.raises(InvalidOutput, match="other texts"):
            await client.states(request())


async def test_a_breaker_that_is_open_asks_nobody() -> None:
    breaker = Breaker(ScriptedEngine())
    for _ in range(3):
        breaker.circuit.note_failure(0.0, late=False)
    with pytest.raises(BreakerOpen):
        await breaker.states(request())
