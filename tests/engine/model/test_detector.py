"""Which tokens are which text, what the head reads of them, and that it survives its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aligner_proxy.engine.model.detector import (
    NEUTRAL_QUANTILE,
    QUESTION_CHARS,
    DetectorHead,
    find_spans,
    find_spans_with_words,
)
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.prompts import find_template, render
from aligner_proxy.text.structure import append_end, split
from tests.support import tiny

OBJECTIVES = ("Harmlessness: the response should avoid insults", "Brevity: no more than needed.")


def found(answer: str, family: str = "ultrafeedback") -> tuple[list[str], list[str]]:
    prompt = render(find_template(family), "When?", answer, OBJECTIVES)
    coded = tiny.backend().encode(prompt.text, add_special_tokens=False)
    where = find_spans(prompt, split(answer), coded.offsets)

    def text(tokens: range) -> str:
        return prompt.text[coded.offsets[tokens.start][0] : coded.offsets[tokens[-1]][1]].strip()

    return [text(tokens) for tokens in where.objectives], [text(tokens) for tokens in where.segments]


def test_spans_are_the_texts_of_objectives_and_segments() -> None:
    objectives, segments = found(tiny.ANSWER)
    assert objectives[0].startswith(OBJECTIVES[0])
    assert objectives[1].startswith(OBJECTIVES[1])
    assert segments == [s.text for s in split(tiny.ANSWER)]


def test_the_question_is_the_last_part_of_the_conversation() -> None:
    for question in ("When does the harbour open?", "Why? " * 400 + "When does the harbour open?"):
        prompt = render(find_template("ultrafeedback"), question, tiny.ANSWER, OBJECTIVES)
        coded = tiny.backend().encode(prompt.text, add_special_tokens=False)
        where = find_spans(prompt, split(tiny.ANSWER), coded.offsets)
        assert where.question
        text = prompt.text[coded.offsets[where.question.start][0] : coded.offsets[where.question[-1]][1]]
        # whole tokens, the first of which may begin a little earlier
        assert text.strip().endswith(question[-QUESTION_CHARS:].strip())
        assert len(text) < QUESTION_CHARS + 20
    prompt = render(find_template("ultrafeedback"), "", tiny.ANSWER, OBJECTIVES)
    coded = tiny.backend().encode(prompt.text, add_special_tokens=False)
    assert find_spans(prompt, split(tiny.ANSWER), coded.offsets).question is None


def test_words_of_cells_and_clauses_are_judged_beside_their_segment() -> None:
    answer = "Rows:\n\n| Two | You are a fool | 10 |\n\nThe end."
    prompt = render(find_template("ultrafeedback"), "When?", answer, OBJECTIVES)
    coded = tiny.backend().encode(prompt.text, add_special_tokens=False)
    where = find_spans_with_words(prompt, split(answer), coded.offsets)
    assert [len(ranges) for ranges in where.inner_words] == [0, 1, 0]
    [tokens] = where.inner_words[1]
    text = prompt.text[coded.offsets[tokens.start][0] : coded.offsets[tokens[-1]][1]]
    assert text.strip() == "You are a fool"
    assert find_spans_with_words(prompt, split(answer)[:1], coded.offsets).inner_words == ()


def test_a_segment_scores_no_less_than_its_inner_words_and_others_as_before() -> None:
    torch.manual_seed(3)
    head = DetectorHead(8, (0, 1), 4).eval()
    states = torch.randn(30, 3, 8)
    segments = (range(3, 9), range(9, 20), range(20, 25))
    inner = ((), (range(10, 12), range(12, 15), range(10, 15)), ())
    whole = head.judge(states, Spans((range(3),), segments))
    words = head.judge(states, Spans((range(3),), inner[1]))
    raised = head.judge(states, Spans((range(3),), segments, inner_words=inner))
    assert torch.allclose(raised[::2], whole[::2])
    assert torch.allclose(raised[1], torch.maximum(whole[1], words.amax(dim=0)))
    behind = head.judge(states, Spans((range(3),), segments, has_end=True, inner_words=inner[:2]))
    assert torch.allclose(behind[:2], raised[:2])
    assert torch.allclose(behind[2], whole[2])


def test_white_space_and_marks_between_segments_belong_to_none() -> None:
    _, segments = found("Steps:\n\n1. Boil.\n2. Wait.\n\n\n```\ncode\n```\nDone.")
    assert [s.split()[0] for s in segments] == ["Steps:", "1.", "2.", "```", "Done."]


def test_a_template_without_objectives_has_none_to_compare() -> None:
    assert found(tiny.ANSWER, "aligner")[0] == []


def test_a_segment_is_read_as_means_and_its_last_state() -> None:
    states = torch.randn(6, 3, 8)
    segments, objectives = DetectorHead.read(states, Spans((range(0, 2),), (range(2, 3), range(3, 6))))
    assert segments.shape == (2, 24)
    assert objectives.shape == (1, 16)
    mean = torch.nn.functional.layer_norm(states[3:6, 0].mean(0), (8,))
    torch.testing.assert_close(segments[1, :8], mean)
    torch.testing.assert_close(segments[1, 16:], torch.nn.functional.layer_norm(states[5, 2], (8,)))


def test_an_objective_is_scored_whatever_stands_beside_it() -> None:
    head = DetectorHead(8, (0, 1), 4)
    segments = torch.randn(3, 24)
    objectives = torch.randn(2, 16)
    both = head(segments, objectives)
    torch.testing.assert_close(both[:, :1], head(segments, objectives[:1]))


@pytest.mark.parametrize("has_neutral", [False, True])
def test_pairs_have_the_scores_that_they_have_among_all(has_neutral: bool) -> None:
    torch.manual_seed(4)
    head = DetectorHead(16, (0, 1), 6).eval()
    if has_neutral:
        head.neutral = torch.randn(5, 12)
        head.floor.fill_(-9.0)
    segments = torch.randn(7, head.segment.in_features)
    objectives = torch.randn(3, head.objective.in_features)
    is_pair = torch.rand(7, 3) < 0.5
    torch.testing.assert_close(
        head.score_pairs(segments, objectives, is_pair), head(segments, objectives)[is_pair], rtol=1e-4, atol=1e-5
    )


def test_a_saved_head_is_the_same_head(tmp_path: Path) -> None:
    head = DetectorHead.create_for_model(tiny.model().config)
    head.save(tmp_path / "detector.safetensors")
    again = DetectorHead.load(tmp_path / "detector.safetensors")
    segments = torch.randn(3, head.segment.in_features)
    objectives = torch.randn(2, head.objective.in_features)
    assert torch.equal(head(segments, objectives), again(segments, objectives))
    assert again.layers.tolist() == head.layers.tolist()


def test_taps_are_the_states_that_transformers_calls_hidden_states() -> None:
    model = tiny.model().model
    ids = torch.tensor([[5, 6, 7, 8]])
    reference = model(ids, output_hidden_states=True).hidden_states
    taps = DetectorHead(64, (0,), 4).taps(model)
    states = taps.take(model(ids).last_hidden_state)
    torch.testing.assert_close(states[:, :, 0], reference[1])
    torch.testing.assert_close(states[:, :, 1], reference[2])


def test_an_objective_that_is_loud_against_anything_is_turned_down() -> None:
    head = DetectorHead(8, (0, 1), 4)
    segments = torch.randn(3, 24)
    objectives = torch.randn(2, 16)
    neutral = torch.randn(40, 24)
    head.floor.fill_(-2.0)
    plain = head(segments, objectives)
    loud = head(neutral, objectives).quantile(NEUTRAL_QUANTILE, dim=0)
    head.store_neutral(neutral)
    torch.testing.assert_close(head(segments, objectives), plain - (loud + 2.0))
    assert head(neutral, objectives).quantile(NEUTRAL_QUANTILE, dim=0).tolist() == pytest.approx([-2.0, -2.0], abs=1e-5)


def test_a_quiet_objective_stays_as_it_is() -> None:
    head = DetectorHead(8, (0, 1), 4)
    segments = torch.randn(3, 24)
    objectives = torch.randn(2, 16)
    plain = head(segments, objectives)
    head.store_neutral(torch.randn(40, 24))
    head.floor.fill_(100.0)
    assert torch.equal(head(segments, objectives), plain)


def test_a_head_that_knows_neutral_segments_is_saved_with_them(tmp_path: Path) -> None:
    head = DetectorHead(8, (0, 1), 4)
    head.store_neutral(torch.randn(40, 24))
    head.save(tmp_path / "detector.safetensors")
    again = DetectorHead.load(tmp_path / "detector.safetensors")
    segments = torch.randn(3, 24)
    objectives = torch.randn(2, 16)
    assert torch.equal(head(segments, objectives), again(segments, objectives))


def test_a_head_from_before_there_were_neutral_segments_is_read(tmp_path: Path) -> None:
    head = DetectorHead(8, (0, 1), 4)
    state = {name: tensor for name, tensor in head.state_dict().items() if name not in ("neutral", "floor")}
    save_file(state, str(tmp_path / "detector.safetensors"))
    again = DetectorHead.load(tmp_path / "detector.safetensors")
    segments = torch.randn(3, 24)
    objectives = torch.randn(2, 16)
    assert torch.equal(head(segments, objectives), again(segments, objectives))


def test_the_place_behind_the_last_segment_is_what_the_prompt_says_after_the_answer() -> None:
    prompt = render(find_template("ultrafeedback"), "Why?", "It is so. Yes.", ["Brevity: be short"])
    offsets = [(i, i + 1) for i in range(len(prompt.text))]
    where = find_spans(prompt, append_end(split("It is so. Yes.")), offsets)
    texts = ["".join(prompt.text[i] for i in tokens) for tokens in where.segments]
    assert texts == ["It is so.", "Yes.", "Yes. | Edit: "]


def test_a_head_says_whether_it_judges_that_place(tmp_path: Path) -> None:
    head = DetectorHead(8, (0, 1), 4)
    assert not head.ends
    head.ends.fill_(True)
    head.save(tmp_path / "head.safetensors")
    assert DetectorHead.load(tmp_path / "head.safetensors").ends


def test_that_place_has_an_operating_point_of_its_own(tmp_path: Path) -> None:
    head = DetectorHead(8, (0, 1), 4)
    states = torch.randn(6, 3, 8)
    where = Spans((range(0, 2),), (range(2, 4), range(2, 6)), has_end=True)
    before = head.judge(states, where)
    head.calibrate(1.0, 2.0, end_shift=3.0)
    head.save(tmp_path / "head.safetensors")
    after = DetectorHead.load(tmp_path / "head.safetensors").judge(states, where)
    torch.testing.assert_close(after[0], (before[0] + 1.0) / 2)
    torch.testing.assert_close(after[1], (before[1] + 4.0) / 2)
    inside = Spans(where.objectives, where.segments)
    torch.testing.assert_close(head.judge(states, inside), head(*head.read(states, inside)))
