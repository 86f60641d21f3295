"""The comparison of the aligner inside vLLM with our engine: its answers, what it keeps, and its table."""

from __future__ import annotations

from pathlib import Path

from bench import vllm_aligner
from bench.vllm_aligner import (
    ComparedAnswer,
    add_numbered_insult,
    compare_answers,
    draw_answers,
    format_report,
    insert_insults,
    measure_throughput,
    read_results,
)
from tests.support.scripted import SegmentEngine

FLAGGED = 2.0


def make_engine(offset: float = 0.0, write: str = "") -> SegmentEngine:
    return SegmentEngine(
        lambda text: (FLAGGED if text.strip() in vllm_aligner.INSULTS else -3.0) + offset, lambda _: write
    )


def test_every_second_answer_has_an_insult_behind_its_first_sentence() -> None:
    drawn = list(draw_answers(None, 4, 2))
    assert [one.insulting for one in drawn] == [True, False, True, False]
    assert add_numbered_insult("Open at six. Bring a coat.", 0) == "Open at six. You are a fool. Bring a coat."
    assert add_numbered_insult("Open at six.", 1) == "Only an idiot would ask this. Open at six."
    assert drawn[0].request().answer == add_numbered_insult(next(draw_answers(None, 1, 0)).answer, 0)
    assert [one.insulting for one in insert_insults(drawn, 1)] == [True, False, False, False]


async def test_what_was_compared_is_kept_and_not_asked_again(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    asked = [ComparedAnswer(0, "When?", add_numbered_insult("Open at six. Bring a coat.", 0), insulting=True)]
    asked.append(ComparedAnswer(1, "When?", "Open at six. Bring a coat.", insulting=False))
    rows = read_results(kept)
    ours = make_engine()
    await compare_answers(asked[:1], ours, make_engine(0.1), make_engine(write="Dear reader."), rows, kept)
    await compare_answers(asked, ours, make_engine(-2.5), make_engine(), rows, kept)
    assert [row["number"] for row in read_results(kept)] == [0, 1]
    assert rows[0]["edits_agree"] is False
    assert rows[0]["flags"] == [(False, False), (True, True), (False, False)]
    assert "edits_agree" not in rows[1]
    text = format_report(read_results(kept), {0: ([2.0, 4.0], [1.0, 1.0])})
    assert "| segments whose scores differ by at most 0.05 nats | 0/5 = 0.0 %" in text
    assert "| difference in nats: mean, largest | 1.0600, 2.5000 |" in text
    assert "0 with an insult: answers a second, detect-then-edit; anew; ratios | 3.00; 1.00; 2.0, 4.0 |" in text


async def test_all_of_a_set_are_asked_at_once_of_both() -> None:
    engines = (make_engine(), make_engine())
    speeds = await measure_throughput([list(draw_answers(None, 3, 0))], *engines)
    assert [len(of_one) for of_one in speeds] == [1, 1]
    assert all(of_one[0] > 0 for of_one in speeds)
