"""Tokens, loss weights and segment labels of one pair.

The prompt is rendered by the gateway's own templates, so training and serving can never disagree. Of many pairs without
an edit the target is left out, and every target ends soon after its last edit. With a detector head, copied text is
never generated, so the model need not learn it. Aligner's template names no objectives, so no head can work there, and
the whole target is learned.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from aligner_proxy.engine.model.detector import find_spans
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.prompts import Template, render
from aligner_proxy.text.structure import append_end, split
from models.data.inject import themes_in
from models.data.labels import END, relation, relation_in_text
from models.data.pairs import CHANGES, STAYS, UNKNOWN, Pair

EDIT_START_WEIGHT = 6.0
"""Weight of the first token of an edit, where the model has to leave the answer."""
SEGMENT_START_WEIGHT = 2.0
"""Weight of the first token of any other segment; other tokens weigh 1."""
TAIL_TOKENS = 24
"""Copied tokens that are kept after the last edit; the rest of a copy teaches nothing new."""


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """Token ids of [prompt | target + EOS] with what the two losses need; all lists are plain Python."""

    ids: list[int]
    weights: list[float]
    """The loss weight of predicting each token; 0 in the prompt."""
    spans: Spans
    """The tokens of the objectives and of the answer's segments."""
    labels: tuple[int, ...]
    """Of each segment: 1 if it must change, 0 if it stays, -1 if that is unknown."""
    relations: tuple[tuple[int, ...], ...]
    """[segments][objectives]: 1 if the segment goes against the objective, 0 if not, -1 if that is unknown."""
    kinds: tuple[str, ...]
    """The kind of defect of each segment, "" for none; empty if no kinds are known."""
    themes: tuple[str, ...]
    """The theme of each objective, by which segments of other examples are compared with it."""
    doubts: tuple[frozenset[str], ...] = ()
    """The themes of which each segment may speak, so that nothing is known of it under them."""
    whole: tuple[bool, ...] = ()
    """Of each objective: whether some segment goes against it, though nobody said which."""


def encode(
    pair: Pair, tokenizer: Any, family: Template, *, with_target: bool = True, ends: bool = False, whole: bool = False
) -> EncodedExample:
    """Tokenise one pair; text from outside never becomes a special token.

    `family` is the template of the prompt. Without `with_target` only the prompt is encoded. With `ends`, the end of
    the answer counts as one more segment if it is known what is missing there. With `whole`, the whole target is kept,
    and all its tokens weigh 1.
    """
    prompt = render(family, pair.query, pair.answer, pair.objectives, equal=pair.direction == "equal")
    ids, offsets = _tokenise(tokenizer, prompt.text, begins=True)
    judges_end = ends and bool(pair.kinds and pair.themes)
    segments = split(pair.answer)
    spans = find_spans(prompt, append_end(segments) if judges_end else segments, offsets)
    weights = [0.0] * len(ids)
    if with_target:
        encode_target = _encode_whole_target if whole or not family.names_objectives else _encode_target
        target_ids, target_weights = encode_target(pair, tokenizer)
        ids = ids + target_ids
        weights = weights + target_weights
    if not family.names_objectives:
        no_relations: tuple[tuple[int, ...], ...] = tuple(() for _ in pair.labels)
        return EncodedExample(
            ids, weights, spans, labels=pair.labels, relations=no_relations, kinds=pair.kinds, themes=()
        )
    doubts = tuple(themes_in(segment.text) for segment in segments) if pair.kinds else ()
    # The relations, if they are known, say more than the labels.
    labels = (UNKNOWN,) * len(pair.labels) if pair.relations else pair.labels
    example = EncodedExample(
        ids,
        weights,
        spans,
        labels=labels,
        relations=_find_relations(pair, doubts),
        kinds=pair.kinds,
        themes=pair.themes,
        doubts=doubts,
        whole=pair.whole,
    )
    return _append_end_labels(example, pair) if judges_end else example


def _append_end_labels(example: EncodedExample, pair: Pair) -> EncodedExample:
    """Add the labels of the answer's end: it goes against an objective that asks for something which is missing."""
    return replace(
        example,
        labels=pair.all_labels,
        relations=(*example.relations, pair.lacks or (STAYS,) * len(pair.themes)),
        kinds=(*example.kinds, END),
        doubts=(*example.doubts, frozenset()),
    )


