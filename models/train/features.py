"""Tokens, loss weights and segment labels of one pair.

The prompt is rendered by the gateway's own templates, so training and serving can never disagree. Identity targets
are dropped for a share of the pairs, and a target ends soon after its last edit: with a detector head nothing is
generated for what is copied, so those tokens would be paid for and never used. Aligner's family names no objectives, so
no head can work there, and the whole target is learned.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aligner_proxy.engine.model.detector import find_spans
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.prompts import Template, render
from aligner_proxy.text.structure import append_end, split
from models.data.inject import themes_in
from models.data.labels import END, relation, relation_in_text
from models.data.pairs import CHANGES, STAYS, UNKNOWN, Pair

EDIT_START_WEIGHT = 6.0
TAIL_TOKENS = 24  # copied tokens kept after the last edit; the rest of a copy teaches nothing new
SEGMENT_START_WEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """Token ids of [prompt | target + EOS] with what the two losses need; all lists are plain Python.

    `weights[i]` is the loss weight of predicting `ids[i]` (0 in the prompt). `labels` are those of the segments, and
    `relations` say the same of every segment and every objective (1, 0, -1 unknown); `kinds` and `themes` are what is
    known about segments and objectives, and `doubts` what the segments may speak of, for comparing them with those of
    other examples. `whole` says of each objective whether some segment goes against it though nobody said which.
    """

    ids: list[int]
    weights: list[float]
    where: Spans
    labels: tuple[int, ...]
    relations: tuple[tuple[int, ...], ...]
    kinds: tuple[str, ...]
    themes: tuple[str, ...]
    doubts: tuple[frozenset[str], ...] = ()
    whole: tuple[bool, ...] = ()


def encode(
    pair: Pair, tokenizer: Any, family: Template, *, with_target: bool = True, ends: bool = False, whole: bool = False
) -> EncodedExample:
    """Tokenise one pair; text from outside never becomes a special token.

    With `ends` the place behind the last segment is one more to be judged, where it is known what is missing there;
    with `whole` all of the target is kept, every token alike.
    """
    prompt = render(family, pair.query, pair.answer, pair.objectives, equal=pair.direction == "equal")
    ids, offsets = _tokenise(tokenizer, prompt.text, begins=True)
    ends = ends and bool(pair.kinds and pair.themes)
    segments = split(pair.answer)
    where = find_spans(prompt, append_end(segments) if ends else segments, offsets)
    weights = [0.0] * len(ids)
    if with_target:
        target = _encode_whole_target if whole or not family.names_objectives else _encode_target
        target_ids, target_weights = target(pair, tokenizer)
        ids = ids + target_ids
        weights = weights + target_weights
    if not family.names_objectives:
        return EncodedExample(ids, weights, where, pair.labels, tuple(() for _ in pair.labels), pair.kinds, ())
    doubts = tuple(themes_in(segment.text) for segment in segments) if pair.kinds else ()
    # Where it is known which objective asks for a change, that says it all.
    labels = (UNKNOWN,) * len(pair.labels) if pair.relations else pair.labels
    relations = _relations(pair, doubts)
    kinds = pair.kinds
    if ends:
        lacks = pair.lacks or (STAYS,) * len(pair.themes)
        labels = pair.all_labels
        relations = (*relations, lacks)
        kinds = (*kinds, END)
        doubts = (*doubts, frozenset())
    return EncodedExample(ids, weights, where, labels, relations, kinds, pair.themes, doubts, pair.whole)


def relations(pair: Pair) -> tuple[tuple[int, ...], ...]:
    """What is known of every segment of a pair under every objective of its prompt."""
    return _relations(pair, tuple(themes_in(segment.text) for segment in split(pair.answer)) if pair.kinds else ())


def _relations(pair: Pair, doubts: Sequence[frozenset[str]]) -> tuple[tuple[int, ...], ...]:
    """Where neither they nor kinds are known, only what stays is known for every objective."""
    if pair.relations:
        return pair.relations
    if pair.kinds and pair.themes:
        doubtful = zip(pair.kinds, doubts, strict=True)
        return tuple(tuple(_own_relation(kind, theme, speaks) for theme in pair.themes) for kind, speaks in doubtful)
    return tuple(tuple(0 if label == STAYS else -1 for _ in pair.objectives) for label in pair.labels)


def _own_relation(kind: str, theme: str, doubts: frozenset[str]) -> int:
    """What the answer says in its own words was chosen to be beyond doubt under the objectives of its prompt."""
    return relation_in_text(kind, theme, doubts) if kind else relation(kind, theme)


def _tokenise(tokenizer: Any, text: str, *, begins: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and offsets; what begins has the start mark where this tokenizer has one, as it has when it is served."""
    coded = tokenizer(text, return_offsets_mapping=True, split_special_tokens=True, add_special_tokens=begins)
    return coded["input_ids"], coded["offset_mapping"]


def _encode_target(pair: Pair, tokenizer: Any) -> tuple[list[int], list[float]]:
    """Target ids with EOS; heavier where a segment starts, heaviest where the target has left the answer."""
    ids, offsets = _tokenise(tokenizer, pair.target)
    weights = [1.0] * len(ids)
    ends = [end for _, end in offsets]
    cut = len(ids)
    for start, edited, until in _segment_starts(pair):
        position = bisect_right(ends, start)
        if position < len(weights):
            weights[position] = EDIT_START_WEIGHT if edited else SEGMENT_START_WEIGHT
        if edited:
            cut = bisect_right(ends, until) + TAIL_TOKENS
    if cut < len(ids):
        return ids[:cut], weights[:cut]
    ended_by_edit = CHANGES in (*pair.labels[-1:], *pair.lacks)
    return [*ids, tokenizer.eos_token_id], [*weights, EDIT_START_WEIGHT if ended_by_edit else SEGMENT_START_WEIGHT]


def _encode_whole_target(pair: Pair, tokenizer: Any) -> tuple[list[int], list[float]]:
    """All of the target and EOS, every token alike: an aligner that no head can help writes the whole answer."""
    ids, _ = _tokenise(tokenizer, pair.target)
    return [*ids, tokenizer.eos_token_id], [1.0] * (len(ids) + 1)


def _segment_starts(pair: Pair) -> list[tuple[int, bool, int]]:
    """Of each segment of the target: where it starts, whether an edit stands right before or in it, and until where."""
    remaining = {s.text for s, label in zip(split(pair.answer), pair.labels, strict=True) if label <= 0}
    followers = _texts_after_edits(pair)
    starts = []
    for s in split(pair.target):
        new = s.text not in remaining
        starts.append((s.start, new or s.text in followers, s.end if new else s.start))
    return starts


def _texts_after_edits(pair: Pair) -> set[str]:
    segments = split(pair.answer)
    return {segments[i + 1].text for i, label in enumerate(pair.labels[:-1]) if label == 1 and pair.labels[i + 1] <= 0}
