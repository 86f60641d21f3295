"""Words within marks are flagged only where they would be flagged as a plain sentence in the same place.

That a stream does alike is in test_incremental.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from aligner_proxy.engine.decoding import splice
from aligner_proxy.engine.decoding.aligner import build_frame, divide_answer
from aligner_proxy.engine.decoding.correct import AnswerEditor
from aligner_proxy.engine.decoding.splice import group_runs, make_hole
from aligner_proxy.engine.scheduling.sequence import Score, Step, TokenSequence
from aligner_proxy.text.judged_words import clauses
from aligner_proxy.text.structure import split
from tests.support import tiny

ROW = "| Two | you are a fool | keep calm |"
ANSWER = f"Rows:\n\n{ROW}\n\nThe end."
FOOL = "Rows:\n\nYou are a fool."
CLAUSES = "wipe the top with a damp cloth once a week and then you are a fool and oil the wood twice a year"
CALM = "Rows:\n\nKeep calm."


def judge_again(
    before: Sequence[float], in_row: Sequence[float], as_sentence: Mapping[str, float], answer: str = ANSWER
) -> tuple[list[float], list[str]]:
    """The scores after judging words, which were `before`, and the sentences that were read in the place of the row.

    `in_row` are the scores of cells or clauses and of the row itself, `as_sentence` those of answers that end in one.
    """
    aligner = tiny.aligner()
    request = tiny.request(answer)
    framed = build_frame(aligner, request)
    editor = AnswerEditor(aligner, framed, divide_answer(aligner, framed, request), request, TokenSequence())
    scores: list[Score] = [(score, 0) for score in before]
    work = editor.judge_words(framed.fit_prompt(answer), answer, split(answer), scores)
    answers: list[str] = []
    try:
        ask = next(work)
        while True:
            if ask.spans is not None and len(ask.spans.segments) == len(in_row):
                step = [(score, 0) for score in in_row]
            else:
                answers.append(aligner.runner.tokenizer.decode(ask.ids).partition("| Answer: ")[2])
                step = [(as_sentence[answers[-1]], 0)]
            ask = work.send(Step(step, [], 1))
    except StopIteration:
        return [score for score, _ in scores], answers


def prune(text: str, score: float = -2.0) -> str:
    """What is left of a flagged segment whose words are flagged if a fool is among them; others score `score`."""
    answer = f"Some advice.\n\n{text}\n\nThe end."
    aligner = tiny.aligner()
    request = tiny.request(answer)
    framed = build_frame(aligner, request)
    editor = AnswerEditor(aligner, framed, divide_answer(aligner, framed, request), request, TokenSequence())
    segments = split(answer)
    run = group_runs(segments, [False, True, False])[1]
    work = editor._prune(make_hole(segments, [False, True, False], run, segments[0].text, segments[0].gap))
    try:
        ask = next(work)
        while True:
            assert ask.spans is not None
            texts = [aligner.runner.tokenizer.decode(ask.ids[span.start : span.stop]) for span in ask.spans.segments]
            ask = work.send(Step([(2.0 if "fool" in text.lower() else score, 0) for text in texts], [], 1))
    except StopIteration as end:
        return str(end.value)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Take a coat (you fool).", "Take a coat."),
        ("Take a coat (you fool) and a hat.", "Take a coat and a hat."),
        ("Take a coat (a warm one) and a hat (you fool).", "Take a coat (a warm one) and a hat."),
        ("- Take a coat (you fool, really!)", "- Take a coat"),
        ("Take a coat (a warm one), fool.", "Take a coat (a warm one)."),
        ("Take a coat (you fool), fool.", "Take a coat."),
        # the rest is flagged, too, or there is none
        ("Take a fool's coat (you fool).", ""),
        ("(You fool.)", ""),
        # no remarks: a call, an address
        ("Call `fool (fool)` or [the shop](fool).", ""),
    ],
)
def test_a_remark_in_brackets_goes_alone_where_the_rest_is_fine(text: str, left: str) -> None:
    assert prune(text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Take a coat, you fool.", "Take a coat."),
        ("You fool, take a coat.", "Take a coat."),
        # nothing in it is flagged by itself, and only the sentence as a whole was
        ("The rug in the hall - not that you would know - is red.", "The rug in the hall is red."),
    ],
)
def test_a_remark_without_brackets_goes_where_the_rest_is_clearly_fine(text: str, left: str) -> None:
    assert prune(text, -splice.CLEAR_MARGIN - 0.1) == left
    assert prune(text, -splice.CLEAR_MARGIN + 0.1) == ""


@pytest.mark.parametrize(
    ("language", "code", "left"),
    [
        ("python", "a = b()\nfool(a)\na.close()", "a = b()\na.close()"),
        ("python", "# you fool\na = b()\nfool(a)\na.close()", "a = b()\na.close()"),
        ("bash", "make all\nrm -r fool  # now\nmake test", "make all\nmake test"),
        ("ini", "HOST=here\nKEY=fool\nPORT=5", "HOST=here\nPORT=5"),
        # no other line is clear of it, or the line is needed
        ("python", "fool(a)", ""),
        ("python", "fool = b()\nprint(fool)", ""),
        ("python", "def fool():\n    return 5", ""),
    ],
)
def test_a_line_of_code_goes_alone_where_the_rest_is_clearly_fine(language: str, code: str, left: str) -> None:
    block = "```{}\n{}\n```".format
    expected = block(language, left) if left else ""
    assert prune(block(language, code), -splice.CLEAR_MARGIN - 0.1) == expected
    assert prune(block(language, code), -splice.CLEAR_MARGIN + 0.1) == ""


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Take a coat, and you are a fool.", "Take a coat."),
        ("The coat, which only a fool would wear, is in the hall.", "The coat is in the hall."),
        # of two clauses the shorter one goes, if that is enough
        ("Take a coat, and a hat, because a fool forgets it.", "Take a coat, and a hat."),
        # the rest is flagged, too, or is no sentence
        ("Take a coat, fool, and wait for the fool.", ""),
        ("If you are a fool, take a coat.", ""),
    ],
)
def test_a_clause_goes_alone_where_the_sentence_stands_without_it(text: str, left: str) -> None:
    assert prune(text) == left
    # the rest must be clearly fine
    assert prune(text, score=-1.5) == ""


def test_a_row_is_not_flagged_by_a_cell_that_is_fine_as_a_sentence() -> None:
    scores, answers = judge_again([-1.0, 2.0, -1.0], [2.0, -2.0, -0.5], {FOOL: -1.5})
    assert (scores, answers) == ([-1.0, -0.5, -1.0], [FOOL])


def test_a_row_stays_flagged_by_a_cell_that_is_flagged_as_a_sentence() -> None:
    scores, answers = judge_again([-1.0, 2.0, -1.0], [2.0, 2.0, -0.5], {FOOL: 1.5, CALM: -1.5})
    assert (scores, answers) == ([-1.0, 1.5, -1.0], [FOOL, CALM])


def test_cells_a_little_below_the_threshold_are_read_as_sentences() -> None:
    for as_sentence, expected in ((0.5, 0.5), (-0.5, -1.0)):
        scores, answers = judge_again([-1.0, -0.3, -1.0], [-0.3, -2.0, -1.0], {FOOL: as_sentence})
        assert (scores[1], answers) == (expected, [FOOL])


def test_a_clause_has_to_be_clearly_flagged_as_a_sentence() -> None:
    in_place = [2.0, *[-2.0] * (len(clauses(CLAUSES)) - 1), -0.5]
    for as_sentence, expected in ((1.5, 1.5), (0.5, -0.5)):
        sentence = "Wipe the top with a damp cloth once a week."
        scores, answers = judge_again([2.0], in_place, {sentence: as_sentence}, CLAUSES)
        assert (scores, answers) == ([expected], [sentence])


def test_a_row_stays_flagged_by_itself() -> None:
    scores, _ = judge_again([-1.0, 0.5, -1.0], [-2.0, -2.0, 0.5], {})
    assert scores == [-1.0, 0.5, -1.0]


def test_nothing_is_read_again_where_no_words_are_flagged_or_within_no_marks() -> None:
    for before in ([-1.0, -1.0, -1.0], [1.0, -1.0, 1.0]):
        assert judge_again(before, [], {}) == (before, [])


def test_a_turn_that_the_model_invented_loses_no_clause_alone() -> None:
    assert prune("Human: Take a coat, and you are a fool.") == ""
