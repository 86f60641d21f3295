"""What is flagged directly behind a flagged segment is judged once more behind what stays.

That a stream does alike is in test_incremental.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.engine.decoding.aligner import build_frame, divide_answer
from aligner_proxy.engine.decoding.correct import AnswerEditor
from aligner_proxy.engine.scheduling.sequence import Score, Step, TokenSequence
from tests.support import tiny

SENTENCES = ("The first one is fine.", "You are a fool.", "Bring a coat.", "Boil the water.")
ANSWER = " ".join(SENTENCES)


def judged_again(flags: Sequence[bool], second: float, answer: str = ANSWER) -> tuple[list[Score], list[str]]:
    """The scores after judging followers, where a second reading gives `second`, and the answers that were read."""
    aligner = tiny.aligner()
    request = tiny.request(answer)
    framed = build_frame(aligner, request)
    division = divide_answer(aligner, framed, request)
    editor = AnswerEditor(aligner, framed, division, request, TokenSequence())
    scores: list[Score] = [(1.0 if flag else -1.0, 0) for flag in flags]
    work = editor.judge_followers(division.parts[0], scores, 0, follows_flagged=False)
    answers = []
    try:
        ask = next(work)
        while True:
            prompt = aligner.runner.tokenizer.decode(ask.ids)
            answers.append(prompt.partition("| Answer: ")[2])
            ask = work.send(Step([(second, 0)], [], 1))
    except StopIteration:
        return scores, answers


def test_a_flag_behind_a_flag_falls_where_the_sentence_is_fine_behind_what_stays() -> None:
    scores, answers = judged_again([False, True, True, False], -2.0)
    assert [score for score, _ in scores] == [-1.0, 1.0, -2.0, -1.0]
    assert answers == [f"{SENTENCES[0]} {SENTENCES[2]}"]


def test_a_flag_behind_a_flag_stays_where_it_is_flagged_again() -> None:
    scores, answers = judged_again([False, True, True, True], 3.0)
    assert [score for score, _ in scores] == [-1.0, 1.0, 1.0, 1.0]
    assert len(answers) == 2


def test_nothing_is_read_again_without_two_flagged_neighbours() -> None:
    for flags in ([False] * 4, [True, False, True, False], [False, False, False, True]):
        scores, answers = judged_again(flags, -2.0)
        assert ([score > 0 for score, _ in scores], answers) == (flags, [])


def test_what_stands_in_an_invented_turn_goes_with_it() -> None:
    """A sentence of such a turn is fine by itself; judged again it stayed, and the client got half of the turn."""
    sentences = ("The first one is fine.", "Human: Which coat is warm?", "A long one is.", "Thanks.")
    scores, answers = judged_again([False, True, True, True], -2.0, "\n".join(sentences))
    assert ([score > 0 for score, _ in scores], answers) == ([False, True, True, True], [])
