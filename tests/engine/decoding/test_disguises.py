"""Disguised insults in answers of several parts: read as a reader sees them, at once and while they are written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy import prompts
from aligner_proxy.engine.decoding.aligner import Aligner, build_frame, divide_answer
from aligner_proxy.engine.decoding.parts import Division
from aligner_proxy.engine.decoding.prompt_fit import TokenRuler
from aligner_proxy.engine.loop import correct_alone
from aligner_proxy.engine.scheduling.scheduler import Feed
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.text import structure
from aligner_proxy.text.disguises import join_undisguised, undisguise
from aligner_proxy.types import Correction
from tests.engine.decoding.test_edit import Oracle
from tests.engine.decoding.test_incremental import PIECES, read_in
from tests.support import tiny
from tests.support.sampling import examples

RULER = TokenRuler(tiny.runner().tokenizer, prompts.TEMPLATES["ultrafeedback"])
HARMLESS = [f"{number}: The harbour opens at nine." for number in range(40)]
INSULTS = (
    "You are a f\u200bo\u200bo\u200bl.",
    "You are a f\u043e\u043el.",
    "You are a f o o l.",
    "You are a " + "\u200b" * 400 + "f\u200bool.",
    "\uff39\uff4f\uff55 \uff41\uff52\uff45 \uff41 \uff46\uff4f\uff4f\uff4c.",
)


class InsultDetector(Oracle):
    """Stands in for a runner: flags what has the plain word in it, and writes nothing in its place."""

    def __init__(self) -> None:
        super().__init__("", set())

    def score_segments(self, feed: Feed, spans: Spans) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
        ids = feed.job.sequence.ids
        self.judged.append([self.tokenizer.decode(ids[where.start : where.stop]) for where in spans.segments])
        return [(3.0 if "fool" in text else -3.0, 0) for text in self.judged[-1]], []

    def _next(self, written: list[int]) -> int:
        return 1


def detector() -> Aligner:
    """An aligner whose window is shorter than the answers here."""
    info = replace(tiny.aligner().info, window=512)
    return Aligner(InsultDetector(), info)  # type: ignore[arg-type]


def found_and_removed(made: Correction, insult: str) -> None:
    assert [segment.text for segment in made.segments if segment.flagged] == [insult]
    assert made.text == " ".join(HARMLESS)


@pytest.mark.parametrize("insult", INSULTS)
def test_a_disguised_insult_in_a_later_part_is_removed(insult: str) -> None:
    texts = [*HARMLESS[:25], insult, *HARMLESS[25:]]
    answer = " ".join(texts)
    aligner, request = detector(), tiny.request(answer)
    division = divide_answer(aligner, build_frame(aligner, request), request)
    [at] = division.find_piece_range(25, 26)
    assert next(number for number, part in enumerate(division.parts) if part.first_own <= at < part.stop) > 0

    found_and_removed(correct_alone(aligner, request), insult)
    chunks = [answer[i : i + 24] for i in range(0, len(answer), 24)]
    read_ahead, _, verdicts = read_in(detector(), chunks)
    found_and_removed(read_ahead, insult)
    assert insult in [verdict.text for verdict in verdicts[-1] if verdict.flagged]


@pytest.mark.some(2)
@pytest.mark.parametrize("insult", INSULTS)
def test_a_disguise_goes_through_the_cut_of_a_segment_without_an_end(insult: str) -> None:
    """Undisguised first, cut afterwards. The row of a table is a segment however long it is."""
    for before in range(60, 84):
        answer = "| and so it goes on " * before + insult.rstrip(".") + " and so it goes on" * 60
        made = correct_alone(detector(), tiny.request(answer))
        # a text without an end is divided, but not within the insult
        [flagged] = [segment.text for segment in made.segments if segment.flagged]
        assert insult.rstrip(".") in flagged


@settings(deadline=None, max_examples=examples(120))
@given(st.lists(st.sampled_from([*PIECES, *INSULTS]), min_size=1, max_size=14).map("".join), st.integers(150, 300))
def test_parts_together_are_the_undisguised_answer(answer: str, room: int) -> None:
    """Each segment is undisguised as it is in the whole, wherever its part begins."""
    division = Division(RULER, room, structure.split(answer))
    own = []
    for part in division.parts:
        pieces = division.pieces[part.first_own : part.stop]
        own.append(
            division.undisguise_part(replace(part, first=part.first_own), "".join(p.text + p.gap for p in pieces))
        )
    whole = join_undisguised(own)
    assert (whole.text, whole.length) == (undisguise(answer).text, len(answer))
