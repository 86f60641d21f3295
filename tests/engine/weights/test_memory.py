"""Memory: needs computed from a config, what is refused and in which words, what the system says is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.engine import loader
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.model import acceleration
from aligner_proxy.engine.weights import memory
from aligner_proxy.engine.weights.memory import CACHE_TOKENS, ModelSize
from aligner_proxy.errors import WeightsError
from tests.support import tiny

GB = 2**30
TINY_LLAMA = ModelSize(2048, 22, 5632, 32_000, 32, 4, 64, tied=False)
LLAMA_7B = ModelSize(4096, 32, 11_008, 32_000, 32, 32, 128, tied=False)
LLAMA_13B = ModelSize(5120, 40, 13_824, 32_000, 40, 40, 128, tied=False)


def test_parameters_are_those_of_the_real_model(tmp_path: Path) -> None:
    made = tiny.save(tmp_path)
    found = memory.read_model_sizes(made)
    assert found
    assert found.linear + found.other == sum(p.numel() for p in tiny.model().parameters())
    assert (LLAMA_7B.linear + LLAMA_7B.other) / 1e9 == pytest.approx(6.74, abs=0.01)
    assert (TINY_LLAMA.linear + TINY_LLAMA.other) / 1e9 == pytest.approx(1.10, abs=0.01)


def test_a_1b_model_in_4_bits_fits_in_a_few_gigabytes_and_a_7b_model_does_not() -> None:
    assert memory.count_cache_tokens(TINY_LLAMA, "nf4", 2, 4, 3 * GB) == CACHE_TOKENS
    with pytest.raises(WeightsError) as refused:
        memory.count_cache_tokens(LLAMA_7B, "nf4", 2, 4, 3 * GB)
    assert "needs 6.2 GB (3.8 GB of weights, 2.1 GB of cache for one window of 4096 tokens" in str(refused.value)
    assert "there are 3.0 GB; a model of about 3." in str(refused.value)


def test_what_does_not_fit_unquantised_may_fit_in_4_bits() -> None:
    with pytest.raises(WeightsError, match=r"needs 30\.9 GB .* quantization: nf4 would fit, it needs 6\.\d GB"):
        memory.count_cache_tokens(LLAMA_7B, "none", 4, 4, 16 * GB)


def test_a_larger_cache_is_had_where_it_is_asked_for_and_fits() -> None:
    assert memory.count_cache_tokens(TINY_LLAMA, "nf4", 2, 4, 6 * GB, most=32_768) == 32_768
    assert memory.count_cache_tokens(TINY_LLAMA, "nf4", 2, 4, 2 * GB, most=32_768) < 32_768


@pytest.mark.parametrize(
    ("gigabytes", "sizes", "tokens", "has_copy"),
    [
        (12, TINY_LLAMA, (100_000, 150_000), True),
        (24, TINY_LLAMA, (262_144, 262_144), True),
        (80, TINY_LLAMA, (262_144, 262_144), True),
        # neither the copy nor the usual cache fits, so the cache gets all that is left
        (12, LLAMA_7B, (14_000, CACHE_TOKENS - 1), False),
        # either of them fits beside the cache of usual size, but not both, so the cache gets half
        (24, LLAMA_7B, (18_000, 21_000), False),
        (80, LLAMA_7B, (50_000, 65_000), True),
        (80, LLAMA_13B, (20_000, 30_000), True),
    ],
)
def test_a_gpu_keeps_a_copy_of_the_weights_and_gives_half_of_the_rest_to_the_cache(
    gigabytes: int, sizes: ModelSize, tokens: tuple[int, int], has_copy: bool
) -> None:
    plan = memory.plan_gpu(sizes, "nf4", 2, 4, gigabytes * GB, copies=True)
    least, most = tokens
    assert least <= plan.cache_tokens <= most
    assert plan.has_copy is has_copy


def test_without_a_use_for_the_copy_its_room_goes_to_the_cache() -> None:
    with_copy, without = (memory.plan_gpu(LLAMA_7B, "nf4", 2, 4, 80 * GB, copies=copies) for copies in (True, False))
    assert not without.has_copy
    assert without.cache_tokens > with_copy.cache_tokens


def test_a_gpu_on_which_no_window_fits_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"it needs 6\.2 GB"):
        memory.plan_gpu(LLAMA_7B, "nf4", 2, 4, 6 * GB, copies=True)


@given(st.floats(1, 200), st.sampled_from([TINY_LLAMA, LLAMA_7B, LLAMA_13B]), st.integers(0, 5))
def test_the_cache_of_a_gpu_leaves_room_for_the_copy_and_is_never_below_its_usual_size(
    gigabytes: float, sizes: ModelSize, states: int
) -> None:
    available = gigabytes * GB
    try:
        usual = memory.count_cache_tokens(sizes, "nf4", 2, states, available)
    except WeightsError:
        return
    plan = memory.plan_gpu(sizes, "nf4", 2, states, available, copies=True)
    assert usual <= plan.cache_tokens <= 262_144
    rest = (
        available
        - sizes.count_weight_bytes("nf4", 2)
        - sizes.count_step_bytes()
        - plan.cache_tokens * sizes.count_token_bytes(2, states)
    )
    assert rest >= (memory.ROOM_FOR_COPY * 2 * sizes.linear if plan.has_copy else 0)


@pytest.mark.parametrize(("asked", "expected"), [(None, 262_144), (20_000, 20_000), (CACHE_TOKENS, CACHE_TOKENS)])
def test_only_an_engine_without_a_size_of_its_cache_gets_a_larger_one_on_a_gpu(
    asked: int | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.save(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (80 * GB, 80 * GB))
    monkeypatch.setattr(acceleration, "find_missing_part", lambda: None)
    assert loader._count_cache_tokens(folder, EngineSettings(folder, cache_tokens=asked), states=0) == expected


def test_preparing_needs_more_than_serving() -> None:
    memory.check_preparation(LLAMA_7B, 20 * GB, merges=False)
    with pytest.raises(WeightsError, match=r"merging the adapter.* needs 26\.\d GB and there are 20\.0 GB"):
        memory.check_preparation(LLAMA_7B, 20 * GB, merges=True)


@given(st.floats(0, 64), st.sampled_from(["nf4", "none"]), st.integers(0, 6))
def test_the_cache_takes_what_is_left_and_no_more(gigabytes: float, kind: str, states: int) -> None:
    try:
        tokens = memory.count_cache_tokens(LLAMA_7B, kind, 2, states, gigabytes * GB)
    except WeightsError:
        tokens = 0
    least = LLAMA_7B.count_weight_bytes(kind, 2) + LLAMA_7B.count_step_bytes()
    assert (tokens == 0) == (least + memory.WINDOW * LLAMA_7B.count_token_bytes(2, states) > gigabytes * GB)
    if tokens:
        assert memory.WINDOW <= tokens <= CACHE_TOKENS
        assert least + tokens * LLAMA_7B.count_token_bytes(2, states) <= gigabytes * GB


def test_an_aligner_is_refused_before_it_is_loaded_and_a_small_memory_gets_a_small_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tiny.save(tmp_path / "full")
    sizes = memory.read_model_sizes(full)
    assert sizes
    settings = EngineSettings(full, "imhi", quantization="none")
    fixed, token = sizes.count_weight_bytes("none", 4) + sizes.count_step_bytes(), sizes.count_token_bytes(4, 0)
    monkeypatch.setattr(memory, "measure_free_bytes", lambda: fixed + 5000 * token)
    assert open_aligner(settings, tmp_path).runner.pool.count == -(-5000 // 16)
    monkeypatch.setattr(memory, "measure_free_bytes", lambda: fixed + 4000 * token)
    monkeypatch.setattr(loader.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(WeightsError, match=r"full: not enough memory: it needs .* would fit"):
        open_aligner(settings, tmp_path)


def test_another_family_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 768}))
    assert memory.read_model_sizes(tmp_path) is None
    assert memory.read_model_sizes(tmp_path / "nowhere") is None


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    for name, text in (
        ("memory.max", "1000"),
        ("memory.current", "700"),
        ("memory.stat", "file 5\ninactive_file 50\n"),
    ):
        (tmp_path / name).write_text(text)
    assert memory._read_container_memory(tmp_path) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._read_container_memory(tmp_path) is None
    (tmp_path / "info").write_text("MemTotal: 9 kB\nMemAvailable:   2 kB\n")
    assert memory._read_system_memory(tmp_path / "info") == 2048
