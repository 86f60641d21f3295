"""Which models our own stack computes, and that all others stay on the library's forward."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Ernie4_5Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    OlmoConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from aligner_proxy.engine.gpu.stack import find_config_obstacle, find_obstacle
from aligner_proxy.engine.model import acceleration
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.scheduler import Feed, Job
from aligner_proxy.engine.scheduling.sequence import Ask, TokenSequence
from tests.engine.gpu import plain_kernels
from tests.engine.gpu.fake_recorder import FakeRecorder
from tests.support import tiny

PROMPT = [5 + 7 * place % 300 for place in range(45)]
NEW_TOKENS = 12
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 1e4,
}


def make_model(kind: type[PretrainedConfig], **settings: Any) -> Any:
    """A tiny model whose biases and norms are random, too."""
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "vocab_size": 384,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": None,
        "pad_token_id": 1,
    }
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(kind(**sizes | settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


OBSTACLES: dict[str, tuple[type[PretrainedConfig], dict[str, Any], str]] = {
    "window": (MistralConfig, {"sliding_window": 32}, "sliding window"),
    "window of some layers": (
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1},
        "sliding window",
    ),
    "activation": (GemmaConfig, {}, "activation gelu"),
    "another activation": (LlamaConfig, {"hidden_act": "gelu"}, "activation gelu"),
    "biases": (LlamaConfig, {"attention_bias": True}, "biases"),
    "biases of the gates": (LlamaConfig, {"mlp_bias": True}, "biases"),
    "heads": (LlamaConfig, {"hidden_size": 96, "head_dim": 24}, "heads of 24"),
    "small heads": (LlamaConfig, {"head_dim": 8}, "heads of 8"),
    "turns": (LlamaConfig, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
    "other norms": (GemmaConfig, {"hidden_act": "silu"}, "architecture gemma"),
    "norms without weights": (OlmoConfig, {}, "architecture olmo"),
    "one norm": (CohereConfig, {}, "architecture cohere"),
    "turns of other pairs": (Ernie4_5Config, {}, "architecture ernie4_5"),
    "turns in some layers": (SmolLM3Config, {}, "architecture smollm3"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_a_model_needs_that_the_stack_lacks_is_named(name: str) -> None:
    kind, settings, reason = OBSTACLES[name]
    model = make_model(kind, **settings)
    obstacle = find_obstacle(model)
    assert obstacle is not None
    assert reason in obstacle
    runner = ModelRunner(model, tiny.runner().tokenizer, None, 256)
    assert runner.use_recorded(plain_kernels, FakeRecorder()) == obstacle
    assert find_config_obstacle(kind(**settings)) == obstacle
    assert runner.recorded is None


def test_another_architecture_is_named() -> None:
    model: Any = SimpleNamespace(config=LlamaConfig(), transformer=torch.nn.Linear(2, 2))
    assert find_obstacle(model) == "another architecture than Llama's"


MODELS: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "Llama": (LlamaConfig, {}),
    "Llama with one head of keys": (LlamaConfig, {"num_key_value_heads": 1}),
    "Llama with wide heads": (LlamaConfig, {"head_dim": 32}),
    "Llama 3": (LlamaConfig, {"rope_parameters": LLAMA3}),
    "Llama with scaled turns": (
        LlamaConfig,
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "Llama with yarn": (LlamaConfig, {"rope_parameters": YARN}),
    "Mistral": (MistralConfig, {"sliding_window": None}),
    "Qwen2": (Qwen2Config, {}),
    "Qwen3": (Qwen3Config, {}),
    "shared embeddings": (Qwen3Config, {"tie_word_embeddings": True}),
}


def write(runner: ModelRunner) -> list[int]:
    """Tokens after the prompt, which is fed in two steps; they are then fed one by one, beside another sequence."""
    work: Any = iter(())
    sequence = TokenSequence(ids=list(PROMPT), blocks=[7, 2, 9, 4])
    job = Job("written", work, print, sequence=sequence, ask=Ask(PROMPT, prompt=True))
    other = Job("other", work, print, sequence=TokenSequence(ids=PROMPT[::-1], blocks=[1, 3, 5]), ask=Ask(PROMPT))
    assert runner.run([Feed(job, 0, 21)]) == [[]]
    [tokens] = runner.run([Feed(job, 21, len(PROMPT))])
    job.ask = Ask([tokens[0]])
    for number in range(NEW_TOKENS - 1):
        sequence.ids.append(tokens[-1])
        end = len(sequence.ids)
        _, chosen = runner.run([Feed(other, 3 * number, 3 * number + 3), Feed(job, end - 1, end)])
        tokens += chosen
    return tokens


def generate(model: Any) -> list[int]:
    """What the library writes after the prompt."""
    ids = torch.tensor([PROMPT])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False)
    tokens: list[int] = out[0, len(PROMPT) :].tolist()
    return tokens


@pytest.mark.some(4)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_the_family_writes_what_the_library_writes(name: str) -> None:
    kind, settings = MODELS[name]
    model = make_model(kind, **settings)
    expected = generate(model)
    assert len(set(expected)) > 4, "varied enough to show a difference"
    recorder = FakeRecorder()
    runner = ModelRunner(model, tiny.runner().tokenizer, None, 256)
    assert runner.use_recorded(plain_kernels, recorder) is None
    before = recorder.replays
    assert write(runner) == expected
    # each step replays the forward, and all but the first one the choice of tokens
    assert recorder.replays - before == 2 * (NEW_TOKENS + 1) - 1
    # its weights, which the stack has joined, are still those of the library
    assert generate(model) == expected


def turn_the_wrong_way(parts: Any, bias: Any, norms: Any, turns: Any, *others: Any) -> Any:
    return plain_kernels.rotate_and_put(parts, bias, norms, (turns[0], -turns[1]), *others)


def leave_out_biases(parts: Any, _bias: Any, *others: Any) -> Any:
    return plain_kernels.rotate_and_put(parts, None, *others)


def leave_out_norms(parts: Any, bias: Any, _norms: Any, *others: Any) -> Any:
    return plain_kernels.rotate_and_put(parts, bias, None, *others)


def scale_too_much(queries: Any, keys: Any, values: Any, step: Any, scale: float) -> Any:
    return plain_kernels.attend(queries, keys, values, step, 1.1 * scale)


FAULTS: dict[str, tuple[type[PretrainedConfig], str, Any]] = {
    "turns": (LlamaConfig, "rotate_and_put", turn_the_wrong_way),
    "biases": (Qwen2Config, "rotate_and_put", leave_out_biases),
    "norms": (Qwen3Config, "rotate_and_put", leave_out_norms),
    "scale": (LlamaConfig, "attend", scale_too_much),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_stack_whose_result_differs_is_not_used(name: str) -> None:
    kind, kernel, wrong = FAULTS[name]
    model = make_model(kind)
    expected = generate(model)
    kernels: Any = SimpleNamespace(**vars(plain_kernels) | {kernel: wrong})
    runner = ModelRunner(model, tiny.runner().tokenizer, None, 256)
    recorder = FakeRecorder()
    reason = runner.use_recorded(kernels, recorder)
    assert reason is not None
    assert "differ" in reason
    assert runner.recorded is None
    replays = recorder.replays
    assert write(runner) == expected
    assert recorder.replays == replays


def test_without_a_gpu_the_reason_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runner = tiny.aligner().runner
    with caplog.at_level(logging.INFO):
        assert not acceleration.accelerate(runner)
    assert runner.recorded is None
    [record] = [record for record in caplog.records if record.name.startswith("aligner_proxy")]
    assert record.getMessage().endswith("no CUDA graphs with no NVIDIA GPU")


@pytest.mark.parametrize(
    ("capability", "hip", "missing"), [((7, 5), None, "capability below 8.0"), ((9, 0), "6", "ROCm")]
)
def test_an_unfit_gpu_is_named(
    capability: tuple[int, int], hip: str | None, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert missing in str(acceleration.find_missing_part())
