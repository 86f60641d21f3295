"""Which preferences become objectives of a policy, and which are refused before anything is spent."""

from __future__ import annotations

import pytest

from aligner_proxy.errors import ForbiddenError
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Allowance, GateRule, LengthUnit, Objective, Policy, StreamMode
from aligner_proxy_systems.metaalign.objectives import (
    GRANT_KEY,
    MAX_CHARS,
    SOURCES_KEY,
    BadPreference,
    add_preferences,
    operator_policy,
    preferences_of,
    tiers,
)
from aligner_proxy_systems.metaalign.types import PreferenceSource

ALL = tuple(PreferenceSource)
OWN = Objective("harmless", "Harmlessness: the response should avoid insults")


def allow_preferences(policy: Policy, *sources: PreferenceSource, may: bool = True) -> Policy:
    return policy.with_extension(SOURCES_KEY, sources).with_extension(GRANT_KEY, may)


BASE = allow_preferences(Policy("p", (OWN,)), *ALL)


def meta(preference: object = "", persona: object = "", system: str = "") -> RequestFacts:
    return RequestFacts(system=system, fields={"preference": preference, "persona": persona})


def names(policy: Policy) -> list[str]:
    return [objective.name for objective in policy.objectives]


def test_preferences_stand_behind_the_operator_and_those_for_the_aligner_first() -> None:
    found = add_preferences(BASE, meta("No emoji, at most 80 words, be warm", "I am ten."))
    assert names(found) == ["harmless", "max-words", "preference", "persona", "no-emoji"]
    assert [objective.text for objective in found.objectives][1:3] == [
        "Length: the response should have at most 80 words",
        "Preference: the response should be as the reader wishes: be warm",
    ]
    assert list(preferences_of(found)) == names(found)[1:]
    assert ("objective:persona", "persona") in found.origins


def test_by_default_nothing_is_read() -> None:
    policy = Policy("p", (OWN,))
    assert add_preferences(policy, meta("No emoji.", "x" * 9999, "No lists.")) is policy


@pytest.mark.parametrize("source", ALL)
def test_only_what_the_route_reads_is_read(source: PreferenceSource) -> None:
    policy = allow_preferences(Policy("p"), source)
    wanted = {
        PreferenceSource.REQUEST: "no-emoji",
        PreferenceSource.PERSONA: "no-lists",
        PreferenceSource.SYSTEM: "lower-case",
    }
    assert names(add_preferences(policy, meta("No emoji.", "I hate lists.", "All lowercase."))) == [wanted[source]]


@pytest.mark.parametrize("said", [meta("No emoji."), meta(persona="I am ten.")])
def test_a_tenant_that_may_not_is_refused(said: RequestFacts) -> None:
    with pytest.raises(ForbiddenError, match="allow_preferences"):
        add_preferences(BASE.with_extension(GRANT_KEY, False), said)


def test_a_system_prompt_is_no_preference_of_its_own() -> None:
    ungranted = BASE.with_extension(GRANT_KEY, False)
    assert add_preferences(ungranted, meta(system="No emoji.")) is ungranted


@pytest.mark.parametrize("said", [meta("a" * (MAX_CHARS + 1)), meta(persona="secret " * 200)])
def test_what_is_too_long_is_refused_without_repeating_it(said: RequestFacts) -> None:
    with pytest.raises(BadPreference, match=r"1,\d+ characters; at most 1,000") as caught:
        add_preferences(BASE, said)
    assert "secret" not in str(caught.value)


def test_a_stream_whose_answer_is_checked_is_held() -> None:
    policy = allow_preferences(Policy("p", (OWN,), stream=StreamMode.SENTENCE), *ALL)
    assert add_preferences(policy, meta("No emoji.")).stream is StreamMode.HOLD
    assert add_preferences(policy, meta()).stream is StreamMode.SENTENCE


def test_the_tiers_of_a_request() -> None:
    assert [text for _, text in tiers(meta("b", "c", "a"))] == ["a", "b", "c"]
    assert [text for _, text in tiers(meta(["x", 3, "y"], 7))] == ["", "x\ny", ""], "what is no text counts as none"


def test_the_operators_objectives_alone() -> None:
    assert names(operator_policy(add_preferences(BASE, meta("No emoji, be warm.")))) == ["harmless"]


@pytest.mark.parametrize(
    ("preference", "allowance"),
    [
        ("No lists.", Allowance((GateRule.LOST_ITEM,))),
        ("Answer in German.", Allowance((GateRule.LANGUAGE, GateRule.SCRIPT))),
        ("At most 80 words.", Allowance(longest=(LengthUnit.WORDS, 80))),
        ('Never say the word "delve".', Allowance(banned=("delve",))),
        ("Be warm.", Allowance()),
    ],
)
def test_what_each_preference_lets_an_edit_do(preference: str, allowance: Allowance) -> None:
    (objective,) = add_preferences(allow_preferences(Policy("p"), *ALL), meta(preference)).objectives
    assert objective.allowance == allowance
