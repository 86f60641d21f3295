"""A scripted engine that removes words as the embedded aligner does, and all ways in which an answer is corrected."""

from __future__ import annotations

import re
from dataclasses import replace

from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text.code_lexing import Place
from aligner_proxy.text.inner_sentences import find_inner_sentences
from aligner_proxy.text.judged_words import find_removable_words, judged_words
from aligner_proxy.text.side_clauses import find_side_clauses
from aligner_proxy.text.structure import join, split
from aligner_proxy.text.word_removal import without_words
from aligner_proxy.types import Exchange, IfNothingRemains, Objective, Policy, StreamMode, Turn
from tests.support.growing import grown
from tests.support.scripted import SegmentEngine

POLICY = Policy(
    "p",
    (Objective("kind", "Kind: no insults"),),
    if_nothing_remains=IfNothingRemains.DECLINE,
    decline=(("", "DECLINED"),),
)
_INSULT = re.compile("fool", re.IGNORECASE)


def _insults(text: str, places: list[Place]) -> list[Place]:
    return [place for place in places if _INSULT.search(text[slice(*place)])]


def prune(text: str) -> str:
    """The text without insults: cells, comments, remarks, inner sentences and clauses go alone, and sentences."""
    pieces: list[tuple[str, str]] = []
    for piece in split(text):
        places = (
            _insults(piece.text, find_removable_words(piece.text))
            or _insults(piece.text, [sentence.words for sentence in find_inner_sentences(piece.text)])
            or _find_side_clause(piece.text)
            or _insults(piece.text, judged_words(piece.text))
        )
        left = without_words(piece.text, places) if places else ""
        left = "" if _INSULT.search(left) else left
        pieces.append((left if _INSULT.search(piece.text) else piece.text, piece.gap))
    return join(pieces)


def _find_side_clause(text: str) -> list[Place]:
    """The shortest side clause without which no insult is left; empty if there is none."""
    places = (place for place in find_side_clauses(text) if not _INSULT.search(without_words(text, [place])))
    return [place for place in [next(places, None)] if place is not None]


def pruning_engine() -> SegmentEngine:
    """An engine that removes insults."""
    engine = SegmentEngine(lambda text: 2.0 if _INSULT.search(text) else -6.0, prune)
    engine.keeps_titles = True
    return engine


async def correct_in_all_ways(
    answer: str, question: str = "How do I do this?", objective: str = "kind"
) -> dict[str, str | None]:
    """What is delivered of an answer that is whole, held to its end, or comes in small or large pieces."""
    judged = replace(POLICY, objectives=(Objective(objective, "Kind: no insults"),))
    asked = Exchange("c", 0, (Turn("user", question),), None)
    whole = await Pipeline(pruning_engine()).align(replace(asked, answer=answer), judged)
    texts = {"whole": whole.text}
    policy = replace(judged, stream=StreamMode.SENTENCE)
    for name, size, held in (("held", 7, True), ("characters", 1, False), ("lumps", 40, False)):
        growing = GrowingAnswer(Pipeline(pruning_engine()), policy, lambda: asked, lambda: None, hold_until_end=held)
        pieces = [answer[start : start + size] for start in range(0, len(answer), size)]
        texts[name] = (await grown(growing, pieces, rounds=20)).text
    return texts
