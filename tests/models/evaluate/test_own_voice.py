"""What became of answers with faults in their own voice, from verdicts and from what goes out."""

from __future__ import annotations

import pytest

from aligner_proxy.types import Correction, Objective, Outcome, Policy, SegmentScore, Status
from models.evaluate.own_voice import (
    Draw,
    WrittenAnswer,
    compute_rates,
    draw_examples,
    format_table,
    judge_answer,
    read_answers,
)

POLICY = Policy("own-voice", (Objective("own", "Calm: be calm"),))
SEGMENTS = ("Sow in April.", " Hurry, or all is lost.", " Water at night.")
ONE = WrittenAnswer(
    "c", "Calm: be calm", "When?", SEGMENTS, frozenset((1,)), (SEGMENTS[0], " May will do, too.", SEGMENTS[2])
)
TWIN = WrittenAnswer("c", "Calm: be calm", "When?", SEGMENTS[::2], frozenset(), SEGMENTS[::2])


def outcome(answer: WrittenAnswer, flagged: set[int], text: str) -> Outcome:
    scores = tuple(
        SegmentScore(segment.strip(), 2.0 if n in flagged else -2.0, n in flagged)
        for n, segment in enumerate(answer.passages)
    )
    return Outcome(Status.CORRECTED, None, text, POLICY, 0, False, Correction(text, scores), 1.0)


@pytest.mark.parametrize(
    ("flagged", "text", "expected"),
    [
        ({1}, "Sow in April. Water at night.", (1, 0, True, True)),
        ({1}, "Sow in April. May will do, too. Water at night.", (1, 0, True, True)),
        ({1}, "Sow in April.", (1, 0, True, False)),
        ({1, 2}, "Sow in April.", (1, 1, False, False)),
        (set(), "".join(SEGMENTS), (0, 0, False, False)),
    ],
)
def test_what_became_of_one(flagged: set[int], text: str, expected: tuple[int, int, bool, bool]) -> None:
    one = judge_answer(ONE, outcome(ONE, flagged, text))
    assert (one.found, one.false, one.exact, one.repaired) == expected


def test_a_passage_is_found_if_one_of_its_segments_is_flagged() -> None:
    passages = ("Sow in April.", " No. Hurry, or all is lost.", " Water at night.")
    answer = WrittenAnswer("c", "Calm: be calm", "When?", passages, frozenset((1,)), passages)
    texts = ("Sow in April.", "No.", "Hurry, or all is lost.", "Water at night.")
    for flagged, expected in (({2}, (1, 0)), ({1, 2}, (1, 0)), ({0, 2}, (1, 1)), ({3}, (0, 1))):
        scores = tuple(SegmentScore(text, 2.0, n in flagged) for n, text in enumerate(texts))
        text = answer.answer
        one = judge_answer(
            answer, Outcome(Status.CORRECTED, None, text, POLICY, 0, False, Correction(text, scores), 1.0)
        )
        assert (one.found, one.false) == expected, flagged


def test_rates_keep_twins_apart() -> None:
    results = [judge_answer(ONE, outcome(ONE, {1}, "Sow in April. Water at night."))]
    results += [judge_answer(TWIN, outcome(TWIN, flagged, TWIN.answer)) for flagged in (set(), {0}, set())]
    assert [(rate.hits, rate.n) for rate in compute_rates(results)] == [(1, 1), (0, 2), (1, 1), (1, 1), (1, 3)]
    assert format_table(results).count("1/3") == 2


def test_whole_authors_are_drawn_alike_of_every_objective() -> None:
    answers = list(read_answers("c", 4, seed=1))
    assert {one.author for one in answers} == {"c"}
    by_objective = {one.objective: [o for o in answers if o.objective == one.objective] for one in answers}
    assert len(by_objective) == 20
    assert all(sum(bool(one.against) for one in mine) == 2 == len(mine) // 2 for mine in by_objective.values())
    assert answers == list(read_answers("c", 4, seed=1)) != list(read_answers("c", 4, seed=2))


def test_what_teaches_is_nothing_of_what_tests() -> None:
    for author, objective, hand in (("c", "gambling", "another hand"), ("c", "overwork", "the same hand")):
        tested = [one for one in read_answers(author, 10, seed=1) if objective in one.objective.lower()]
        assert tested
        assert len({one.objective for one in tested}) == 1
        examples = draw_examples(author, tested[0].objective, Draw(10, 1, 12, 12))
        assert (examples.hand, len(examples.against), len(examples.fine)) == (hand, 12, 12)
        answers = " ".join(one.answer for one in tested)
        assert not [text for text in (*examples.against, *examples.fine) if text in answers]
        assert not set(examples.against) & set(examples.fine)
        assert len(examples.good) == 12
        assert not {one.question for one in tested} & {question for question, _ in examples.good}
