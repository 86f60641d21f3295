"""Corrections with tiny random models: what is kept is kept to the character, and speculation changes nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding import correct
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.prompt_fit import PromptFrame, make_frame
from aligner_proxy.engine.decoding.proposer import DraftProposer
from aligner_proxy.engine.decoding.splice import Hole
from aligner_proxy.engine.loop import correct_alone
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.draft_length import CostCurve, LengthRule, choose_draft_length
from aligner_proxy.engine.scheduling.scheduler import Feed
from aligner_proxy.errors import AnswerTooLong, DeadlineExceeded
from aligner_proxy.prompts import find_template
from aligner_proxy.text import structure
from aligner_proxy.types import DecodeCounts, Turn, Verify, Write
from tests.support import tiny
from tests.support.sampling import examples

SENTENCES = st.lists(st.sampled_from([s for text in tiny.CORPUS for s in text.split(". ")]), min_size=1, max_size=6)
TEXTS = st.one_of(
    SENTENCES.map(". ".join),
    SENTENCES.map("\n\n".join),
    st.text(max_size=80),
    st.lists(
        st.sampled_from(["Yes. ", "- item\n", "```\ncode\n```\n", " | Answer: x. ", "\u00e9\U0001f600! ", "  "])
    ).map("".join),
)


@settings(max_examples=examples(80), deadline=None)
@given(answer=TEXTS, seed=st.integers(0, 3), caution=st.floats(-0.3, 0.3))
def test_unflagged_segments_are_in_the_result_character_for_character(answer: str, seed: int, caution: float) -> None:
    result = correct_alone(tiny.aligner(seed), tiny.request(answer, caution=caution))
    if not any(s.flagged for s in result.segments):
        assert result.text is answer or result.text == answer
        return
    at = 0
    for segment in result.segments:
        if not segment.flagged:
            at = result.text.index(segment.text, at) + len(segment.text)


@settings(max_examples=examples(30), deadline=None)
@given(answer=TEXTS, seed=st.integers(0, 3))
def test_the_segments_told_are_those_of_the_answer(answer: str, seed: int) -> None:
    result = correct_alone(tiny.aligner(seed), tiny.request(answer))
    if answer.strip():
        assert [s.text for s in result.segments] == [s.text for s in structure.split(answer)]
        assert all(s.flagged == (s.score is not None and s.score > 0) for s in result.segments)


def test_nothing_flagged_takes_one_forward_and_returns_the_answer_itself() -> None:
    result = correct_alone(tiny.aligner(), tiny.request(caution=1e9))
    assert result.text == tiny.ANSWER
    assert result.counts.forwards == 1
    assert result.counts.drafted == 0
    assert len(result.segments) == 4


def test_a_verdict_reads_no_further_than_the_last_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = tiny.aligner()
    request = tiny.request(caution=1e9)
    fed = list[Feed]()
    run = aligner.runner.run
    monkeypatch.setattr(aligner.runner, "run", lambda feeds: fed.extend(feeds) or run(feeds))
    correct_alone(aligner, request)
    fitted = correct.build_frame(aligner, request).fit_prompt(request.answer)
    ends = [end for _, end in fitted.offsets]
    assert ends[fed[-1].stop - 1] >= fitted.prompt.end > ends[fed[-1].stop - 2]
    assert fed[-1].stop < len(fitted.ids)


def test_to_score_only_flags_by_the_caution_and_edits_nothing() -> None:
    result = correct_alone(tiny.aligner(), tiny.request(caution=-1e9, score_only=True))
    assert result.text == tiny.ANSWER
    # each flagged segment behind a flagged one is judged once more
    assert result.counts == DecodeCounts(forwards=4)
    assert [s.flagged for s in result.segments] == [True] * 4
    assert result.segments == correct_alone(tiny.aligner(), tiny.request(caution=-1e9)).segments


@pytest.mark.parametrize("verify", list(Verify))
def test_to_score_only_without_a_head_the_model_still_reads_the_prompt(verify: Verify) -> None:
    result = correct_alone(tiny.aligner(head=False), tiny.request(verify=verify, score_only=True))
    assert (result.text, result.counts) == (tiny.ANSWER, DecodeCounts(forwards=1))
    assert [s.score for s in result.segments] == [None] * 4


def test_everything_flagged_keeps_nothing_by_copy() -> None:
    result = correct_alone(tiny.aligner(), tiny.request(caution=-1e9))
    assert all(s.flagged for s in result.segments)
    assert not any(s.text in result.text for s in result.segments)


def test_where_nothing_may_be_written_what_is_flagged_is_removed_at_the_price_of_reading() -> None:
    for seed in range(3):
        scores = [s.score or 0.0 for s in correct_alone(tiny.aligner(seed), tiny.request(score_only=True)).segments]
        for caution in (-1e9, sorted(scores)[1], sorted(scores)[2]):
            for verify in Verify:
                request = tiny.request(caution=caution, verify=verify).model_copy(update={"write": Write.NEVER})
                result = correct_alone(tiny.aligner(seed), request)
                kept = [s.text for s in result.segments if not s.flagged]
                assert result.text == " ".join(kept), (seed, caution, verify)
                judged = correct_alone(tiny.aligner(seed), tiny.request(caution=caution, score_only=True))
                assert result.counts == judged.counts


def test_without_a_head_only_what_may_be_written_freely_is_written() -> None:
    for write in (Write.NEVER, Write.VERIFIED):
        request = tiny.request().model_copy(update={"write": write, "question": "Answer: it should answer the query"})
        assert correct_alone(tiny.aligner(head=False), request).text == tiny.ANSWER
    assert correct_alone(tiny.aligner(head=False), tiny.request()).text != tiny.ANSWER


def test_what_is_verified_is_also_judged_against_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    question = "Answer: the response should answer the query"
    request = tiny.request(caution=1e9).model_copy(update={"write": Write.VERIFIED, "question": question})
    framed: list[tuple[str, ...]] = []
    build_frame = correct.build_frame

    def note_frame(aligner: Aligner, request: AlignRequest) -> PromptFrame:
        framed.append(request.objectives)
        return build_frame(aligner, request)

    monkeypatch.setattr(correct, "build_frame", note_frame)
    monkeypatch.setattr(Hole, "cut_replacement", lambda *_, **__: "The harbour opens late.")
    monkeypatch.setattr(
        correct.AnswerEditor, "is_flagged", lambda _self, score: True
    )  # all is flagged, and passes later
    verified = correct_alone(tiny.aligner(), request)
    assert framed[0] == request.objectives
    assert {(*request.objectives, question)} == set(framed[1:])
    framed.clear()
    free = correct_alone(tiny.aligner(), request.model_copy(update={"write": Write.FREE}))
    assert len(framed) == 1
    assert free.text == verified.text  # nothing that was written is flagged here


def test_a_white_space_answer_is_returned_without_a_forward() -> None:
    result = correct_alone(tiny.aligner(), tiny.request("  \n"))
    assert (result.text, result.counts.forwards, result.segments) == ("  \n", 0, ())


def test_without_a_head_scores_are_absent_and_the_whole_answer_is_verified() -> None:
    result = correct_alone(tiny.aligner(head=False), tiny.request())
    assert [s.score for s in result.segments] == [None] * 4
    assert result.counts.drafted > 0


def test_enough_caution_keeps_every_draft_token() -> None:
    result = correct_alone(tiny.aligner(head=False), tiny.request(caution=1e9, verify=Verify.ALWAYS))
    assert result.text == tiny.ANSWER
    assert result.counts.forwards == 1


@pytest.mark.some(1)
@pytest.mark.parametrize("caution", [0.5, 0.0, 2.0, 8.0])
def test_what_is_written_does_not_depend_on_draft_lengths(caution: float, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tiny.request(tiny.ANSWER * 3, caution=caution, verify=Verify.ALWAYS)
    written = set()
    for rule in (tiny.whole, tiny.at_most(16), tiny.at_most(2), tiny.at_most(0), DEAR):
        monkeypatch.setattr(ModelRunner, "choose_draft_length", lambda _, seen, room, rule=rule: rule(seen, room))
        written.add(correct_alone(tiny.aligner(head=False), asked).text)
    assert len(written) == 1


def test_verifying_with_a_head_also_scores() -> None:
    result = correct_alone(tiny.aligner(), tiny.request(verify=Verify.ALWAYS, caution=1e9))
    assert result.text == tiny.ANSWER
    assert all(s.score is not None for s in result.segments)


def plain(runner: ModelRunner, prompt: list[int], tokens: int) -> list[int]:
    """What transformers writes one by one."""
    written = runner._model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=tokens, do_sample=False
    )
    return written[0, len(prompt) :].tolist()


DEAR = partial(choose_draft_length, CostCurve(((1, 1.0), (4, 1.0), (8, 1.5), (64, 8.2))))


@pytest.mark.covering("rate", "rule")
@pytest.mark.parametrize("rule", [tiny.whole, tiny.at_most(16), tiny.at_most(3), DEAR])
@pytest.mark.parametrize("rate", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0])
def test_speculation_writes_what_plain_greedy_generate_writes(rate: float, rule: LengthRule) -> None:
    """Drafts are corrupted copies of the plain output, so that each edit rate is a true one."""
    for seed in range(examples(4)):
        rng = random.Random(f"{rate} {seed}")
        runner = tiny.runner(seed)
        prompt = runner.tokenizer.encode_prompt(rng.choice(tiny.CORPUS) + " | Edit: ").ids
        expected = plain(runner, prompt, 96)
        draft = corrupted(expected, rate, rng)
        got, tally = tiny.written(runner, prompt, DraftProposer(draft, rule), 96)
        ended = expected[-1] in runner.tokenizer.eos_ids
        assert got.ids == (expected[:-1] if ended else expected)
        assert got.finished == ended
        assert tally.accepted + tally.recovered + tally.bonus >= len(got.ids)


def corrupted(tokens: list[int], rate: float, rng: random.Random) -> list[int]:
    """Substitute, insert or delete at every position with probability `rate`."""
    out: list[int] = []
    for token in tokens:
        if rng.random() >= rate:
            out.append(token)
            continue
        kind = rng.randrange(3)
        other = rng.randrange(3, 380)
        out.extend(([other], [other, token], [])[kind])
    return out


@pytest.mark.parametrize("caution", [-1e9, 0.0, 1e9])
def test_where_drafts_are_dear_the_detector_is_asked_first_and_the_text_is_the_same(
    caution: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a caution that nothing exceeds all is vouched for and copied: the prompt's forward, one that generates."""
    aligner = tiny.aligner()
    request = tiny.request(tiny.ANSWER * 4, verify=Verify.ALWAYS, caution=caution)
    monkeypatch.setattr(ModelRunner, "step_tokens", 1024)
    cheap = correct_alone(aligner, request)
    monkeypatch.setattr(aligner.runner, "costs", CostCurve(((1, 1.0), (64, 64.0))))
    dear = correct_alone(aligner, request)
    assert dear.text == cheap.text
    assert [s.score for s in dear.segments] == pytest.approx([s.score for s in cheap.segments], abs=1e-4)
    assert [s.flagged for s in dear.segments] == [s.flagged for s in cheap.segments]
    if caution > 0:
        assert (cheap.counts.forwards, dear.counts.forwards) == (1, 2)


