"""Pairs of signs that reach beyond an edit stay pairs, whole and in streams; an edit with half a pair is dropped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from aligner_proxy.gate.judge import judge
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text.pairs import read_halves
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, Exchange, Objective, Outcome, Policy, SegmentScore, StreamMode, Turn
from tests.gate.pairs import ALONE, REMOVED, REWRITTEN, TORN
from tests.support.growing import grown
from tests.support.scripted import SegmentEngine

POLICY = Policy("p", (Objective("kind", "Kind: never insult"),), stream=StreamMode.SENTENCE)
ASKED = Exchange("call-1", 0, (Turn("user", "When does it open?"),), None)
Way = Callable[[str, str], Outcome]


def engine(written: str) -> SegmentEngine:
    return SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda _: written)


def whole(answer: str, written: str = "") -> Outcome:
    exchange = Exchange("call-1", 0, ASKED.turns, answer)
    return asyncio.run(Pipeline(engine(written)).align(exchange, POLICY))


def stream_answer(answer: str, written: str = "", size: int = 7) -> Outcome:
    async def grow() -> Outcome:
        growing = GrowingAnswer(Pipeline(engine(written)), POLICY, lambda: ASKED, lambda: None)
        return await grown(growing, [answer[at : at + size] for at in range(0, len(answer), size)])

    return asyncio.run(grow())


WAYS = pytest.mark.parametrize("way", [whole, stream_answer])


@WAYS
def test_of_a_pair_around_a_removed_sentence_both_halves_stay_or_go(way: Way) -> None:
    got = {answer: (way(answer, "").text or "").rstrip() for answer, _ in REMOVED}
    assert {answer: text for answer, text in REMOVED if got[answer] != text} == {}, got


@WAYS
def test_a_sign_that_is_half_of_nothing_goes_with_its_sentence(way: Way) -> None:
    wrong = {answer: got for answer, text in ALONE if (got := (way(answer, "").text or "").rstrip()) != text}
    assert wrong == {}


@WAYS
def test_what_is_written_in_place_keeps_the_halves_of_the_sentence(way: Way) -> None:
    wrong = {
        (answer, written): got
        for answer, written, text in REWRITTEN
        if (got := (way(answer, written).text or "").rstrip()) != text
    }
    assert wrong == {}


@WAYS
def test_an_edit_with_half_a_pair_is_dropped(way: Way) -> None:
    got = [(way(answer, written), answer, written) for answer, written in TORN]
    wrong = [(answer, written) for outcome, answer, written in got if outcome.text != answer]
    assert wrong == []
    assert {outcome.dropped for outcome, _, _ in got} == {("torn_pair",)}
    assert {outcome.reason for outcome, _, _ in got} == {"gate_torn_pair"}


SIGNS = [("**", "**"), ("*", "*"), ("__", "__"), ("~~", "~~"), ('"', '"'), ("\u201c", "\u201d"), ("\u00ab", "\u00bb"),
         ("(", ")"), ("[", "]"), ("<b>", "</b>"), ("<note>", "</note>"), ("<!-- ", " -->"), ("$$", "$$")]  # fmt: skip
SENTENCES = ["It opens at nine.", "You fool.", "Bring a coat!", "Ask Anna.", "You fool!", "Is it far?"]


def paired_answer(rng: random.Random) -> str:
    """Sentences in lines and paragraphs, of which some are within pairs of signs."""
    sentences = [rng.choice(SENTENCES) for _ in range(rng.randrange(3, 9))]
    gaps = [rng.choice([" ", " ", " ", "\n", "\n\n"]) for _ in sentences]
    for opener, closer in rng.sample(SIGNS, rng.randrange(1, 4)):
        first = rng.randrange(len(sentences))
        last = rng.randrange(first, len(sentences))
        # only tags reach beyond a paragraph
        if opener[0] == "<" or "\n\n" not in gaps[first:last]:
            sentences[first] = opener + sentences[first]
            sentences[last] += closer
    return "".join(sentence + gap for sentence, gap in zip(sentences, gaps, strict=True)).rstrip()


def single_halves(text: str) -> list[str]:
    return [half.kind for half in read_halves(text, split(text)) if half.partner is None]


def test_no_pair_is_torn_wherever_it_reaches_and_streams_agree() -> None:
    wrong = []
    edited = 0
    for seed in range(200):
        answer = paired_answer(random.Random(seed))
        outcome = whole(answer)
        if outcome.reason == "gate_empty" or single_halves(answer):
            continue
        edited += outcome.text != answer
        text = outcome.text or ""
        if single_halves(text) or "fool" in text or stream_answer(answer).text != text:
            wrong.append((answer, text))
    assert edited > 100
    assert wrong == []


LONG = "The boats rise with the tide and the boats fall with it too. " * 9


def test_pairs_longer_than_what_the_gate_reads_of_a_stream_stay_pairs() -> None:
    answers = [
        f"You fool. It opens. **{LONG}You fool. It opens. {LONG}You fool.** Bye.",
        f"You fool. It opens. ({LONG}You fool. It opens. {LONG}You fool.) Bye.",
        f"You fool. It opens. _{LONG}You fool. It opens.\n{LONG}You fool._ Bye.",
        f"You fool. So.\n\n<note>\n{LONG}\n\nYou fool. So.\n\n{LONG}\n\nYou fool. So.\nYou fool.</note>\nBye.",
        f"You fool. So.\n\n<!--\n{LONG}\n\nYou fool. So.\n\n{LONG}\n\nYou fool. So.\nYou fool.-->\nBye.",
    ]
    for answer in answers:
        text = stream_answer(answer).text or ""
        assert "fool" not in text
        assert single_halves(text) == []
        assert text == whole(answer).text


def test_a_sign_before_a_heading_that_waits_goes_out_once() -> None:
    answer = "**You fool. Here are two tips:**\n- Go early.\n- Bring a coat."
    assert whole(answer).text == stream_answer(answer).text == "**Here are two tips:**\n- Go early.\n- Bring a coat."


def test_pairs_stay_pairs_with_a_detector_and_without() -> None:
    answer = "**You fool. It opens at nine.** Bye."
    assert judge(answer, Correction("It opens at nine.** Bye."), POLICY).text == "**It opens at nine.** Bye."
    scores = tuple(SegmentScore(piece.text, 1.0, "fool" in piece.text) for piece in split(answer))
    assert judge(answer, Correction("It opens at nine.** Bye.", scores), POLICY).text == "**It opens at nine.** Bye."


def test_a_pair_around_more_than_is_read_again_stays_a_pair() -> None:
    """The halves that are open where the gate closes a growing answer are kept, whatever stands before them."""
    between = "Only a fool waits here. " + "The sea is wide and calm here, and the boats lie still. " * 20
    wrong = []
    for opening, closing in (
        ("<b>", "</b>"),
        ("**", "**"),
        ("(", ")"),
        ("\u201c", "\u201d"),
        ("The rope is dry.</b> <b>", "</b>"),
    ):
        answer = f"{opening}Bring Anna a coat. {between}{between}The fool left.{closing} Go home."
        if stream_answer(answer).text != whole(answer).text:
            wrong.append(opening)
    assert wrong == []
