"""Answers that a program reads are left alone where the policy says so: whole, held, and released by segments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.part_splitter import PART_CHARS
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text.pairs import read_halves
from aligner_proxy.text.structure import split
from aligner_proxy.types import (
    Exchange,
    Objective,
    OnSkip,
    Outcome,
    Policy,
    SkipPolicy,
    SkipReason,
    Status,
    StreamMode,
    Turn,
)
from tests.support.growing import grown
from tests.support.scripted import SegmentEngine
from tests.text.programs import CALLS, DATA, PROSE

LEFT = Policy(
    "p",
    (Objective("kind", "Kind: never insult"),),
    stream=StreamMode.SENTENCE,
    on_skip=SkipPolicy(tool_calls=OnSkip.PASSTHROUGH),
)
JUDGED = replace(LEFT, on_skip=SkipPolicy(tool_calls=OnSkip.JUDGE, structured_output=OnSkip.JUDGE))
BLOCKED = replace(LEFT, on_skip=SkipPolicy(tool_calls=OnSkip.BLOCK, structured_output=OnSkip.BLOCK))
ASKED = Exchange("call-1", 0, (Turn("user", "When does it open?"),), None)
FOOL = "You fool."
Way = Callable[[str, Policy], Outcome]


def engine() -> SegmentEngine:
    return SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0)


def whole(answer: str, policy: Policy = LEFT) -> Outcome:
    return asyncio.run(Pipeline(engine()).align(replace(ASKED, answer=answer), policy))


def grow(answer: str, policy: Policy, *, size: int, held: bool) -> Outcome:
    async def run() -> Outcome:
        growing = GrowingAnswer(Pipeline(engine()), policy, lambda: ASKED, lambda: None, hold_until_end=held)
        return await grown(growing, [answer[at : at + size] for at in range(0, len(answer), size)])

    return asyncio.run(run())


def held(answer: str, policy: Policy = LEFT) -> Outcome:
    return grow(answer, policy, size=11, held=True)


def release_answer(answer: str, policy: Policy = LEFT) -> Outcome:
    return grow(answer, policy, size=5, held=False)


WAYS = pytest.mark.parametrize("way", [whole, held, release_answer])


def rude(call: str) -> str:
    """The call with an insult behind it, as an argument would bring one."""
    return f"{call}\n{FOOL} It goes on."


@WAYS
def test_from_where_a_call_begins_nothing_is_edited(way: Way) -> None:
    got = {name: way(rude(call), LEFT) for name, call in CALLS.items()}
    assert [name for name, outcome in got.items() if outcome.text != rude(CALLS[name])] == []
    assert [name for name, outcome in got.items() if outcome.reason != "tool_calls"] == []
    assert {outcome.status for outcome in got.values()} == {Status.SKIPPED}


@WAYS
def test_prose_that_looks_like_calls_is_edited(way: Way) -> None:
    wrong = {}
    for name, prose in PROSE.items():
        outcome = way(f"{prose}\n\n{FOOL}\n\nBring a coat.", LEFT)
        if (outcome.text or "").rstrip() != f"{prose}\n\nBring a coat.":
            wrong[name] = (outcome.reason, outcome.text)
    assert wrong == {}


@WAYS
def test_data_are_structured_output(way: Way) -> None:
    got = {name: way(data, LEFT) for name, data in DATA.items()}
    assert [name for name, outcome in got.items() if outcome.reason != "structured_output"] == []
    assert [name for name, outcome in got.items() if outcome.text != DATA[name]] == []


@WAYS
@pytest.mark.parametrize("policy", [JUDGED, replace(JUDGED, stream=StreamMode.HOLD)])
def test_where_the_policy_judges_them_calls_are_edited_and_stay_balanced(way: Way, policy: Policy) -> None:
    texts = {name: (call, way(f"{call}\n\n{FOOL}\n\nBring a coat.", policy).text or "") for name, call in CALLS.items()}
    assert [name for name, (call, text) in texts.items() if text.rstrip() != f"{call}\n\nBring a coat."] == []
    inside = "<write_to_file>\n<path>a.py</path>\n<content>You fool. It opens.\n</content>\n</write_to_file>"
    text = way(inside, policy).text or ""
    assert text == inside.replace("You fool. ", "")
    assert [half for half in read_halves(text, split(text)) if half.partner is None] == []


def test_what_a_stream_released_before_the_call_stays_edited() -> None:
    call = "<write_to_file>\n<path>a.py</path>\n<content>\nYou fool. It goes on.\n</content>\n</write_to_file>"
    answer = f"You fool. I write it now. It is short.\n\n{call}\n\nYou fool. Done."
    outcome = release_answer(answer)
    assert outcome.text == answer.removeprefix("You fool. ")
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, "tool_calls")
    assert whole(answer).text == held(answer).text == answer


def test_a_call_in_one_line_is_known_before_its_line_ends() -> None:
    answer = (
        'So.\n<tool_call>{"name": "send", "arguments": {"text": "You fool. Come at nine. You fool. Bye."}}</tool_call>'
    )
    assert release_answer(answer).text == answer
    assert release_answer(answer.removeprefix("So.\n")).text == answer.removeprefix("So.\n")


def test_a_call_goes_on_in_the_next_part_of_a_long_answer() -> None:
    line = "The boats rise with the tide, and they fall with it too.\n"
    long = line * (PART_CHARS // len(line) + 20)
    answer = f"<write_to_file>\n<path>a.txt</path>\n<content>\n{long}{FOOL} It goes on.\n</content>\n</write_to_file>"
    for outcome in (grow(answer, LEFT, size=2_000, held=way) for way in (False, True)):
        assert outcome.text == answer
        assert outcome.reason == "tool_calls"
    assert FOOL not in (grow(long + FOOL + "\nBye.", LEFT, size=2_000, held=False).text or "")


def test_long_data_stay_one_text() -> None:
    answer = "id,text,by\n" + f'1,"{FOOL} It opens.",Ada\n' * (PART_CHARS // 20)
    for outcome in (grow(answer, LEFT, size=2_000, held=way) for way in (False, True)):
        assert outcome.text == answer
        assert outcome.reason == "structured_output"


@WAYS
def test_answers_with_a_call_are_blocked_where_the_policy_says_so(way: Way) -> None:
    outcome = way(rude(CALLS["cline"]), BLOCKED)
    assert outcome.reason == "tool_calls"
    assert way(DATA["commas"], BLOCKED).reason == "structured_output"
    assert whole(rude(CALLS["cline"]), BLOCKED).status is Status.FAILED


def test_a_released_stream_stops_where_the_call_begins_so_that_it_can_be_blocked() -> None:
    async def run() -> tuple[Outcome | None, str]:
        growing = GrowingAnswer(Pipeline(engine()), BLOCKED, lambda: ASKED, lambda: None)
        for piece in ("I write it now. ", "It is short.\n\n", "<read_file>\n<path>a.py", "</path>\n", "</read_file>"):
            await growing.feed(piece)
            for _ in range(20):
                await asyncio.sleep(0)
        stopped = growing.stopped
        await growing.aclose()
        return stopped, growing.render(0, 15)

    stopped, before = asyncio.run(run())
    assert stopped is not None
    assert stopped.reason == SkipReason.TOOL_CALLS
    assert before == "I write it now."


def test_by_default_answers_with_calls_are_judged() -> None:
    assert FOOL not in (whole(rude(CALLS["cline"]), replace(LEFT, on_skip=SkipPolicy())).text or "")
