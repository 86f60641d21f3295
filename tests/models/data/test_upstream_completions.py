"""Which completions are evaluated."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from aligner_proxy import prompts
from models.data.answers import load_pool, prompt_key
from models.data.upstream_completions import SOURCES, STRONG, WEAK, draw_completions
from models.evaluate.gateway import find_objectives
from models.evaluate.judge import PROMPTS
from tests.models.research import write_rows


@pytest.fixture
def data(data_dir: Path) -> Path:
    rows = [
        {"task": "T", "query": f"Post {i}?", "golden": "g", "model": model, "output": f"Answer {i} of {model}."}
        for i in range(6)
        for model in ("m", "n")
    ]
    write_rows(data_dir, "imhi_outputs", rows)
    return data_dir


def test_a_source_gives_its_own_upstreams_and_no_prompt_of_training(data: Path) -> None:
    found = list(draw_completions(data, (), 4, 1, ("hh",)))
    assert Counter(one.model for one in found) == {"Claude-3-Sonnet": 4, "LLaMA2-chat-70B": 4, "gpt-3.5-turbo": 4}
    assert {one.source for one in found} == {"hh"}
    trained = {prompt_key(answer.query) for answer in load_pool(data, "train").answers}
    assert not trained & {prompt_key(one.query) for one in found}


def test_queries_of_the_mental_health_set_are_read_too(data: Path) -> None:
    found = list(draw_completions(data, ("m",), 10, 1, ("imhi",)))
    assert sorted(one.query for one in found) == [f"Post {i}?" for i in range(6)]


def test_every_source_is_judged_by_a_prompt_there_is_on_objectives_there_are() -> None:
    for source in SOURCES.values():
        assert source.family in PROMPTS
        assert source.family in prompts.TEMPLATES
        assert find_objectives(source.objectives)


def test_nobody_is_strong_and_weak() -> None:
    assert not set(STRONG) & set(WEAK)
