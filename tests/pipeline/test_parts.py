"""Texts without a bound: corrected part by part, whatever the pieces, and never more than one part is waited for."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy.errors import EngineFault
from aligner_proxy.pipeline import part_splitter
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, JsonStrings, Objective, Outcome, Policy, Status, StreamMode, Turn
from tests.support.growing import grown
from tests.support.sampling import examples
from tests.support.scripted import ScriptedEngine, SegmentEngine

FACTS = Exchange("c", 0, (Turn("user", "When?"),), None)
PIECES = [
    "It is so. ",
    "You fool. ",
    "Bring a coat!\n\n",
    "You fool!\n\n\n",
    "- item\n",
    "No end in sight ",
    "X" * 60 + " ",
]


def policy(most: int = 100, stream: StreamMode = StreamMode.SENTENCE) -> Policy:
    return Policy("p", (Objective("kind", "Kind: never insult"),), stream=stream, max_answer_chars=most)


def engine() -> SegmentEngine:
    return SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda text: text.replace("fool", "friend"))


def parted(scripted: ScriptedEngine, rules: Policy, facts: Exchange = FACTS, *, whole: bool = False) -> GrowingAnswer:
    return GrowingAnswer(Pipeline(scripted), rules, lambda: facts, lambda: None, hold_until_end=whole)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=40), st.integers(0, 10**6), st.booleans())
def test_a_long_text_is_corrected_in_parts(pieces: list[str], seed: int, whole: bool) -> None:
    answer = "".join(pieces)
    draw = random.Random(seed)
    edges = sorted(draw.choices(range(len(answer) + 1), k=len(pieces)))
    cut = [answer[a:b] for a, b in itertools.pairwise([0, *edges, len(answer)])]

    async def run() -> tuple[Outcome, GrowingAnswer]:
        made = parted(engine(), policy(), whole=whole)
        return await grown(made, cut), made

    outcome, made = asyncio.run(run())
    kept = outcome.text or ""
    assert kept.split() == answer.replace("fool", "friend").split()
    assert kept == "".join(made.render(a, b) for a, b in itertools.pairwise([0, *edges, len(answer)]))
    assert outcome.status is (Status.CORRECTED if "fool" in answer else Status.UNCHANGED) or not answer.strip()


async def test_no_part_is_longer_than_the_policy_corrects_at_once() -> None:
    asked = engine()
    await grown(parted(asked, policy(100), whole=True), ["It is so. "] * 100)
    assert len(asked.sessions) >= 10
    assert max(len(session._text) for session in asked.sessions) <= 100


async def test_the_next_part_waits_until_the_one_before_is_decided() -> None:
    slow = engine()
    slow.lag_s = 3600.0
    made = parted(slow, policy(100))
    feeding = asyncio.create_task(made.feed("It is so. " * 100))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not feeding.done()
    assert len(slow.sessions) == 1
    feeding.cancel()
    await made.aclose()


@pytest.mark.parametrize("text", ['{"a": "' + "You fool. " * 40, "[" + "1, " * 100])
async def test_json_is_not_taken_apart(text: str) -> None:
    outcome = await grown(parted(engine(), policy()), [text])
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SKIPPED, "too_long", text)


async def test_json_is_one_part_as_long_as_whole_answers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_splitter, "PART_CHARS", 100)
    text = json.dumps({"steps": ["Boil the rice for a quarter of an hour. You fool. Go."] * 9})
    rules = replace(policy(1_000), json_strings=JsonStrings.CORRECT)
    for whole in (False, True):
        outcome = await grown(
            parted(engine(), rules, whole=whole), [text[at : at + 7] for at in range(0, len(text), 7)]
        )
        assert outcome.status is Status.CORRECTED
        assert json.loads(outcome.text or "") == json.loads(text.replace("fool", "friend"))


async def test_half_a_json_text_is_not_judged() -> None:
    made = parted(engine(), policy())
    await made.feed('{"a": "You fool. ')
    made.hasten_part()
    outcome = await grown(made, ['Go."}'])
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SKIPPED, "too_long", '{"a": "You fool. Go."}')


async def test_what_only_begins_like_json_is() -> None:
    outcome = await grown(parted(engine(), policy()), ["[Note] It is so. " + "You fool. Go home. " * 20])
    assert "fool" not in (outcome.text or "")


async def test_a_policy_may_block_what_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_splitter.outcomes, "blocks", lambda outcome: outcome.reason == "too_long")
    monkeypatch.setattr(part_splitter, "PART_CHARS", 40)
    made = parted(engine(), policy())
    await made.feed("It is so. " * 10)
    assert made.stopped is None, "it goes on in parts"
    outcome = await grown(made, ["It is so. " * 10])
    assert made.stopped is not None
    assert (made.stopped.status, made.stopped.reason, outcome.text) == (Status.SKIPPED, "too_long", "It is so. " * 20)


async def test_what_follows_a_failure_goes_out_as_it_came() -> None:
    failing = engine()
    failing.write = lambda _: EngineFault("scripted")
    text = "It is so. " * 12 + "You fool. It is so. " * 20
    outcome = await grown(parted(failing, policy()), [text[at : at + 7] for at in range(0, len(text), 7)])
    assert (outcome.status, outcome.reason, outcome.text) == (Status.FAILED, "engine_error", text)


async def test_a_plugin_around_corrections_gets_whole_parts() -> None:
    """Such a correction cannot be taken apart by segments, but by parts it can."""
    asked = ScriptedEngine(lambda request: request.answer.replace("fool", "friend"))
    outcome = await grown(parted(asked, policy(stream=StreamMode.HOLD), whole=True), ["You fool. It is so. "] * 20)
    assert outcome.text == "You friend. It is so. " * 20
    assert len(asked.seen) > 3


class CountingPattern:
    """A pattern that counts the characters in which it searches."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.searched = 0

    def search(self, text: str, start: int = 0) -> re.Match[str] | None:
        self.searched += len(text) - start
        return self.pattern.search(text, start)

    def match(self, text: str) -> re.Match[str] | None:
        return self.pattern.match(text)


