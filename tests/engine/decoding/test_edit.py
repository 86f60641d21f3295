"""Edits in place of flagged segments, with an oracle that knows which text it wants: removal, rewriting, declining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from aligner_proxy.engine.api import AlignerInfo, AlignRequest
from aligner_proxy.engine.decoding import correct
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.prompt_fit import make_frame
from aligner_proxy.engine.loop import correct_alone
from aligner_proxy.engine.model.runner import AlignerHeads
from aligner_proxy.engine.model.tokenizer import PromptTokenizer
from aligner_proxy.engine.scheduling.blocks import BlockPool
from aligner_proxy.engine.scheduling.draft_length import FLAT
from aligner_proxy.engine.scheduling.scheduler import Feed
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.prompts import find_template
from aligner_proxy.types import Correction, Turn
from tests.support import tiny


class Oracle:
    """Stands in for the model runner: flags by number of segment, and writes on towards one text.

    Of what it has written it flags `again` (texts), which then has this score.
    """

    choose_draft_length = staticmethod(tiny.whole)
    costs = FLAT
    step_tokens = 1024
    heads = (AlignerHeads(None, {}),)

    def __init__(self, wanted: str, flagged: set[int], again: Mapping[str, float] | None = None) -> None:
        self.tokenizer = PromptTokenizer(tiny.backend(), frozenset({1}))
        self.pool = BlockPool(128)
        self._wanted = [*self.tokenizer.list_ids(wanted), 1]
        self._flagged = flagged
        self._again = again or {}
        self._rude: set[str] = set()
        self.judged: list[list[str]] = []
        """Texts of the segments that were scored, call by call."""
        self.fed: list[int] = []
        self.prompt = 0
        """Tokens before what is written."""

    def run(self, feeds: Sequence[Feed]) -> list[list[int]]:
        self.fed += [feed.stop - feed.start for feed in feeds]
        return [
            [self._next(feed.job.sequence.ids[self.prompt : at + 1]) for at in feed.choice_positions] for feed in feeds
        ]

    def score_segments(self, feed: Feed, spans: Spans) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
        ids = feed.job.sequence.ids
        texts = [self.tokenizer.decode(ids[where.start : where.stop]).strip() for where in spans.segments]
        first = not self.judged
        self.judged.append(texts)
        if first:
            self._rude = {text for i, text in enumerate(texts) if i in self._flagged}
            return [(3.0 if i in self._flagged else -3.0, 0) for i in range(len(texts))], []
        # what is read alone behind what stays is flagged as before
        rude = 3.0 if len(texts) == 1 and texts[0] in self._rude else -3.0
        return [(self._again.get(text, rude), 0) for text in texts], []

    def _next(self, written: list[int]) -> int:
        """The wanted text's next token, or the end where what was written is no beginning of it."""
        on_the_way = len(written) < len(self._wanted) and written == self._wanted[: len(written)]
        return self._wanted[len(written)] if on_the_way else 1


def edit(
    answer: str, wanted: str, flagged: set[int], again: Mapping[str, float] | None = None
) -> tuple[Correction, Oracle]:
    return asked(tiny.request(answer), Oracle(wanted, flagged, again), tiny.aligner().info)


def asked(request: AlignRequest, oracle: Oracle, info: AlignerInfo) -> tuple[Correction, Oracle]:
    frame = make_frame(request, find_template(info.template), oracle.tokenizer, info.window)
    oracle.prompt = len(frame.fit_prompt(request.answer).ids)
    return correct_alone(Aligner(oracle, info), request), oracle  # type: ignore[arg-type]


OPEN = "The harbour opens at six."
RUDE = "You are a fool if you come late."
FERRY = "The first ferry leaves at seven."
COAT = "Bring a warm coat with you."


