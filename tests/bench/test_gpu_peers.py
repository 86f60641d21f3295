"""The peers of the engine on a GPU, with a tiny model on the CPU and without compiling."""

from __future__ import annotations

import threading
from functools import partial
from random import Random
from typing import Any

import pytest
import torch

from bench import shapes
from bench.gpu_peers import CompiledDecoder, Peer, list_peers, make_batching_peer, make_lookup_peer, time_peer

PROMPT = Random(0).choices(range(10, 500), k=40)
TOKENS = 24
PROMPTS = 3


@pytest.fixture(scope="module")
def model() -> Any:
    return shapes.make_model("tiny", "cpu", torch.float32, words=500)


def generate_tokens(model: Any, prompt: list[int], tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    whole = model.generate(ids, attention_mask=mask, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False)
    text: list[int] = whole[0, len(prompt) :].tolist()
    return text


@pytest.mark.parametrize("number", range(5))
def test_each_peer_writes_its_number_of_tokens_and_leaves_the_model_as_it_was(model: Any, number: int) -> None:
    before = generate_tokens(model, PROMPT, 8)
    peer = list_peers(model, PROMPT, TOKENS, "cpu", compiled=False, prompts=PROMPTS)[number]
    row = time_peer(peer, 2)
    assert "error" not in row
    assert row["name"] == peer.name
    assert row["tokens"] == TOKENS * (PROMPTS if "batching" in peer.name else 1)
    assert row["seconds"] > 0
    assert row["setup_s"] >= 0
    assert generate_tokens(model, PROMPT, 8) == before


def test_peers_have_names_of_their_own(model: Any) -> None:
    names = [peer.name for both in (True, False) for peer in list_peers(model, PROMPT, 8, "cpu", compiled=both)]
    assert len(set(names)) == 7


@pytest.mark.parametrize("length", [1, 40, 90])
def test_the_decoder_writes_what_generate_writes(model: Any, length: int) -> None:
    decoder = CompiledDecoder(model, 130, compiled=False)
    for seed in (1, 2):  # what the first text left in the cache does not show in the second one
        prompt = Random(seed).choices(range(10, 500), k=length)
        written = decoder.write(torch.tensor(prompt), 40)
        wanted = generate_tokens(model, prompt, 40)
        # `generate` never writes the end mark here.
        assert shapes.EOS not in wanted
        assert written == wanted


def test_four_bits_are_decoded_too() -> None:
    made = shapes.make_model("tiny", "cpu", torch.bfloat16, four_bits=True, words=500)
    assert len(CompiledDecoder(made, 64, compiled=False).write(torch.tensor(PROMPT), TOKENS)) == TOKENS


def test_prompt_lookup_needs_few_forwards_for_a_text_that_stands_in_the_prompt(model: Any) -> None:
    forwards = []
    hook = model.register_forward_hook(lambda *_: forwards.append(1))
    try:
        assert make_lookup_peer(model, PROMPT, TOKENS, "cpu").write() == TOKENS
        copied = len(forwards)
        forwards.clear()
        assert (
            make_lookup_peer(model, PROMPT, TOKENS, "cpu", Random(1).choices(range(10, 500), k=TOKENS)).write()
            == TOKENS
        )
    finally:
        hook.remove()
    assert copied <= 6
    assert len(forwards) > 2 * copied


def fail(message: str) -> int:
    raise RuntimeError(message)


def test_a_failing_peer_costs_its_row_alone() -> None:
    closed = []
    peer = Peer("one", lambda: None, partial(fail, "x" * 300), lambda: closed.append(1))
    row = time_peer(peer, 2)
    assert row.pop("setup_s") >= 0
    assert row == {"name": "one", "error": "RuntimeError: " + "x" * 200}
    assert closed == [1]


def test_a_peer_that_fails_while_closing_keeps_its_time() -> None:
    row = time_peer(Peer("one", lambda: None, lambda: 5, partial(fail, "late")), 2)
    assert row["tokens"] == 5
    assert row["error"] == "RuntimeError: late"


def test_a_peer_that_takes_too_long_to_set_up_is_not_timed() -> None:
    row = time_peer(Peer("one", lambda: None, lambda: 5), 2, most_setup=-1)
    assert row["error"].startswith("TimeoutError: the setup took 0 s")
    assert "seconds" not in row


def test_an_error_in_continuous_batching_is_reported_and_ends_its_thread(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.model, "forward", lambda *_, **__: fail("no kernel"))
    before = threading.active_count()
    row = time_peer(make_batching_peer(model, PROMPT, 8, "cpu", prompts=PROMPTS), 1)
    assert "no kernel" in row["error"]
    assert threading.active_count() == before
    assert model.config._attn_implementation == "sdpa"
