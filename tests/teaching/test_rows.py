"""What a reader of rows asks an engine for, and which answers it refuses."""

from __future__ import annotations

import asyncio

import pytest
import torch

from aligner_proxy.engine.model.teaching_space import TeachingSpace
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.teaching.rows import PromptObjectives, RowReader
from tests.support.teachable import WIDTH, TeachableEngine

OBJECTIVES = PromptObjectives(("Brevity: no more than needed",))


SPACE = TeachingSpace(torch.ones(2, WIDTH), threshold=0.5)


def read_space(engine: TeachableEngine, content_hash: str) -> bytes:
    return asyncio.run(RowReader(engine, "default", content_hash).read_space(OBJECTIVES))


def test_the_space_of_the_aligner_is_read() -> None:
    engine = TeachableEngine(space=SPACE.to_bytes())
    assert read_space(engine, engine.about.content_hash) == SPACE.to_bytes()


def test_an_aligner_without_a_space_has_no_bytes_of_one() -> None:
    engine = TeachableEngine()
    assert read_space(engine, engine.about.content_hash) == b""


def test_the_space_of_another_aligner_is_refused() -> None:
    with pytest.raises(InvalidOutput, match="another aligner"):
        read_space(TeachableEngine(space=SPACE.to_bytes()), "0" * 64)