@pytest.mark.parametrize(
    ("answer", "kept", "flagged"),
    [
        (f"{OPEN} {RUDE} {FERRY}", f"{OPEN} {FERRY}", {1}),
        (f"{RUDE} {OPEN} {FERRY}", f"{OPEN} {FERRY}", {0}),
        (f"{OPEN} {FERRY} {RUDE}", f"{OPEN} {FERRY}", {2}),
        (f"{OPEN} {RUDE} {RUDE} {FERRY}", f"{OPEN} {FERRY}", {1, 2}),
        (f"{OPEN} {RUDE}\n\n{FERRY}", f"{OPEN}\n\n{FERRY}", {1}),
        (f"- {OPEN}\n- {RUDE}\n- {FERRY}", f"- {OPEN}\n- {FERRY}", {1}),
    ],
)
def test_a_removal_takes_one_forward_beside_the_prompt(answer: str, kept: str, flagged: set[int]) -> None:
    result, oracle = edit(answer, kept, flagged)
    assert result.text == kept
    if "\n\n" not in answer:  # there the gap before the span is drafted, and the one behind it comes
        # of two neighbours the second is read once more
        assert result.counts.forwards == len(oracle.fed) == 1 + len(flagged)
    assert result.counts.accepted > 0


def test_a_rewritten_segment_takes_the_place_of_the_old_one() -> None:
    result, _ = edit(f"{OPEN} {RUDE} {FERRY}", f"{OPEN} You may miss it if you come late. {FERRY}", {1})
    assert result.text == f"{OPEN} You may miss it if you come late. {FERRY}"
    assert result.counts.recovered + result.counts.bonus > 0


TITLED = f"1. **Tide**: {RUDE} {FERRY}\n2. {COAT}"


def test_the_title_of_an_item_stays_where_the_item_goes_on() -> None:
    result, oracle = edit(TITLED, "unused", {0})
    assert result.text == f"1. **Tide**: {FERRY}\n2. {COAT}"
    assert oracle.judged[1:] == [["1. **Tide**:"]]


def test_a_title_that_is_flagged_by_itself_goes() -> None:
    result, _ = edit(TITLED, f"{FERRY} {COAT}", {0}, {"1. **Tide**:": 3.0})
    assert result.text == f"{FERRY}\n2. {COAT}"


SNEER = "Even you will not be late twice."
COME = "Come early."


def test_the_model_reads_what_a_reader_sees_and_what_stays_stays_in_disguise() -> None:
    hidden = "\u200b".join
    answer = f"{hidden(OPEN)} {hidden(RUDE)} {hidden(FERRY)}"
    result, oracle = edit(answer, f"{OPEN} {COME} {FERRY}", {1})
    assert oracle.judged == [[OPEN, RUDE, FERRY], [COME]]
    assert result.text == f"{hidden(OPEN)} {COME} {hidden(FERRY)}"
    assert [segment.text for segment in result.segments] == [hidden(OPEN), hidden(RUDE), hidden(FERRY)]


def test_prose_in_a_code_block_is_read_as_prose() -> None:
    result, oracle = edit(f"{OPEN}\n```\n{RUDE}\n```\n{FERRY}", f"{OPEN}\n{FERRY}", {1}, {RUDE: 3.0})
    assert oracle.judged[0] == [OPEN, RUDE, FERRY]
    assert result.text == f"{OPEN}\n{FERRY}"


def test_a_disguised_question_is_read_without_it() -> None:
    shown = tiny.request(f"{OPEN} {FERRY}")
    hidden = shown.model_copy(update={"turns": (Turn("user", "\u200b".join(shown.turns[0].content)),)})
    prompts = []
    for request in (shown, hidden):
        oracle = Oracle("", set())
        asked(request, oracle, tiny.aligner().info)
        prompts.append(oracle.fed)
    assert prompts[0] == prompts[1]


def test_what_is_written_is_judged_where_it_stands_and_left_out_where_it_is_flagged() -> None:
    answer = f"{OPEN} {RUDE} {FERRY}"
    wanted = f"{OPEN} {SNEER} {FERRY}"
    kept, oracle = edit(answer, wanted, {1})
    assert (kept.text, oracle.judged) == (wanted, [[OPEN, RUDE, FERRY], [SNEER]])
    left_out, _ = edit(answer, wanted, {1}, {SNEER: 3.0})
    assert left_out.text == f"{OPEN} {FERRY}"
    assert left_out.counts.forwards == kept.counts.forwards


@pytest.mark.parametrize(("score", "stays"), [(-1.9, False), (-2.0, True)])
def test_what_is_written_has_to_be_clear_of_the_threshold(score: float, stays: bool) -> None:
    result, _ = edit(f"{OPEN} {RUDE} {FERRY}", f"{OPEN} {SNEER} {FERRY}", {1}, {SNEER: score})
    assert (SNEER in result.text) is stays


