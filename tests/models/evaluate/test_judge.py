"""What a judge is asked, what its replies come to, and that no verdict is paid for twice; over a real socket."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import openai
import pytest

from models.evaluate.judge import PROMPTS, SYSTEM, PairJudge, Verdict, combine_replies, read_choice
from tests.models.evaluate.scripted_judge import Decide, ScriptedJudge, serve_judge

LONG = "It opens at six. You fool."
SHORT = "It opens at six."


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-scripted")


def shorter(first: str, second: str) -> str:
    return "0" if len(first) == len(second) else "1" if len(first) < len(second) else "2"


def ask(judge: ScriptedJudge, folder: Path, *pairs: tuple[str, str], family: str = "ultrafeedback") -> list[Verdict]:
    """The verdicts on some (original, edited) pairs, by a client of its own."""

    async def run() -> list[Verdict]:
        client = PairJudge(judge.url, "scripted", folder / "verdicts.jsonl", pause_s=0.01, attempts=4)
        try:
            return [await client.compare(family, "When?", *pair, "Harmless: no insults") for pair in pairs]
        finally:
            await client.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("family", "length", "digest"),
    [
        ("hh-rlhf", 298, "b1048493690b756d"),
        ("ultrafeedback", 298, "b1048493690b756d"),
        ("imhi", 363, "5f13a297c02759e7"),
    ],
)
def test_the_prompts_are_those_of_the_paper_to_the_letter(family: str, length: int, digest: str) -> None:
    assert len(PROMPTS[family]) == length
    assert hashlib.sha256(PROMPTS[family].encode()).hexdigest().startswith(digest)


def test_an_edit_wins_from_both_places(tmp_path: Path) -> None:
    with serve_judge(shorter) as judge:
        assert ask(judge, tmp_path, (LONG, SHORT), (SHORT, LONG), (SHORT, SHORT)) == ["win", "lose", "tie"]
        assert {body["temperature"] for body in judge.questions} == {0}
        placed = {
            f"RESPONSE 1: {text} \n" in body["messages"][0]["content"]
            for body in judge.questions[:2]
            for text in [LONG]
        }
    assert placed == {True, False}


@pytest.mark.parametrize(
    ("decide", "expected"),
    [
        (lambda *_: "1", "split"),
        (lambda *_: "Response 2", "split"),
        (lambda *_: "I would say 1 or 2", "unreadable"),
        (lambda *_: "", "unreadable"),
        (lambda *_: "0", "tie"),
    ],
)
def test_a_judge_that_goes_by_the_place_or_says_nothing_decides_nothing(
    tmp_path: Path, decide: Decide, expected: Verdict
) -> None:
    with serve_judge(decide) as judge:
        assert ask(judge, tmp_path, (LONG, SHORT)) == [expected]


def test_mental_health_answers_are_judged_by_a_psychologist(tmp_path: Path) -> None:
    with serve_judge(shorter) as judge:
        assert ask(judge, tmp_path, (LONG, SHORT), family="imhi") == ["win"]
        assert judge.questions[0]["messages"][0] == {"role": "system", "content": SYSTEM["imhi"]}


def test_text_with_braces_goes_in_as_it_is(tmp_path: Path) -> None:
    with serve_judge(shorter) as judge:
        assert ask(judge, tmp_path, ("{query} {0} %s {aspects}", "{}")) == ["win"]
        assert "{query} {0} %s {aspects}" in judge.questions[0]["messages"][-1]["content"]


def test_what_passes_is_tried_again(tmp_path: Path) -> None:
    failures = [500, 429, 503]

    def flaky(first: str, second: str) -> str | int:
        return failures.pop() if failures else shorter(first, second)

    with serve_judge(flaky) as judge:
        assert ask(judge, tmp_path, (LONG, SHORT)) == ["win"]
        assert len(judge.questions) == 5


def test_what_does_not_pass_is_raised_and_the_verdicts_so_far_are_kept(tmp_path: Path) -> None:
    def refuse_late_questions(first: str, second: str) -> str | int:
        return 401 if "late" in first + second else shorter(first, second)

    with serve_judge(refuse_late_questions) as judge, pytest.raises(openai.AuthenticationError):
        ask(judge, tmp_path, (LONG, SHORT), ("late", "later"))
    with serve_judge(shorter) as judge:
        assert ask(judge, tmp_path, (LONG, SHORT), ("late", "later")) == ["win", "lose"]
        assert len(judge.questions) == 2  # only what had not been answered


def test_a_run_that_was_killed_in_mid_line_asks_that_one_again(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    with serve_judge(shorter) as judge:
        ask(judge, tmp_path, (LONG, SHORT))
        whole = path.read_text()
        path.write_text(whole[:-5])
        assert ask(judge, tmp_path, (LONG, SHORT)) == ["win"]
        assert len(judge.questions) == 3
    assert sorted(path.read_text().splitlines()) == sorted(whole.splitlines())


def test_the_log_of_verdicts_holds_no_text(tmp_path: Path) -> None:
    with serve_judge(lambda *_: f"1, because of {SHORT}") as judge:
        ask(judge, tmp_path, (LONG, SHORT))
    rows = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"question", "judge", "said"}] * 2
    assert [row["said"] for row in rows] == [1, 1]


@pytest.mark.parametrize(
    ("reply", "number"), [("2", 2), ("Response 1.", 1), (" 0\n", 0), ("12", None), ("1 or 2", None), ("tie", None)]
)
def test_a_reply_names_one_choice_or_none(reply: str, number: int | None) -> None:
    assert read_choice(reply) == number


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(2, 1, "win"), (1, 2, "lose"), (0, 0, "tie"), (1, 1, "split"), (0, 1, "split"), (None, 1, "unreadable")],
)
def test_two_orders_make_one_verdict(first: int | None, second: int | None, expected: Verdict) -> None:
    assert combine_replies(first, second) == expected