def relations(pair: Pair) -> tuple[tuple[int, ...], ...]:
    """The field `relations` of the pair's `EncodedExample`."""
    doubts = tuple(themes_in(segment.text) for segment in split(pair.answer)) if pair.kinds else ()
    return _find_relations(pair, doubts)


def _find_relations(pair: Pair, doubts: Sequence[frozenset[str]]) -> tuple[tuple[int, ...], ...]:
    """The relations of a pair: as stored, else by the kinds of its segments; else only segments that stay are known."""
    if pair.relations:
        return pair.relations
    if pair.kinds and pair.themes:
        return tuple(
            tuple(_own_relation(kind, theme, segment_doubts) for theme in pair.themes)
            for kind, segment_doubts in zip(pair.kinds, doubts, strict=True)
        )
    return tuple((STAYS if label == STAYS else UNKNOWN,) * len(pair.objectives) for label in pair.labels)


def _own_relation(kind: str, theme: str, doubts: frozenset[str]) -> int:
    """The relation of a segment to an objective of its own prompt.

    Segments without a defect (`kind` is "") were chosen so that there is no doubt about them.
    """
    return relation_in_text(kind, theme, doubts) if kind else relation(kind, theme)


def _tokenise(tokenizer: Any, text: str, *, begins: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
    """The token ids of a text and their (start, end) characters; `begins` adds the tokenizer's start mark, if any."""
    coded = tokenizer(text, return_offsets_mapping=True, split_special_tokens=True, add_special_tokens=begins)
    return coded["input_ids"], coded["offset_mapping"]


def _encode_target(pair: Pair, tokenizer: Any) -> tuple[list[int], list[float]]:
    """The ids of the target and their weights, cut `TAIL_TOKENS` after the last edit; the end mark follows if uncut."""
    ids, offsets = _tokenise(tokenizer, pair.target)
    weights = [1.0] * len(ids)
    ends = [end for _, end in offsets]
    cut = len(ids)
    for segment in _list_target_segments(pair):
        first_token = bisect_right(ends, segment.start)
        if first_token < len(weights):
            weights[first_token] = EDIT_START_WEIGHT if segment.is_edited else SEGMENT_START_WEIGHT
        if segment.is_edited:
            cut = bisect_right(ends, segment.edit_end) + TAIL_TOKENS
    if cut < len(ids):
        return ids[:cut], weights[:cut]
    ended_by_edit = CHANGES in (*pair.labels[-1:], *pair.lacks)
    return [*ids, tokenizer.eos_token_id], [*weights, EDIT_START_WEIGHT if ended_by_edit else SEGMENT_START_WEIGHT]


def _encode_whole_target(pair: Pair, tokenizer: Any) -> tuple[list[int], list[float]]:
    """The ids of the whole target and the end mark, all of weight 1: without a head, all of the answer is written."""
    ids, _ = _tokenise(tokenizer, pair.target)
    return [*ids, tokenizer.eos_token_id], [1.0] * (len(ids) + 1)


class _TargetSegment(NamedTuple):
    """A segment of the target, by characters; `is_edited` if an edit is in it or right before it."""

    start: int
    is_edited: bool
    edit_end: int
    """Where the edit ends: with the segment, or at its start if a segment was removed before it."""


def _list_target_segments(pair: Pair) -> list[_TargetSegment]:
    """The segments of the target, each with whether an edit touches it.

    The target `A. New. C.` of `A. Bad. C.` has an edited `New.`, and an edited `C.`, because it follows the edit.
    """
    kept_texts = {
        segment.text for segment, label in zip(split(pair.answer), pair.labels, strict=True) if label != CHANGES
    }
    texts_after_edits = _find_texts_after_edits(pair)
    segments = []
    for segment in split(pair.target):
        is_new = segment.text not in kept_texts
        is_edited = is_new or segment.text in texts_after_edits
        segments.append(_TargetSegment(segment.start, is_edited, segment.end if is_new else segment.start))
    return segments


def _find_texts_after_edits(pair: Pair) -> set[str]:
    """The kept segments of the answer that follow a segment which changes."""
    segments = zip(split(pair.answer), pair.labels, strict=True)
    return {
        segment.text
        for (_, label_before), (segment, label) in pairwise(segments)
        if label_before == CHANGES and label != CHANGES
    }