async def test_a_word_that_does_not_end_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searched from its beginning with each piece, one of 120,000 characters would cost a gateway ten seconds."""
    pattern = CountingPattern(part_splitter._WORD_END)
    monkeypatch.setattr(part_splitter, "_WORD_END", pattern)
    text = "x" * 4_000 + ". It is so. "
    outcome = await grown(parted(engine(), policy(1_000)), [text[at : at + 10] for at in range(0, len(text), 10)])
    assert outcome.text == text
    assert pattern.searched < 3 * len(text)


async def test_what_waits_for_the_end_of_a_part_begins_the_next_one() -> None:
    """A stream that has to let go of what it holds ends its part while the last sentence of that waits."""
    made = parted(engine(), policy(100))
    await made.feed("It is so. " * 9)
    made.hasten_part()
    outcome = await grown(made, ["You fool. ", "Bring a coat!"])
    assert outcome.text == "It is so. " * 9 + "You friend. Bring a coat!"


async def test_a_hastened_part_ends_before_the_next_sentence() -> None:
    """Wherever it is hastened, and however the rest of the text comes."""
    text = "It is so. You fool, bring a coat! It stays so.\nIt was so. "
    torn = []
    for at in range(1, len(text)):
        for size in (1, 3, len(text)):
            asked = engine()
            made = parted(asked, policy(1_000))
            await made.feed(text[:at])
            made.hasten_part()
            outcome = await grown(made, [text[start : start + size] for start in range(at, len(text), size)])
            read = [session._text for session in asked.sessions]
            ends = [part.rstrip()[-1:] for part in read]
            if outcome.text != text.replace("fool", "friend") or not set(ends) <= {".", "!"} or len(read) > 2:
                torn.append((at, size, outcome.text, read))
    assert torn == []


async def test_a_hastened_part_ends_behind_a_word_of_a_long_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_splitter, "_HASTE_CHARS", 20)
    asked = engine()
    made = parted(asked, policy(1_000))
    await made.feed("You fo")
    made.hasten_part()
    outcome = await grown(made, list("ol and all of the others who came with you to the sea"))
    assert (outcome.text or "").startswith("You friend and all")
    assert next(session._text for session in asked.sessions) == "You fool "


async def test_an_answer_of_white_space_in_parts_is_empty() -> None:
    outcome = await grown(parted(engine(), policy(40)), ["\n"] * 200)
    assert (outcome.status, outcome.reason) == (Status.SKIPPED, "empty")
