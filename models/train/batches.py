"""Order of examples: endless, seeded, in buckets of similar length.

Lengths are padded to multiples of 64, so that shapes are few and memory stays flat. The same seed gives the same
batches, so a resumed run goes on exactly.

Most batches are examples of pairs. Others are bags: two replies to one prompt, of which people preferred the first, and
of which nobody said which segments are worse.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from multiprocessing import get_context
from typing import Any

from aligner_proxy.prompts import find_template
from models.data.pairs import Pair, PairError, read_pairs

from .config import StageConfig
from .features import EncodedExample, encode

Bag = tuple[EncodedExample, EncodedExample]
"""The reply that people preferred, and the other one."""
_PAD_TO = 64
"""Lengths are padded to multiples of this many tokens."""
_CHUNK = 256
"""Pairs that a process tokenises at a time."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Examples for one forward pass; with `bags` every two of them are a `Bag`."""

    examples: list[EncodedExample]
    bags: bool = False


def make_steps(stage: StageConfig, tokenizer: Any) -> Iterator[list[TrainingBatch]]:
    """Yield the batches of each step: `stage.accumulate` of them, every `bag_every`-th one of bags if there are any."""
    batches = _interleave_batches(
        _make_buckets(load_examples(stage, tokenizer), stage), _make_bags(stage, tokenizer), stage
    )
    while True:
        yield list(islice(batches, stage.accumulate))


def load_examples(stage: StageConfig, tokenizer: Any) -> list[EncodedExample]:
    """All examples of a stage, tokenised. Which pairs keep their target is drawn, by the stage's seed and shares."""
    rng = random.Random(stage.seed)
    bad: list[PairError] = []
    drawn_pairs = []
    for pair in read_pairs(stage.data, bad.append if stage.bad_rows == "skip" else None):
        share = stage.target_share if pair.target == pair.answer else stage.edit_share
        drawn_pairs.append((pair, rng.random() < share))
    coded = encode_pairs(drawn_pairs, tokenizer, stage)
    examples = [example for example in coded if len(example.ids) <= stage.max_tokens]
    too_long = len(coded) - len(examples)
    if not examples:
        raise PairError(f"{stage.data} has no example of at most {stage.max_tokens} tokens ({too_long} are longer)")
    print(f"{stage.stage}: {len(examples)} pairs, {too_long} longer than {stage.max_tokens} tokens left out")
    if bad:
        print(f"{stage.stage}: {len(bad)} bad rows left out, the first: {bad[0]}")
    return examples


def encode_pairs(drawn_pairs: Sequence[tuple[Pair, bool]], tokenizer: Any, stage: StageConfig) -> list[EncodedExample]:
    """The examples of these pairs, each with its target or without, tokenised by `stage.workers` processes."""
    if stage.workers == 1:
        return [_encode_pair(tokenizer, stage, pair, with_target=with_target) for pair, with_target in drawn_pairs]
    # Not by fork: a copy of a process with threads may wait for ever for a lock that one of them held.
    with get_context("spawn").Pool(stage.workers, _store_shared, (tokenizer, stage)) as pool:
        return pool.starmap(_encode_shared, drawn_pairs, chunksize=_CHUNK)


_shared: tuple[Any, StageConfig] | None = None
"""In a process that tokenises: the tokenizer and the stage of all its pairs."""


def _store_shared(tokenizer: Any, stage: StageConfig) -> None:
    global _shared
    _shared = tokenizer, stage


def _encode_shared(pair: Pair, with_target: bool) -> EncodedExample:  # called by `starmap`, without keywords
    if _shared is None:
        raise RuntimeError("this process was not told what it tokenises with")
    return _encode_pair(*_shared, pair, with_target=with_target)


def _encode_pair(tokenizer: Any, stage: StageConfig, pair: Pair, *, with_target: bool) -> EncodedExample:
    return encode(pair, tokenizer, find_template(stage.template), with_target=with_target, ends=stage.ends)


def pad_length(length: int) -> int:
    """The length rounded up to a multiple of 64: 130 -> 192."""
    return -(-length // _PAD_TO) * _PAD_TO


def _make_buckets(examples: list[EncodedExample], stage: StageConfig) -> Iterator[list[EncodedExample]]:
    """Yield endless batches of examples of one padded length, of at most `batch_tokens` tokens, in random order."""
    epoch = 0
    while True:
        rng = random.Random(f"{stage.seed}/{epoch}")
        order = sorted(examples, key=lambda e: (pad_length(len(e.ids)), rng.random()))
        groups: list[list[EncodedExample]] = []
        for example in order:
            width = pad_length(len(example.ids))
            last = groups[-1] if groups else []
            if last and pad_length(len(last[0].ids)) == width and (len(last) + 1) * width <= stage.batch_tokens:
                last.append(example)
            else:
                groups.append([example])
        rng.shuffle(groups)
        yield from groups
        epoch += 1


def _interleave_batches(
    pairs: Iterator[list[EncodedExample]], bags: Iterator[list[EncodedExample]], stage: StageConfig
) -> Iterator[TrainingBatch]:
    """Yield batches of pairs, and every `bag_every`-th time one of bags, as long as there are bags."""
    for number in count(1):
        bag = next(bags, None) if number % stage.bag_every == 0 else None
        yield TrainingBatch(next(pairs)) if bag is None else TrainingBatch(bag, bags=True)


def _make_bags(stage: StageConfig, tokenizer: Any) -> Iterator[list[EncodedExample]]:
    """Yield endless batches of bags, the replies of a bag one after the other; none if the stage names no file."""
    rng = random.Random(f"{stage.seed}/bags")
    bags = _load_bags(stage, tokenizer)
    while bags:
        order = sorted(bags, key=lambda pair: (pad_length(_longer_length(pair)), rng.random()))
        groups: list[list[EncodedExample]] = [[]]
        for pair in order:
            if groups[-1] and (len(groups[-1]) + 2) * pad_length(_longer_length(pair)) > stage.batch_tokens:
                groups.append([])
            groups[-1].extend(pair)
        rng.shuffle(groups)
        yield from groups


def _load_bags(stage: StageConfig, tokenizer: Any) -> list[Bag]:
    """The bags of a stage that are not too long; none where the stage names no file."""
    if stage.bags is None:
        return []
    family = find_template(stage.template)
    coded = [encode(pair, tokenizer, family, with_target=False) for pair in read_pairs(stage.bags)]
    return [pair for pair in zip(coded[::2], coded[1::2], strict=True) if _longer_length(pair) <= stage.max_tokens]


def _longer_length(pair: Bag) -> int:
    return max(len(example.ids) for example in pair)


def group_by_length(lengths: Sequence[int], most: int, pad: Callable[[int], int] = int) -> Iterator[list[int]]:
    """Yield the numbers of texts with these `lengths` in batches, the shortest first, so that little of it is padding.

    A batch has at most `most` tokens if each text is as long as `pad` makes the longest, or else a single text.
    """
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * pad(lengths[number]) > most:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