def test_what_was_there_has_to_be_below_it_only() -> None:
    result, _ = edit(TITLED, "unused", {0}, {"1. **Tide**:": -0.1})
    assert result.text == f"1. **Tide**: {FERRY}\n2. {COAT}"


def test_a_removal_is_not_judged_again() -> None:
    _, oracle = edit(f"{OPEN} {RUDE} {FERRY}", f"{OPEN} {FERRY}", {1})
    assert oracle.judged == [[OPEN, RUDE, FERRY]]


def test_of_several_sentences_only_the_flagged_one_is_left_out() -> None:
    result, _ = edit(f"{OPEN} {RUDE}\n\n{FERRY}", f"{OPEN} {COME} {SNEER}\n\n{FERRY}", {1}, {SNEER: 3.0})
    assert result.text == f"{OPEN} {COME}\n\n{FERRY}"
    result, _ = edit(f"{OPEN}\n{RUDE}\n{FERRY}", f"{OPEN}\n{SNEER} {COME}\n{FERRY}", {1}, {SNEER: 3.0})
    assert result.text == f"{OPEN}\n{COME}\n{FERRY}"


def test_a_later_span_is_written_behind_what_is_left() -> None:
    answer = f"{OPEN} {RUDE} {FERRY} {RUDE} {COAT}"
    wanted = f"{OPEN} {SNEER} {FERRY}"
    result, oracle = edit(answer, wanted, {1, 3}, {SNEER: 3.0})
    assert result.text == f"{OPEN} {FERRY} {COAT}"
    assert oracle.judged[1:] == [[SNEER]]


def test_what_outgrows_the_window_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    request = tiny.request(f"{OPEN} {RUDE}")
    wanted = f"{OPEN} {COME} {FERRY} {COAT}"
    info = tiny.aligner().info
    frame = make_frame(request, find_template(info.template), Oracle("", set()).tokenizer, info.window)
    fitted = frame.fit_prompt(request.answer)
    framed = make_frame(request, find_template(info.template), Oracle("", set()).tokenizer, info.window)
    assert asked(request, Oracle(wanted, {1}), info)[0].text == wanted
    monkeypatch.setattr(correct, "build_frame", lambda *_: replace(framed, window=len(fitted.ids)))
    assert asked(request, Oracle(wanted, {1}), info)[0].text == OPEN


def test_two_spans_are_edited_from_left_to_right_with_what_was_written_in_between() -> None:
    wanted = f"{OPEN} Come early. {FERRY} {COAT}"
    result, oracle = edit(f"{OPEN} {RUDE} {FERRY} {RUDE} {COAT}", wanted, {1, 3})
    assert result.text == wanted
    assert oracle.judged[1:] == [["Come early."]]
    # The second span goes on from the cache: only what it does not hold is fed.
    assert all(fed < oracle.fed[0] for fed in oracle.fed[1:])


def test_a_segment_that_the_model_writes_again_is_removed_all_the_same() -> None:
    answer = f"{OPEN} {RUDE} {FERRY}"
    result, _ = edit(answer, answer, {1})
    assert result.text == f"{OPEN} {FERRY}"


def test_an_end_where_text_should_follow_removes_the_segment_only() -> None:
    result, _ = edit(f"{OPEN} {RUDE} {FERRY}", OPEN, {1})
    assert result.text == f"{OPEN} {FERRY}"


def test_endless_writing_is_cut_to_its_sentences() -> None:
    result, _ = edit(f"{OPEN} {RUDE} {FERRY}", f"{OPEN} Come early. And " + "on and " * 200, {1})
    assert result.text == f"{OPEN} Come early. {FERRY}"


def test_a_model_that_jumps_over_kept_text_loses_none_of_it() -> None:
    result, _ = edit(f"{OPEN} {RUDE} {FERRY} {COAT}", f"{OPEN} {COAT}", {1})
    assert result.text == f"{OPEN} {FERRY} {COAT}"


def test_all_may_go() -> None:
    result, _ = edit(f"{RUDE} {RUDE}", "", {0, 1})
    assert result.text == ""


