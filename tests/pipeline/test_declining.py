"""Answers of which nothing would remain: declined, blocked or delivered, whole and in streams."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.engine.api import AlignerInfo
from aligner_proxy.errors import EngineUnavailable
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.pipeline.stages.refusal_text import has_near_harm, nothing_remains
from aligner_proxy.text.structure import join, split
from aligner_proxy.types import (
    AskAbout,
    Exchange,
    IfNothingRemains,
    Judge,
    JudgeKind,
    Mode,
    Objective,
    Outcome,
    Policy,
    SegmentScore,
    Status,
    StreamMode,
    Turn,
)
from tests.support.growing import grown
from tests.support.pruning import correct_in_all_ways
from tests.support.scripted import SCRIPTED, SegmentEngine

POLICY = Policy(
    "p",
    (Objective("kind", "Kind: no insults"),),
    if_nothing_remains=IfNothingRemains.DECLINE,
    decline=(("", "We do not answer like that ({objective})."), ("de", "So antworten wir nicht.")),
)
ASKED = Exchange("c", 0, (Turn("user", "How do I do this?"),), None)
ALL = "You are a fool. Get lost, fool."
FRAGMENTS = "You are a fool. Then let it dry."
SOME = "You are a fool. Paint the fence with a brush. Then let it dry."
NOTHING_FLAGGED = "Then let it dry."


def engine(write: str = "") -> SegmentEngine:
    return SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda _: write)


REFUSAL = "[Aide]: I'm sorry, but I can't help with breaking into a car."
VILLAIN = "[Villain]: Ha, what a fool you are."
HOW = "Take a long wire and bend the end."


@pytest.mark.parametrize(
    ("answer", "nothing"),
    [
        (f"{REFUSAL}\n\n{VILLAIN} {HOW}", True),
        (f"{VILLAIN} {HOW}\n\n{REFUSAL}", True),
        (f"Aide: I cannot help with that.\n\n**Villain:** What a fool. {HOW}", True),
        (f"{REFUSAL} You fool.\n\n[Villain]: {HOW}", False),
        (f"{REFUSAL[8:]} You fool. {HOW}", False),
        (f"[Aide \N{ROBOT FACE}]: {REFUSAL[8:]}\n\n[Villain \N{BOMB}]: Ha, what a fool. {HOW}", True),
        (f"[Aide]: {HOW}\n\n{VILLAIN} {HOW}", False),
        (f"{REFUSAL}\n\n[Villain]: {HOW}", False),
    ],
)
def test_of_an_answer_that_one_voice_declines_and_another_is_flagged_nothing_remains(
    answer: str, nothing: bool
) -> None:
    segments = [SegmentScore(piece.text, None, "fool" in piece.text) for piece in split(answer)]
    delivered = join([("" if "fool" in piece.text else piece.text, piece.gap) for piece in split(answer)])
    assert nothing_remains(segments, delivered) is nothing


async def whole(answer: str, policy: Policy = POLICY, write: str = "", asked: str = "How do I do this?") -> Outcome:
    exchange = replace(ASKED, answer=answer, turns=(Turn("user", asked),))
    return await Pipeline(engine(write)).align(exchange, policy)


@pytest.mark.parametrize("answer", [ALL, FRAGMENTS, f"Sure, here you go:\n\n1. {ALL}\n\nGood luck!"])
async def test_the_text_stands_in_place_of_what_does_not_stand_alone(answer: str) -> None:
    outcome = await whole(answer)
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, "declined")
    assert outcome.text == outcome.edited == "We do not answer like that (kind)."
    assert outcome.flagged_count > 0


@pytest.mark.parametrize(
    ("answer", "text"), [(SOME, "Paint the fence with a brush. Then let it dry."), (NOTHING_FLAGGED, NOTHING_FLAGGED)]
)
async def test_what_stands_alone_is_delivered(answer: str, text: str) -> None:
    assert (await whole(answer)).text == text


async def test_what_was_written_in_its_place_is_delivered() -> None:
    outcome = await whole(ALL, write="Please paint the fence with a brush.")
    assert (outcome.text, outcome.reason) == ("Please paint the fence with a brush.", None)


async def test_the_language_is_that_of_the_question() -> None:
    german = "Wie kann ich den Zaun streichen und was ist dabei nicht zu tun?"
    assert (await whole(ALL, asked=german)).text == "So antworten wir nicht."
    assert (await whole(ALL, replace(POLICY, decline=()), asked=german)).text.startswith("Es tut mir leid")  # type: ignore[union-attr]
    assert (await whole(ALL, replace(POLICY, decline=()))).text == "I'm sorry, but I can't answer this here."


async def test_it_may_be_blocked() -> None:
    outcome = await whole(ALL, replace(POLICY, if_nothing_remains=IfNothingRemains.BLOCK))
    assert (outcome.status, outcome.reason) == (Status.FAILED, "nothing_remains")
    assert outcomes.blocks(outcome)


async def test_it_may_be_delivered() -> None:
    policy = replace(POLICY, if_nothing_remains=IfNothingRemains.ORIGINAL)
    outcome = await whole(ALL, policy)
    assert (outcome.text, outcome.reason) == (ALL, "gate_empty")
    assert (await whole(FRAGMENTS, policy)).text == "Then let it dry."


async def test_shadow_delivers_the_original_and_says_what_it_would_do() -> None:
    outcome = await whole(ALL, replace(POLICY, mode=Mode.SHADOW))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SHADOW, "would_decline", ALL)
    assert outcome.edited == "We do not answer like that (kind)."
    blocked = await whole(ALL, replace(POLICY, mode=Mode.SHADOW, if_nothing_remains=IfNothingRemains.BLOCK))
    assert (blocked.reason, outcomes.blocks(blocked)) == ("would_block:nothing_remains", False)


@pytest.mark.parametrize(
    ("question", "answer", "text"),
    [
        ("How do I clean suede shoes?", "Wipe them with a dry brush. You are a fool.", "Wipe them with a dry brush."),
        ("How do I clean suede shoes?", "You are a fool. Wipe them with a dry brush.", "Wipe them with a dry brush."),
        ("Is the pool heated?", "No. You are a fool.", "No."),
        ("Who wrote Emma?", "Jane Austen. You are a fool.", "Jane Austen."),
        ("How do I fix the hinge?", "Grease the fool. Then turn it.", None),
        ("How do I fix the hinge?", "Grease the fool. Turn it twice.", None),
        ("How do I fix the hinge?", "Sure! You are a fool.", None),
        ("How do I fix the hinge?", "Yes. You are a fool.", None),
    ],
)
async def test_what_answers_the_question_is_delivered(question: str, answer: str, text: str | None) -> None:
    outcome = await whole(answer, asked=question)
    assert outcome.text == (text or "We do not answer like that (kind).")
    exchange = replace(ASKED, turns=(Turn("user", question),))
    growing = GrowingAnswer(
        Pipeline(engine()),
        replace(POLICY, stream=StreamMode.SENTENCE),
        lambda: exchange,
        lambda: None,
        hold_until_end=True,
    )
    assert (await grown(growing, answer)).text == outcome.text


@pytest.mark.parametrize(
    ("question", "answer", "score", "declined"),
    [
        ("When does it open?", "It opens at nine. You are a fool.", -4.5, False),
        ("When does it open?", "It opens at nine. You are a fool.", -3.5, True),
        ("Who wrote Emma?", "Jane Austen. Any fool knows that.", -4.5, False),
        ("Is it safe?", "Yes. You are a fool.", -9.0, True),
        ("Is it safe?", "It is. Hit the fool until he cries.", -9.0, True),
        ("Is it safe?", "The boat is safe at sea. Hit the fool until he cries.", -9.0, False),
    ],
    ids=["clear", "not-clear", "name", "bare-yes", "beside-other-harm", "stands-alone"],
)
async def test_beside_harm_a_fragment_is_an_answer_only_if_it_is_clear_and_only_the_reader_was_insulted(
    question: str, answer: str, score: float, declined: bool
) -> None:
    made = SegmentEngine(lambda text: 2.0 if "fool" in text else score, lambda _: "")
    policy = replace(POLICY, objectives=(Objective("harmless", "Harmless: no harm"),), decline_within=0.0)
    exchange = replace(ASKED, answer=answer, turns=(Turn("user", question),))
    assert ((await Pipeline(made).align(exchange, policy)).reason == "declined") is declined


async def test_near_harm_counts_a_bare_name_only_where_nothing_else_is_left() -> None:
    policy = replace(POLICY, objectives=(Objective("harmless", "Harmless: no harm"),))
    flagged = SegmentScore("You are a fool.", 2.0, True, 0)
    name = SegmentScore("Jane Austen.", -1.0, False)
    assert has_near_harm([name, flagged], policy, 0.0)
    assert not has_near_harm([name, flagged, SegmentScore("The boat is safe at sea.", -9.0, False)], policy, 0.0)


async def test_json_is_never_replaced_by_a_text() -> None:
    answer = '{"text": "You are a fool and nothing else than that."}'
    assert (await whole(answer)).text == answer


async def streamed(answer: str, policy: Policy = POLICY, *, held: bool = False) -> Outcome:
    policy = replace(policy, stream=StreamMode.SENTENCE)
    made = GrowingAnswer(Pipeline(engine()), policy, lambda: ASKED, lambda: None, hold_until_end=held)
    return await grown(made, answer)


@pytest.mark.parametrize("held", [False, True])
async def test_a_stream_of_which_nothing_has_gone_out_is_declined(held: bool) -> None:
    outcome = await streamed(ALL, held=held)
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, "declined")
    assert outcome.text == "We do not answer like that (kind)."


async def test_behind_fragments_that_have_gone_out_the_text_follows() -> None:
    outcome = await streamed("Of course! You are a fool. Then let it dry.")
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, "declined")
    assert outcome.text == "Of course!\n\nWe do not answer like that (kind)."


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("answer", [ALL, FRAGMENTS])
async def test_behind_a_refusal_nothing_goes_out_of_an_upstream_that_goes_on_after_its_end(
    answer: str, held: bool
) -> None:
    policy = replace(POLICY, stream=StreamMode.SENTENCE)
    growing = GrowingAnswer(Pipeline(engine()), policy, lambda: ASKED, lambda: None, hold_until_end=held)
    before = (await grown(growing, (answer,))).text
    await growing.feed(" You are an idiot.")
    await growing.end()
    assert (growing.render(0, growing.length), growing.is_decided(growing.length)) == (before, True)
    assert (growing.outcome().text, growing.outcome().reason) == (before, "declined")


async def test_a_stream_may_be_blocked() -> None:
    policy = replace(POLICY, if_nothing_remains=IfNothingRemains.BLOCK)
    for answer in (ALL, "Of course! You are a fool. Then let it dry."):
        outcome = await streamed(answer, policy)
        assert (outcome.status, outcome.reason) == (Status.FAILED, "nothing_remains")


async def test_a_stream_of_which_something_stands_goes_on() -> None:
    outcome = await streamed(SOME)
    assert (outcome.text, outcome.reason) == ("Paint the fence with a brush. Then let it dry.", None)


@pytest.mark.parametrize(
    ("name", "caution", "score", "text", "declined"),
    [
        ("harmless", 0.0, -1.5, HOW, True),
        ("harmless", 0.0, -2.5, HOW, False),
        ("harmless", 1.0, -1.5, HOW, False),
        ("kind", 0.0, -0.5, HOW, False),
        ("harmless", 0.0, -0.5, "Then let it dry.", True),
        ("harmless", 0.0, -0.5, "How to:", False),
        ("harmless", 0.0, -0.5, "\u7136\u540e\u8ba9\u5b83\u5e72\u71e5\u3002", True),
        ("harmless", 0.0, -0.5, "Twice 40 grams.", True),
        ("harmless", 0.0, -0.5, "40 grams, 7.", True),
    ],
    ids=[
        "near",
        "far",
        "another threshold",
        "another objective",
        "a fragment",
        "a label",
        "a script without spaces",
        "a quantity",
        "mostly numbers",
    ],
)
async def test_beside_harm_what_came_close_to_being_flagged_does_not_remain(
    name: str, caution: float, score: float, text: str, declined: bool
) -> None:
    scores = {"You are a fool.": 3.0, text: score}
    policy = replace(POLICY, objectives=(Objective(name, "Harmless: no harm"),), caution=caution)
    rest = "Paint the fence with a brush."
    made = SegmentEngine(lambda segment: scores.get(segment.strip(), -6.0), lambda _: "")
    answer = f"{rest} You are a fool. {text}"
    outcome = await Pipeline(made).align(replace(ASKED, answer=answer), policy)
    assert (outcome.reason == "declined") is declined
    assert (rest in (outcome.text or "")) is not declined


async def test_how_near_counts_as_harm_is_the_policys() -> None:
    scores = {"You are a fool.": 3.0, HOW: -3.5}
    made = Pipeline(SegmentEngine(lambda segment: scores.get(segment.strip(), -6.0), lambda _: ""))
    asked = replace(ASKED, answer=f"Paint the fence with a brush. You are a fool. {HOW}")
    of_harm = replace(POLICY, objectives=(Objective("harmless", "Harmless: no harm"),))
    reasons = []
    for nats in (1.0, 4.0):
        outcome = await made.align(asked, replace(of_harm, decline_within=nats))
        reasons.append(outcome.reason)
    assert reasons == [None, "declined"]
    scores[HOW] = -0.01
    never = await made.align(asked, replace(of_harm, decline_within=0.0))
    assert never.reason is None


async def test_beside_harm_a_stream_that_has_gone_out_is_not_declined() -> None:
    policy = replace(POLICY, objectives=(Objective("harmless", "Harmless: no harm"),), stream=StreamMode.SENTENCE)
    scores = {"You are a fool.": 3.0, HOW: -0.5}
    made = Pipeline(SegmentEngine(lambda segment: scores.get(segment.strip(), -6.0), lambda _: ""))
    late = await grown(
        GrowingAnswer(made, policy, lambda: ASKED, lambda: None, hold_until_end=False),
        f"Paint the fence with a brush. You are a fool. {HOW}",
    )
    assert late.reason != "declined"
    early = await grown(
        GrowingAnswer(made, policy, lambda: ASKED, lambda: None, hold_until_end=True), f"You are a fool. {HOW}"
    )
    assert early.reason == "declined"


def test_without_a_flag_nothing_is_missing() -> None:
    assert not nothing_remains([SegmentScore("Then let it dry.", -2.0, False)], "Then let it dry.")
    assert not nothing_remains([SegmentScore("", 2.0, True)], "Yes.")


OF_HARM = replace(
    POLICY, objectives=(Objective("brief", "Brevity: short"), Objective("harmless", "Harmlessness: no harm"))
)
GUIDE = "Sure, here is how. Bend the wire twice. Then turn it in the lock, and open the door while nobody is looking."
"""No segment of it is flagged, and it has 21 words."""


def telling(nats: float, objective: int = 1) -> SegmentEngine:
    """An engine whose segments say so much of their answer, on average."""
    made = engine()
    made.evidence = lambda text: (nats + (1.0 if "Sure" in text else -0.5), objective)
    return made


async def of_guide(made: SegmentEngine, policy: Policy = OF_HARM, answer: str = GUIDE) -> Outcome:
    return await Pipeline(made).align(replace(ASKED, answer=answer), policy)


async def test_an_answer_that_is_harmful_as_a_whole_is_declined() -> None:
    outcome = await of_guide(telling(0.1))
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, "declined")
    assert outcome.text == "We do not answer like that (harmless)."
    assert outcome.violated_objectives == ["harmless"]
    assert outcome.flagged_count == 3
    below = await of_guide(telling(-0.1))
    assert (below.status, below.text, below.flagged_count) == (Status.UNCHANGED, GUIDE, 0)


async def test_what_remains_of_an_answer_that_is_harmful_as_a_whole_does_not_count() -> None:
    """Neither what was written in place of a flagged segment, nor what was not flagged."""
    made = SegmentEngine(
        lambda text: 2.0 if "twice" in text else -2.0, lambda _: "Please paint the fence with a brush."
    )
    assert (await of_guide(made)).text == GUIDE.replace("Bend the wire twice.", "Please paint the fence with a brush.")
    made.evidence = lambda _: (0.1, 1)
    assert (await of_guide(made)).reason == "declined"


@pytest.mark.parametrize(
    ("change", "objective", "declined"),
    [
        ({}, 1, True),
        ({}, 0, False),
        ({}, 7, False),
        ({"decline_whole_answers": False}, 1, False),
        ({"caution": 1.0}, 1, False),
        ({"if_nothing_remains": IfNothingRemains.ORIGINAL}, 1, False),
        ({"declines_harm_alone": True}, 1, True),
        ({"judge": Judge(JudgeKind.CHAT, "strong")}, 1, False),
        ({"judge": Judge(JudgeKind.CHAT, "strong", ask=AskAbout.FLAGGED)}, 1, False),
        ({"judge": Judge(JudgeKind.CHAT, "strong", answer_band=0.0)}, 1, True),
    ],
    ids=["harm", "brevity", "unknown", "off", "caution", "original", "harm-alone", "judge", "confirms", "no-band"],
)
async def test_which_answers_are_declined_as_a_whole(change: dict[str, object], objective: int, declined: bool) -> None:
    policy = replace(OF_HARM, **change)  # type: ignore[arg-type]
    outcome = await of_guide(telling(0.5, objective), policy)
    assert (outcome.reason == "declined") is declined
    assert declined or outcome.text == GUIDE


SPANISH = (
    "Claro, as\u00ed se hace. Dobla el alambre dos veces. Luego g\u00edralo en la cerradura y abre la puerta cuando no "
    "haya nadie que lo vea."
)
TABLE = """| part | metal | turns | length | colour |
|---|---|---|---|---|
| hook | steel | two | nine cm | grey |
| spring | brass | five | four cm | yellow |
| bolt | iron | three | seven cm | black |"""
CROATIAN = (
    "Naravno, ovako. Savij \u017eicu dvaput. Zatim je okreni u bravi i otvori vrata dok nitko ne gleda, pa brzo odnesi "
    "sve."
)


@pytest.mark.parametrize(
    ("answer", "languages", "declined"),
    [
        (GUIDE, ("en",), True),
        (SPANISH, ("en",), False),
        (SPANISH, ("en", "es"), True),
        (SPANISH, (), True),
        (TABLE, ("en",), False),
        (f"{GUIDE}\n\n{TABLE}", ("en",), True),
        (CROATIAN, ("en",), False),
        (CROATIAN, ("en", "hr"), True),
        ("".join(chr(ord(char) + 0x1D41A - 0x61) if char.islower() else char for char in GUIDE), ("en",), True),
        (f"```\n{GUIDE}\n```", ("en",), True),
    ],
    ids=["own", "other", "both", "unlimited", "table", "table-below", "unlisted", "unlisted-own", "styled", "as-code"],
)
@pytest.mark.parametrize("way", ["whole", "hold"])
async def test_an_answer_is_declined_as_a_whole_only_in_a_language_of_the_aligner(
    answer: str, languages: tuple[str, ...], declined: bool, way: str
) -> None:
    made = engine()
    made.evidence = lambda _: (0.5, 1)
    made.about = replace(SCRIPTED, languages=languages)
    if way == "whole":
        outcome = await of_guide(made, answer=answer)
    else:
        policy = replace(OF_HARM, stream=StreamMode.SENTENCE)
        outcome = await grown(
            GrowingAnswer(Pipeline(made), policy, lambda: ASKED, lambda: None, hold_until_end=True), answer
        )
    assert (outcome.reason == "declined") is declined
    assert declined or outcome.text == answer


async def test_a_stream_in_another_language_does_not_wait_as_harmful() -> None:
    made = engine()
    made.evidence = lambda _: (0.5, 1)
    made.about = replace(SCRIPTED, languages=("en",))
    outcome, sent = await in_steps(made, answer=f"{SPANISH} {SPANISH}")
    assert outcome.text == f"{SPANISH} {SPANISH}"
    assert sent[-1] > len(SPANISH)


async def test_without_an_answer_about_its_languages_the_aligner_counts_as_knowing_all() -> None:
    made = telling(0.5)

    async def fail() -> AlignerInfo:
        raise EngineUnavailable("gone")

    made.info = fail  # type: ignore[method-assign]
    assert (await of_guide(made)).reason == "declined"


async def test_json_and_a_text_beside_a_tool_call_are_not_declined_as_a_whole() -> None:
    answer = '{"text": "Bend the wire twice. Then turn it in the lock."}'
    assert (await of_guide(telling(0.5), answer=answer)).text == answer
    exchange = replace(ASKED, answer=GUIDE, tool_calls=True)
    outcome = await Pipeline(telling(0.5)).align(exchange, OF_HARM)
    assert outcome.text in ("", GUIDE)  # left out, or not judged at all
    assert outcome.reason != "declined"


async def test_shadow_says_that_it_would_decline_the_whole() -> None:
    outcome = await of_guide(telling(0.5), replace(OF_HARM, mode=Mode.SHADOW))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SHADOW, "would_decline", GUIDE)


LONG_GUIDE = " ".join(f"Step {n} is to bend the wire a little more and to try the lock again." for n in range(1, 7))
STEP = len("Step 1 is to bend the wire a little more and to try the lock again.")


@pytest.mark.parametrize("held", [False, True])
async def test_a_stream_that_is_harmful_as_a_whole_is_declined_if_most_has_not_gone_out(held: bool) -> None:
    policy = replace(OF_HARM, stream=StreamMode.SENTENCE)
    made = GrowingAnswer(Pipeline(telling(0.5)), policy, lambda: ASKED, lambda: None, hold_until_end=held)
    outcome = await grown(made, [GUIDE])
    # all of it came at once, and less than half of it may have gone out
    beginning = "" if held else "Sure, here is how. Bend the wire twice.\n\n"
    assert outcome.text == f"{beginning}We do not answer like that (harmless)."


def telling_of_steps(nats: Callable[[int], float]) -> SegmentEngine:
    """An engine whose segments say of their answer what their number says."""
    made = engine()
    made.evidence = lambda text: (nats(int(text.split()[1])), 1)
    return made


async def in_steps(
    made: SegmentEngine, policy: Policy = OF_HARM, answer: str = LONG_GUIDE
) -> tuple[Outcome, list[int]]:
    """The outcome of a stream of sentences, and how many characters had gone out after each piece."""
    growing = GrowingAnswer(Pipeline(made), replace(policy, stream=StreamMode.SENTENCE), lambda: ASKED, lambda: None)
    sent: list[int] = []
    for piece in re.findall(r"\S+\s*", answer):
        await growing.feed(piece)
        for _ in range(10):
            await asyncio.sleep(0)
        sent.append(max(end for end in range(growing.length + 1) if growing.is_decided(end)))
    return await grown(growing, []), sent


async def test_a_stream_that_becomes_harmful_as_a_whole_waits_and_is_cut() -> None:
    outcome, sent = await in_steps(telling_of_steps(lambda _: 0.5))
    # the first two steps have 20 words, so the second one is held
    assert max(sent) == STEP
    beginning = LONG_GUIDE[: max(sent)].rstrip()
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, "declined")
    assert outcome.text == f"{beginning}\n\nWe do not answer like that (harmless)."


@pytest.mark.parametrize("count", [2, 4, 5])
async def test_steps_that_are_judged_together_do_not_go_out_before_they_are_weighed(count: int) -> None:
    """An upstream that is faster than the engine."""
    end = len(" ".join(LONG_GUIDE.split(". ")[:count])) + 2 * count
    policy = replace(OF_HARM, stream=StreamMode.SENTENCE)
    made = GrowingAnswer(Pipeline(telling_of_steps(lambda _: 0.5)), policy, lambda: ASKED, lambda: None)
    outcome = await grown(made, [LONG_GUIDE[:end], LONG_GUIDE[end:]], rounds=40)
    assert (outcome.reason, outcome.text) == ("declined", "We do not answer like that (harmless).")


async def test_a_stream_that_only_seemed_harmful_goes_on() -> None:
    """What was held goes out as soon as the answer as a whole is fine again, at the latest at its end."""
    outcome, sent = await in_steps(telling_of_steps(lambda n: 0.5 if n < 4 else -2.0))
    assert (outcome.status, outcome.text) == (Status.UNCHANGED, LONG_GUIDE)
    assert sent[-1] > 4 * STEP
    turned, sent = await in_steps(telling_of_steps(lambda n: -1.0 if n < 6 else 9.0))
    assert (turned.status, turned.text) == (Status.UNCHANGED, LONG_GUIDE), "most of the harm has gone out"


async def test_a_short_answer_is_not_declined_as_a_whole() -> None:
    short = GUIDE.removesuffix(" while nobody is looking.") + "."
    assert (await of_guide(telling(3.0), answer=short)).text == short


async def test_a_cached_answer_is_declined_as_a_whole_again(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path, 60.0, 1)
    made = Pipeline(telling(0.5), cache)
    exchange = replace(ASKED, answer=GUIDE)
    outcomes_seen = [await made.align(exchange, OF_HARM) for _ in range(2)]
    await cache.aclose()
    assert [outcome.cache_hit for outcome in outcomes_seen] == [False, True]
    assert [outcome.reason for outcome in outcomes_seen] == ["declined", "declined"]


@pytest.mark.parametrize("sentence", ["Y axis labels go left.", "Y Combinator funds firms.", "Et al. means others."])
async def test_a_letter_or_name_at_the_beginning_joins_nothing(sentence: str) -> None:
    assert set((await correct_in_all_ways(f"You are a fool. {sentence}")).values()) == {sentence}


async def test_a_connective_goes_where_the_answer_begins_with_an_empty_line() -> None:
    delivered = await correct_in_all_ways("\nYou fool! However, tea helps.")
    assert {(text or "").strip() for text in delivered.values()} == {"Tea helps."}
