"""Preferences through the pipeline: three stages, the gate at each, and the operator's objectives all the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineFault
from aligner_proxy.gate.judge import judge
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import (
    Correction,
    Exchange,
    FailurePolicy,
    JsonStrings,
    Mode,
    Objective,
    OnError,
    Outcome,
    Policy,
    Status,
    Turn,
)
from aligner_proxy_systems.metaalign.extension import Preferences
from aligner_proxy_systems.metaalign.objectives import GRANT_KEY, SOURCES_KEY, add_preferences
from aligner_proxy_systems.metaalign.types import PreferenceSource
from tests.support.scripted import ScriptedEngine

PREFERENCES = Extensions([Preferences()])
HARMLESS = Objective("harmless", "Harmlessness: the response should avoid insults")
LONG = " ".join(f"The {n}th day was quiet and cold in the harbour." for n in range(11, 31))


def policy(preference: str, *objectives: Objective, persona: str = "", system: str = "", **settings: object) -> Policy:
    base = Policy("p", objectives, **settings)  # type: ignore[arg-type]
    reading = base.with_extension(SOURCES_KEY, tuple(PreferenceSource)).with_extension(GRANT_KEY, True)
    return add_preferences(reading, RequestFacts(system=system, fields={"preference": preference, "persona": persona}))


def pipeline(engine: ScriptedEngine, cache: CorrectionCache | None = None) -> Pipeline:
    return Pipeline(engine, cache, extensions=PREFERENCES)


def adherence(outcome: Outcome) -> dict[str, list[bool]]:
    return dict(dict(outcome.reports).get("preferences", {}))


def exchange(answer: str, **fields: object) -> Exchange:
    return Exchange("c", 0, (Turn("user", "Q"),), answer, **fields)  # type: ignore[arg-type]


async def outcome(script: object, answer: str, wanted: Policy) -> Outcome:
    return await pipeline(ScriptedEngine(script)).align(exchange(answer), wanted)  # type: ignore[arg-type]


async def test_what_rules_can_meet_asks_no_engine() -> None:
    engine = ScriptedEngine(lambda _: EngineFault("x"))
    found = await pipeline(engine).align(exchange("Don't shout! \U0001f600"), policy("No emoji, no contractions."))
    assert (found.status, found.text, engine.seen) == (Status.CORRECTED, "Do not shout!", [])
    assert adherence(found) == {"no-emoji": [False, True], "no-contractions": [False, True]}


async def test_the_operators_objectives_are_asked_in_a_prompt_of_their_own() -> None:
    seen: list[tuple[str, ...]] = []

    def script(request: AlignRequest) -> str:
        seen.append(request.objectives)
        return request.answer.replace(" You fool.", "")

    wanted = policy("At most 4 words, be warm, no emoji", HARMLESS, persona="I am ten.")
    found = await outcome(script, "It is so. You fool. \U0001f600", wanted)
    assert found.text == "It is so."
    assert seen == [
        (
            "Length: the response should have at most 4 words",
            "Preference: the response should be as the reader wishes: be warm",
            "Persona: the response should suit this reader: I am ten.",
        ),
        (HARMLESS.text,),
    ]


async def test_what_a_preference_brings_in_the_operator_has_the_last_word_on() -> None:
    def script(request: AlignRequest) -> str:
        if HARMLESS.text in request.objectives:
            return request.answer.replace(" You fool.", "")
        return request.answer + " You fool."

    found = await outcome(script, "It is so.", policy("Sound like a sailor", HARMLESS))
    assert (found.text, found.status) == ("It is so.", Status.UNCHANGED)


async def test_shortening_is_accepted_where_it_is_asked_for_and_no_further() -> None:
    def first(words: int) -> object:
        return lambda request: " ".join(request.answer.split()[:words]) + ("" if words % 9 == 0 else ".")

    asked = policy("At most 100 words.")
    assert adherence(await outcome(first(99), LONG, asked)) == {"max-words": [False, True]}
    cut = await outcome(first(36), LONG, asked)
    assert (cut.text, cut.dropped) == (LONG, ("too_short",))
    unasked = await outcome(first(99), LONG, policy("Sound like a sailor"))
    assert unasked.text == LONG
    assert "lost_number" in unasked.dropped


async def test_an_edit_that_meets_no_preference_is_not_delivered() -> None:
    asked = policy("End with a question.", HARMLESS)
    found = await outcome(
        lambda r: r.answer if HARMLESS.text in r.objectives else "It is so.", "It is so. All day.", asked
    )
    assert (found.text, found.status, found.dropped) == ("It is so. All day.", Status.UNCHANGED, ("unmet_preference",))
    helped = await outcome(lambda r: r.answer.removesuffix(" Right?") + " Right?", "It is so.", asked)
    assert (helped.text, helped.dropped) == ("It is so. Right?", ())


async def test_what_is_met_already_asks_nobody() -> None:
    engine = ScriptedEngine(lambda _: EngineFault("x"))
    found = await pipeline(engine).align(exchange("It is so?"), policy("End with a question, at most 80 words."))
    assert (found.status, engine.seen) == (Status.UNCHANGED, [])
    assert [after for _, after in adherence(found).values()] == [True, True]


async def test_what_a_preference_brings_in_does_not_keep_the_operators_edits_out() -> None:
    def script(request: AlignRequest) -> str:
        if HARMLESS.text in request.objectives:
            return request.answer.replace(" You fool.", "")
        return request.answer + " You fool." * 3

    found = await outcome(script, "It is so. You fool.", policy("Sound like a sailor", HARMLESS))
    assert (found.text, found.status) == ("It is so.", Status.CORRECTED)


async def test_lists_may_go_where_that_is_asked_for() -> None:
    text = "You need:\n\n- flour\n- eggs\n\nMix them."
    assert (await outcome(lambda r: r.answer, text, policy("No lists."))).text == "You need: flour; eggs.\n\nMix them."
    without = judge(text, Correction("You need: flour; eggs.\n\nMix them."), policy("Be warm."))
    assert without.text == text


@pytest.mark.parametrize(
    "words",
    [
        "The response should not contain links, names, numbers or code.",
        "Translate it into no language of yours.",
        "Be brief.",
    ],
)
def test_words_of_a_client_switch_off_no_rule(words: str) -> None:
    text = "See https://a.example/b for 12 examples by Ann Lee."
    assert judge(text, Correction("See it."), policy(words)).text == text


async def test_a_banned_word_frees_only_the_sentences_that_say_it() -> None:
    text = "We delve into 12 topics. It costs 30 euros."
    asked = policy('Never use the word "delve".')
    assert (await outcome(lambda _: "It costs 30 euros.", text, asked)).text == "It costs 30 euros."
    assert (await outcome(lambda _: "We look into 12 topics.", text, asked)).text == text


async def test_a_refused_preference_is_no_failure_and_a_refused_objective_is() -> None:
    blocking = FailurePolicy(gate=OnError.BLOCK)
    lose = "It costs 30 euros."
    asked = policy("Be warm.", HARMLESS, on_error=blocking)
    only = await outcome(lambda r: "Hm." if HARMLESS.text not in r.objectives else r.answer, lose, asked)
    assert (only.status, only.text, only.dropped) == (Status.UNCHANGED, lose, ("lost_number",))
    both = await outcome(lambda r: "Hm." if HARMLESS.text in r.objectives else r.answer, lose, asked)
    assert (both.status, both.reason) == (Status.FAILED, "gate_lost_number")


async def test_preferences_are_part_of_the_cache_key(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request: request.answer)
    cache = CorrectionCache(tmp_path, 60, 10)
    caching = pipeline(engine, cache)
    for text in ("Be warm.", "Be cold.", "Be warm."):
        await caching.align(exchange("It is so."), policy(text))
    assert len(engine.seen) == 2
    hit = await caching.align(exchange("It is so."), policy("Be cold. No emoji."))
    assert (hit.cache_hit, len(engine.seen)) == (True, 2)
    await cache.aclose()


async def test_in_shadow_mode_the_original_goes_out_and_adherence_is_that_of_the_edit() -> None:
    found = await outcome(lambda r: r.answer, "Hi! \U0001f600", policy("No emoji.", mode=Mode.SHADOW))
    assert (found.status, found.text, found.edited) == (Status.SHADOW, "Hi! \U0001f600", "Hi!")
    assert adherence(found) == {"no-emoji": [False, True]}


async def test_a_refusal_stays_a_refusal() -> None:
    text = "I'm sorry, but I can't help with that!"
    found = await outcome(lambda r: r.answer, text, policy("No contractions, no exclamation marks."))
    assert (found.status, found.reason, found.text) == (Status.SKIPPED, "refusal", text)


async def test_texts_in_json_are_repaired_and_stay_json() -> None:
    told = json.dumps({"a": "This is a rather long text, isn't it so! \U0001f600 And it goes on for a while."})
    wanted = policy("No exclamation marks.", json_strings=JsonStrings.CORRECT)
    found = await outcome(lambda r: r.answer, told, wanted)
    assert "!" not in json.loads(found.text or "")["a"]
    assert found.reports == ()


async def test_what_was_read_ahead_is_used_for_the_operators_objectives() -> None:
    engine = ScriptedEngine(lambda request: request.answer)
    wanted = policy("No emoji.", HARMLESS)
    reading = await pipeline(engine).read(exchange("It is"), wanted)
    assert reading is not None
    await reading.aclose()
    assert await pipeline(engine).read(exchange("It is"), policy("No emoji.")) is None


async def test_a_policy_without_objectives_is_looked_at() -> None:
    wanted = replace(policy("No emoji."), objectives=())
    assert (await outcome(lambda r: r.answer, "Hi \U0001f600", wanted)).reason == "no_objectives"
