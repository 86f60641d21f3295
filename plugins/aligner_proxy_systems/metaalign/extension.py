"""MetaAlign's extension: takes preferences from the request's fields and reports them in the response headers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from prometheus_client import Counter
from pydantic import Field

from aligner_proxy.plugins.api import Corrected, Extension, Inner, PolicyKey, RequestField
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Objective, Outcome, Policy
from aligner_proxy_systems.metaalign import stages
from aligner_proxy_systems.metaalign.checks import check_adherence
from aligner_proxy_systems.metaalign.objectives import (
    GRANT_KEY,
    READ_CHARS,
    SOURCES_KEY,
    add_preferences,
    operator_policy,
    preferences_of,
    tiers,
)
from aligner_proxy_systems.metaalign.parser import parse
from aligner_proxy_systems.metaalign.types import Preference, PreferenceKind, PreferenceSource

PREFERENCES = Counter(
    "aligner_preferences_total",
    "Checkable preferences: whether the upstream's answer met them, and whether the delivered answer does",
    ("preference", "before", "after"),
)


class Preferences(Extension):
    """Turns preferences of request, persona and system prompt into objectives and fulfils them in three stages."""

    name = "preferences"
    order = 10  # outside `best_of` (20), so that each of the stages can make several drafts
    keys = (
        PolicyKey(
            SOURCES_KEY,
            Annotated[tuple[PreferenceSource, ...], Field(max_length=3)],
            (),
            "Where preferences are read from: request (metadata.aligner.preference), persona "
            "(metadata.aligner.persona), system (the system prompt).",
        ),
        PolicyKey(
            GRANT_KEY,
            Annotated[bool, Field(strict=True)],
            False,
            "Whether a tenant's requests may state preferences, on routes that read them.",
            grant=True,
        ),
    )
    request_fields = (
        RequestField("preference", "The preferences of the request, in words."),
        RequestField("persona", "The persona that the request describes."),
    )

    def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
        """Append the request's preferences to the operator's objectives, if the route reads preferences."""
        return add_preferences(policy, request) if policy.extension(SOURCES_KEY) else policy

    def prefill(self, policy: Policy) -> Policy:
        """Restrict reading ahead to the operator's objectives, because stage 2 corrects the answer for these."""
        return operator_policy(policy) if preferences_of(policy) else policy

    def wraps(self, policy: Policy) -> bool:
        return bool(preferences_of(policy))

    async def correct(self, text: str, policy: Policy, inner: Inner) -> Corrected:
        return await stages.correct(text, policy, inner)

    def report(self, policy: Policy, answer: str, delivered: str) -> Mapping[str, Any] | None:
        """Map each checkable preference to [met by the original, met by the delivered answer]; None without any."""
        preferences = preferences_of(policy)
        return check_adherence(preferences, answer, delivered) if preferences else None

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Return the header x-aligner-preferences; no header before preferences were checked."""
        entries = [
            f"{name}={_yes_or_no(before)}/{_yes_or_no(after)}"
            for name, (before, after) in _combine_choices(outcomes).items()
        ]
        return {"preferences": ",".join(entries)} if entries else {}

    def trailer(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        return self.headers(policy, outcomes)

    def observe(self, outcome: Outcome) -> None:
        """Count in the metric which preferences were met before and after."""
        for name, (before, after) in _read_report(outcome).items():
            PREFERENCES.labels(name, str(before).lower(), str(after).lower()).inc()

    def explain(self, policy: Policy, request: RequestFacts) -> Iterable[str]:
        """Yield notes on which preference texts of the request do not apply, and why."""
        sources = policy.extension(SOURCES_KEY, ())
        preferences = list(preferences_of(policy).values())
        for source, text in tiers(request):
            if not text.strip():
                continue
            if source not in sources:
                yield f"the route does not read preferences of the {source.value}: add it to `preferences`"
            else:
                yield from _explain_unused(source, text, preferences)

    def describe(self, objective: Objective) -> str | None:
        """Return how an objective that states a preference is met, in a few words; None for other objectives."""
        if objective.allowance is None or objective.name not in list(PreferenceKind):
            return None
        preference = Preference(PreferenceKind(objective.name))
        if preference.fixable:
            return "met by rules"
        return "asked of the corrector, checked" if preference.checkable else "asked of the corrector, in words"


def _explain_unused(source: PreferenceSource, text: str, preferences: Sequence[Preference]) -> Iterator[str]:
    """Yield notes on the preferences of one text that do not apply; `preferences` are those that apply."""
    applied_kinds = {(preference.kind, preference.source) for preference in preferences}
    parsed = parse(text[:READ_CHARS], source)
    for preference in parsed.preferences:
        if (preference.kind, source) not in applied_kinds:
            yield f"{preference.kind.value} ({source.value}) is set aside: a higher tier or a later word holds"
    if not parsed.preferences and source not in {preference.source for preference in preferences}:
        yield f"nothing of the {source.value} is in force: no words in it are about the answer"


def _read_report(outcome: Outcome) -> Mapping[str, Sequence[bool]]:
    """Return what `report` returned for one choice; empty if it returned nothing."""
    report: Mapping[str, Sequence[bool]] = dict(outcome.reports).get(Preferences.name, {})
    return report


def _combine_choices(outcomes: Sequence[Outcome]) -> dict[str, tuple[bool, bool]]:
    """Return, for each preference, whether every choice met it before and after correction."""
    combined: dict[str, tuple[bool, bool]] = {}
    for outcome in outcomes:
        for name, (before, after) in _read_report(outcome).items():
            all_before, all_after = combined.get(name, (True, True))
            combined[name] = (all_before and before, all_after and after)
    return combined


def _yes_or_no(is_met: bool) -> str:
    return "yes" if is_met else "no"
