"""Batches have few shapes, whatever the lengths of examples: every new shape is memory that is never given back."""

from __future__ import annotations

import pickle
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from pathlib import Path
from random import Random
from typing import Any

import pytest

from aligner_proxy.text.structure import split
from models.data.pairs import Pair, write_pairs
from models.train import batches, train
from models.train.config import StageConfig
from tests.models.train.test_train import KEPT, stage
from tests.support import tiny

ANSWERS = 200


def make_stage(folder: Path, **changes: object) -> tuple[StageConfig, Any]:
    """A stage over two hundred answers of one to twenty-four sentences."""
    config = stage(folder, **{"max_tokens": 1024, "batch_tokens": 2048} | changes)
    rng = Random(0)
    pairs = []
    for number in range(ANSWERS):
        answer = " ".join(rng.choices(KEPT, k=rng.randint(1, 24)))
        labels = (0,) * len(split(answer))
        pairs.append(Pair(f"Question {number}?", tiny.OBJECTIVES, answer, answer, labels, "test"))
    write_pairs(folder / "data.jsonl", pairs)
    read = StageConfig.read(config)
    return read, train.build_network(read)[1]


def test_shapes_are_few_and_the_same_in_every_epoch(tmp_path: Path) -> None:
    read, tokenizer = make_stage(tmp_path)
    lengths = {len(example.ids) for example in batches.load_examples(read, tokenizer)}
    widths = {batches.pad_length(length) for length in lengths}
    stream = batches.make_steps(read, tokenizer)
    seen = (set[tuple[int, int]](), set[tuple[int, int]]())
    done = 0
    while done < 2 * ANSWERS:
        for batch in next(stream):
            width = batches.pad_length(max(len(example.ids) for example in batch.examples))
            seen[done >= ANSWERS].add((len(batch.examples), width))
            done += len(batch.examples)
    assert len(lengths) > 3 * len(widths), "the lengths are all different"
    assert len(seen[0]) <= 2 * len(widths), "of each width a full batch, and what is left over"
    assert seen[0] == seen[1]


class ThreadContext:
    """Threads in place of processes, which import torch for seconds; what they share is pickled all the same."""

    @staticmethod
    def Pool(workers: int, store: Any, shared: tuple[Any, ...]) -> ThreadPool:
        return ThreadPool(workers, store, pickle.loads(pickle.dumps(shared)))


@pytest.mark.some(1)
@pytest.mark.parametrize("context", [ThreadContext, get_context("spawn")], ids=["threads", "processes"])
def test_several_processes_tokenise_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    monkeypatch.setattr(batches, "get_context", {"spawn": context}.__getitem__)
    read, tokenizer = make_stage(tmp_path, target_share=0.5)
    alone = batches.load_examples(read, tokenizer)
    together = batches.load_examples(read.model_copy(update={"workers": 2}), tokenizer)
    assert len(alone) == ANSWERS
    assert alone == together
