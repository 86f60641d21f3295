"""Adapters over one base: each row of a step goes through its own, as if it were merged and alone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.correct import correct
from aligner_proxy.engine.decoding.proposer import DraftProposer
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.loop import Loop, correct_alone
from aligner_proxy.engine.model import lora
from aligner_proxy.engine.model.runner import AdapterWeights, ModelRunner
from aligner_proxy.engine.scheduling.scheduler import Job
from aligner_proxy.engine.scheduling.sequence import TokenSequence
from aligner_proxy.engine.weights.manifest import ADAPTER, ADAPTER_WEIGHTS
from aligner_proxy.errors import UnknownAligner, WeightsError
from tests.engine.test_loop import asked
from tests.support import tiny


def merged(adapter: lora.Adapter, seed: int = 0) -> Any:
    """The tiny model with an adapter in its weights."""
    model = tiny.model(seed)
    for layer, detour in adapter.items():
        model.get_submodule(layer).weight.data += detour.up @ detour.down
    return model


def test_rows_of_a_mixed_step_are_those_of_merged_models(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.together()
    models = [tiny.model(), *(merged(tiny.adapter(i)) for i in (1, 2, 3))]
    seen: list[torch.Tensor] = []
    choose = made.runner._choose_tokens
    monkeypatch.setattr(
        made.runner, "_choose_tokens", lambda hidden, feeds: seen.append(hidden.clone()) or choose(hidden, feeds)
    )
    loop = Loop(made, budget=120)
    for i in range(8):
        request = asked(random.Random(i), i)
        chosen = made.find_aligner(request.aligner)
        sequence = TokenSequence(chosen.adapter)
        loop.add(Job(str(i), correct(chosen, request, sequence), lambda _: None, sequence=sequence))
    mixed = 0
    for _ in range(40):
        feeds = loop.scheduler.schedule(0.0)
        mixed += len({feed.job.sequence.adapter for feed in feeds}) > 2
        chosen_tokens = made.runner.run(feeds) if feeds else []
        first = 0
        for feed in feeds:
            ids = torch.tensor([feed.job.sequence.ids[: feed.stop]])
            with torch.inference_mode():
                whole = models[feed.job.sequence.adapter].base_model(ids, use_cache=False).last_hidden_state[0]
            last = first + feed.stop - feed.start
            torch.testing.assert_close(seen[-1][first:last], whole[feed.start :], atol=1e-4, rtol=1e-4)
            first = last
        for feed, tokens in zip(feeds, chosen_tokens, strict=True):
            loop._postprocess(feed, tokens)
    assert mixed > 3


def words(made: Aligner, name: str) -> list[int]:
    """What one of them writes after a prompt."""
    chosen = made.find_aligner(name)
    prompt = made.runner.tokenizer.encode_prompt(tiny.CORPUS[4] + " | Edit: ").ids
    return tiny.written(made.runner, prompt, DraftProposer([], tiny.whole), 40, chosen.adapter)[0].ids


def test_each_writes_what_its_merged_model_writes_whatever_was_read_before_under_others() -> None:
    """In one cache, one after the other, twice: what was read under one adapter is not taken for another's."""
    made = tiny.together()
    names = ("default", "1", "2", "3")
    got = [words(made, name) for name in (*names, *names)]
    expected = [tiny.model(), *(merged(tiny.adapter(i)) for i in (1, 2, 3))]
    alone_in_the_house = [Aligner(ModelRunner(one, made.runner.tokenizer, None), made.info) for one in expected]
    assert got == [words(one, "default") for one in alone_in_the_house] * 2
    assert len({str(ids) for ids in got}) == 4
    assert made.runner.pool.count_uses().cached > 3


def test_each_scores_with_a_head_of_its_own() -> None:
    made = tiny.together()
    ends = [correct_alone(made, tiny.request(caution=1e9, aligner=name)) for name in ("default", "1", "2", "3")]
    assert len({end.segments[0].score for end in ends}) == 4
    assert [end.aligner for end in ends] == ["hash0", "hash0-1", "hash0-2", "hash0-3"]


async def test_an_aligner_that_is_not_there_is_refused_with_those_that_are() -> None:
    engine = LocalEngine(tiny.together)
    await engine.start()
    assert set((await engine.info()).others) == {"1", "2", "3"}
    assert (await engine.align(tiny.request(aligner="2", caution=1e9))).aligner == "hash0-2"
    for ask in (engine.align, engine.read):
        with pytest.raises(UnknownAligner, match=r"no aligner 'support'; it has: default, 1, 2, 3"):
            await ask(tiny.request(aligner="support"))
    await engine.aclose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter as the training library saves it."""
    torch.manual_seed(5)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    get_peft_model(tiny.model(), config).save_pretrained(tmp_path)  # type: ignore[arg-type]
    return tmp_path


def test_a_saved_adapter_does_what_the_library_makes_of_it(folder: Path) -> None:
    from peft import PeftModel

    ids = torch.tensor([tiny.runner().tokenizer.encode_prompt(tiny.CORPUS[0]).ids])
    expected = PeftModel.from_pretrained(tiny.model(), str(folder)).merge_and_unload()
    model = tiny.model()
    adapters = lora.Adapters(model, [lora.read_adapter(folder)], torch.float32, torch.device("cpu"))
    with torch.inference_mode(), adapters.assign_rows([(1, ids.shape[1])]):
        beside = model(ids).logits
    with torch.inference_mode():
        torch.testing.assert_close(beside, expected(ids).logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model(ids).logits, tiny.model()(ids).logits)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    ],
)
def test_what_cannot_be_applied_beside_others_is_named(folder: Path, said: dict[str, Any], named: str) -> None:
    path = folder / ADAPTER
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    with pytest.raises(WeightsError, match=f"{named}.*an engine of its own"):
        lora.read_adapter(folder)


def test_damaged_adapters_and_those_of_another_base_are_refused(folder: Path) -> None:
    path = folder / ADAPTER_WEIGHTS
    whole = load_file(path)
    half = dict(list(whole.items())[1:])
    save_file(half, path)
    with pytest.raises(WeightsError, match=r"half of the adapter of model\.layers\.0"):
        lora.read_adapter(folder)
    save_file({**whole, "base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match="embed_tokens"):
        lora.read_adapter(folder)
    path.write_bytes(b"{")
    with pytest.raises(WeightsError, match="cannot be read"):
        lora.read_adapter(folder)
    wide = {"model.layers.0.self_attn.q_proj": lora.LoraDelta(torch.ones(2, 65), torch.ones(64, 2))}
    deep = {"model.layers.9.self_attn.q_proj": lora.LoraDelta(torch.ones(2, 64), torch.ones(64, 2))}
    last = {"lm_head": lora.LoraDelta(torch.ones(2, 64), torch.ones(384, 2))}
    for adapter, said in ((wide, "sizes"), (deep, "no layer"), (last, "layers of the stack")):
        with pytest.raises(WeightsError, match=said):
            ModelRunner(tiny.model(), tiny.runner().tokenizer, None, others=[AdapterWeights(adapter, None)])