def test_a_draft_that_would_be_split_waits_for_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt and draft fit one step: one forward. One token less: the prompt's, and one that generates."""
    aligner = tiny.aligner()
    request = tiny.request(tiny.ANSWER * 4, verify=Verify.ALWAYS, caution=1e9)
    fitted = correct.build_frame(aligner, request).fit_prompt(request.answer)
    whole = len(fitted.ids) + len(aligner.runner.tokenizer.list_ids(fitted.prompt.shown_answer)) + 1
    for step, forwards in ((whole, 1), (whole - 1, 2)):
        monkeypatch.setattr(ModelRunner, "step_tokens", step)
        assert correct_alone(aligner, request).counts.forwards == forwards


LONG_ANSWER = "\n\n".join(f"{number}. {text}" for number, text in enumerate(tiny.CORPUS * 6))


def fed_to(aligner: Aligner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all sequences that go through the model from now on."""
    lengths = list[int]()
    run = aligner.runner.run
    monkeypatch.setattr(
        aligner.runner, "run", lambda feeds: lengths.extend(len(feed.job.sequence.ids) for feed in feeds) or run(feeds)
    )
    return lengths


@pytest.mark.parametrize(
    "answer", [LONG_ANSWER, "Wait a while. " * 400, "a" * 20_000, "\u200b" * 3000, "x\n" + " " * 9000]
)
def test_an_answer_beyond_the_window_is_judged_in_parts(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = tiny.aligner()
    lengths = fed_to(aligner, monkeypatch)
    result = correct_alone(aligner, tiny.request(answer, caution=1e9))
    assert result.text == answer
    assert [s.text for s in result.segments] == [s.text for s in structure.split(answer)]
    assert all(s.score is not None for s in result.segments)
    assert max(lengths) <= aligner.info.window


@pytest.mark.some(2)
@pytest.mark.parametrize(
    ("caution", "verify"), [(0.0, Verify.FLAGGED), (-1e9, Verify.FLAGGED), (0.1, Verify.ALWAYS), (0.1, Verify.FLAGGED)]
)
def test_of_an_answer_in_parts_what_is_not_flagged_stays(
    caution: float, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = tiny.aligner(3, window=512)
    lengths = fed_to(aligner, monkeypatch)
    result = correct_alone(aligner, tiny.request(LONG_ANSWER[:1500], caution=caution, verify=verify, deadline_s=600))
    assert max(lengths) <= aligner.info.window
    if verify is Verify.FLAGGED:
        at = 0
        for segment in result.segments:
            if not segment.flagged:
                at = result.text.index(segment.text, at) + len(segment.text)


def test_an_answer_in_parts_that_the_model_copies_comes_back_as_it_was() -> None:
    """So cautious that every token of the draft stands."""
    answer = LONG_ANSWER + " \n"
    for head in (True, False):
        result = correct_alone(tiny.aligner(head=head), tiny.request(answer, caution=1e9, verify=Verify.ALWAYS))
        assert result.text == answer


def test_an_answer_that_nobody_could_read_is_refused() -> None:
    with pytest.raises(AnswerTooLong, match="at most 1000000 are read"):
        correct_alone(tiny.aligner(), tiny.request("a" * 1_000_001))


QUESTIONS = {
    "filler": "Here is a text. The ferry leaves at seven. " * 900,
    "zero width": "\u200b" * 7000,
    "one word": "dog " * 20_000,
    "retrieved": "\n\n".join(f"Document {i}: {text}" for i, text in enumerate(tiny.CORPUS * 200)),
    "line breaks": "\n" * 100_000,
    "letters": "x" * 300_000,
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_no_question_is_too_long(question: str) -> None:
    turns = (Turn("user", question + " When does the harbour open?"),)
    result = correct_alone(tiny.aligner(), tiny.request(caution=1e9).model_copy(update={"turns": turns}))
    assert [s.text for s in result.segments] == [s.text for s in structure.split(tiny.ANSWER)]
    assert all(s.score is not None for s in result.segments)
    assert result.prompt_tokens < 1024


def test_how_the_question_is_cut_does_not_depend_on_the_answer() -> None:
    """Else what was read of an answer that grows would have to be read again, and its verdicts could change."""
    turns = (Turn("user", QUESTIONS["retrieved"]),)
    queries = set[str]()
    for answer in ("", "It opens.", tiny.ANSWER * 4, LONG_ANSWER):
        request = tiny.request(answer).model_copy(update={"turns": turns})
        aligner = tiny.aligner()
        made = make_frame(request, find_template(aligner.info.template), aligner.runner.tokenizer, aligner.info.window)
        queries.add(made.conversation_text)
    assert len(queries) == 1


def test_the_oldest_turns_go_first() -> None:
    asked = tiny.request()
    turns = tuple(
        Turn("user" if i % 2 == 0 else "assistant", f"Turn {i}. " + "The harbour opens. " * 12) for i in range(41)
    )
    long = asked.model_copy(update={"turns": turns})
    result = correct_alone(tiny.aligner(), long)
    assert 400 < result.prompt_tokens < 1024
    made = make_frame(long, find_template("ultrafeedback"), tiny.runner().tokenizer, 1024)
    assert made.conversation_text.count("\n\nHuman:") + made.conversation_text.count("\n\nAssistant: Turn") < 20
    assert "Turn 40." in made.conversation_text
    assert "Turn 2." not in made.conversation_text


def test_a_huge_objective_is_refused() -> None:
    huge = tiny.request().model_copy(update={"objectives": ("Huge: " + "word " * 200_000,)})
    with pytest.raises(AnswerTooLong):
        correct_alone(tiny.aligner(), huge)


def test_a_deadline_ends_a_correction_between_forwards() -> None:
    with pytest.raises(DeadlineExceeded):
        correct_alone(tiny.aligner(), tiny.request(caution=-1e9, deadline_s=1e-9))


def test_what_follows_a_segment_does_not_change_its_score() -> None:
    result = correct_alone(tiny.aligner(), tiny.request(caution=1e9))
    cut = tiny.ANSWER.index(" The first")
    shorter = correct_alone(tiny.aligner(), tiny.request(tiny.ANSWER[:cut], caution=1e9))
    assert len(shorter.segments) == 2 < len(result.segments)
    for a, b in zip(shorter.segments, result.segments, strict=False):
        assert a.score == pytest.approx(b.score, abs=1e-4)


class Decided(DetectorHead):
    """Says that every second segment goes against the second objective, the others against the first."""

    def forward(self, segments: torch.Tensor, objectives: torch.Tensor) -> torch.Tensor:
        assert objectives.shape[0] == 2
        return torch.tensor([[0.0, 1.0] if i % 2 else [3.0, 2.0] for i in range(len(segments))])


def test_a_segment_names_the_objective_that_speaks_most_against_it() -> None:
    runner = ModelRunner(tiny.model(), tiny.runner().tokenizer, Decided(64, (0, 1), 4).eval())
    asked = tiny.request(caution=1e9).model_copy(update={"objectives": (*tiny.OBJECTIVES, "Brevity: be short")})
    made = correct_alone(replace(tiny.aligner(), runner=runner), asked)
    assert [(s.score, s.objective) for s in made.segments] == [(3.0, 0), (1.0, 1), (3.0, 0), (1.0, 1)]


def test_a_whole_answer_that_the_model_leaves_alone_stays_in_disguise() -> None:
    """Verified as a draft, it comes back as it was where the model writes what it read."""
    hidden = "\u200b".join(tiny.ANSWER)
    shown = correct_alone(tiny.aligner(), tiny.request(tiny.ANSWER, verify=Verify.ALWAYS, caution=1e9))
    assert shown.text == tiny.ANSWER
    assert correct_alone(tiny.aligner(), tiny.request(hidden, verify=Verify.ALWAYS, caution=1e9)).text == hidden
