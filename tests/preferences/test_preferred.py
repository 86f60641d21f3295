"""Which preferences become objectives of a policy, and which are refused before anything is spent."""

from __future__ import annotations

import pytest

from aligner_proxy.errors import BadPreference, ForbiddenError
from aligner_proxy.preferences import MAX_CHARS, preferred, wishes
from aligner_proxy.preferences.dialogue import Dialogue, MetaPrompt, Query, SystemInfo, UserInfo
from aligner_proxy.types import Objective, Policy, StreamMode
from aligner_proxy.wishes import WishSource

ALL = tuple(WishSource)
OWN = Objective("harmless", "Harmlessness: the response should avoid insults")
BASE = Policy("p", (OWN,), preferences=ALL)


def meta(preference: str = "", persona: str = "", system: str = "") -> MetaPrompt:
    return MetaPrompt(SystemInfo(system), UserInfo(persona, preference))


def names(policy: Policy) -> list[str]:
    return [objective.name for objective in policy.objectives]


def test_wishes_stand_behind_the_operator_and_those_for_the_aligner_first() -> None:
    found = preferred(BASE, meta("No emoji, at most 80 words, be warm", "I am ten."), may=True)
    assert names(found) == ["harmless", "max-words", "preference", "persona", "no-emoji"]
    assert [objective.text for objective in found.objectives][1:3] == [
        "Length: the response should have at most 80 words",
        "Preference: the response should be as the reader wishes: be warm",
    ]
    assert list(wishes(found)) == names(found)[1:]
    assert ("objective:persona", "persona") in found.origins


def test_by_default_nothing_is_read() -> None:
    policy = Policy("p", (OWN,))
    assert preferred(policy, meta("No emoji.", "x" * 9999, "No lists."), may=False) is policy


@pytest.mark.parametrize("source", ALL)
def test_only_what_the_route_reads_is_read(source: WishSource) -> None:
    policy = Policy("p", preferences=(source,))
    wanted = {WishSource.REQUEST: "no-emoji", WishSource.PERSONA: "no-lists", WishSource.SYSTEM: "lower-case"}
    assert names(preferred(policy, meta("No emoji.", "I hate lists.", "All lowercase."), may=True)) == [wanted[source]]


@pytest.mark.parametrize("said", [meta("No emoji."), meta(persona="I am ten.")])
def test_a_tenant_that_may_not_is_refused(said: MetaPrompt) -> None:
    with pytest.raises(ForbiddenError, match="allow_preferences"):
        preferred(BASE, said, may=False)


def test_a_system_prompt_is_no_wish_of_its_own() -> None:
    assert preferred(BASE, meta(system="No emoji."), may=False) is BASE


@pytest.mark.parametrize("said", [meta("a" * (MAX_CHARS + 1)), meta(persona="secret " * 200)])
def test_what_is_too_long_is_refused_without_repeating_it(said: MetaPrompt) -> None:
    with pytest.raises(BadPreference, match=r"1,\d+ characters; at most 1,000") as caught:
        preferred(BASE, said, may=True)
    assert "secret" not in str(caught.value)


def test_a_stream_whose_answer_is_checked_is_held() -> None:
    policy = Policy("p", (OWN,), preferences=ALL, stream=StreamMode.SENTENCE)
    assert preferred(policy, meta("No emoji."), may=True).stream is StreamMode.HOLD
    assert preferred(policy, meta(), may=True).stream is StreamMode.SENTENCE


def test_a_dialogue_has_three_tiers() -> None:
    dialogue = Dialogue(meta("b", "c", "a"), Query("d"))
    assert [text for _, text in dialogue.meta.tiers()] == ["a", "b", "c"]