def test_field_marks_in_the_answer_come_back_as_they_were() -> None:
    answer = f"Use a | Answer: b. {RUDE} {FERRY}"
    result, _ = edit(answer, f"Use a \u00a6 Answer: b. {FERRY}", {1})
    assert result.text == f"Use a | Answer: b. {FERRY}"


ASK = "If in doubt, ask the harbour master."


def judging(answer: str, wanted: str, flagged: set[int], **more: object) -> tuple[Correction, Oracle]:
    """The same by an aligner whose head judges the place behind the last segment."""
    request = tiny.request(answer).model_copy(update=more)
    info = replace(tiny.aligner().info, ends=True)
    return asked(request, Oracle(wanted, flagged), info)


def test_what_is_missing_is_added_behind_the_answer() -> None:
    made, _ = judging(f"{OPEN} {FERRY}", f"{OPEN} {FERRY} {ASK}", {2})
    assert made.text == f"{OPEN} {FERRY} {ASK}"
    assert [(s.text, s.flagged) for s in made.segments] == [(OPEN, False), (FERRY, False), ("", True)]


def test_one_answer_may_lose_something_and_get_something() -> None:
    made, _ = judging(f"{RUDE} {FERRY}\n", f"{FERRY}\n\n{ASK}", {0, 2})
    assert made.text == f"{FERRY}\n\n{ASK}"
    made, _ = judging(f"{FERRY} {RUDE}", f"{FERRY} {ASK}", {1, 2})
    assert made.text == f"{FERRY} {ASK}"


def test_what_is_added_is_judged_too() -> None:
    request = tiny.request(f"{OPEN} {FERRY}")
    info = replace(tiny.aligner().info, ends=True)
    made, oracle = asked(request, Oracle(f"{OPEN} {FERRY} {SNEER} {ASK}", {2}, {SNEER: 3.0}), info)
    assert made.text == f"{OPEN} {FERRY} {ASK}"
    assert oracle.judged[1:] == [[SNEER, ASK]]


def test_where_nothing_is_missing_nothing_is_written() -> None:
    made, oracle = judging(f"{OPEN} {FERRY}", f"{OPEN} {FERRY} {ASK}", set())
    assert made.text == f"{OPEN} {FERRY}"
    assert len(oracle.fed) == 1


def test_nothing_is_added_to_a_text_that_stands_in_another() -> None:
    made, _ = judging(f"{OPEN} {FERRY}", f"{OPEN} {FERRY} {ASK}", {2}, open_ended=False)
    assert made.text == f"{OPEN} {FERRY}"
    assert [s.text for s in made.segments] == [OPEN, FERRY]


def test_a_dictated_sentence_is_drafted_from_its_objective() -> None:
    told = {"objectives": (f"Closing: every answer ends with: {ASK}",)}
    made, oracle = judging(f"{OPEN} {FERRY}", f"{OPEN} {FERRY} {ASK}", {2}, **told)
    assert made.text.endswith(ASK)
    assert made.counts.accepted > len(oracle.tokenizer.list_ids(f" {ASK}")) // 2


@pytest.mark.parametrize(
    ("answer", "flagged", "wanted", "text"),
    [
        (f"{OPEN} {FERRY}", {2}, "", f"{OPEN} {FERRY} {ASK}"),
        (f"- {OPEN}\n- {FERRY}\n", {2}, "", f"- {OPEN}\n- {FERRY}\n\n{ASK}"),
        (f"{FERRY} {RUDE}", {1, 2}, f"{FERRY} {COAT}", f"{FERRY} {COAT} {ASK}"),
        (f"{FERRY} {RUDE}", {1, 2}, f"{FERRY} {ASK}", f"{FERRY} {ASK}"),
        (f"{FERRY} {RUDE}", {1, 2}, FERRY, f"{FERRY} {ASK}"),
    ],
)
def test_what_stands_in_quotation_marks_is_copied_and_not_written(
    answer: str, flagged: set[int], wanted: str, text: str
) -> None:
    told = {"objectives": (f"Closing: every answer ends with '{ASK}'",)}
    made, oracle = judging(answer, wanted, flagged, **told)
    assert made.text == text
    if flagged == {2}:
        assert len(oracle.fed) == 1
