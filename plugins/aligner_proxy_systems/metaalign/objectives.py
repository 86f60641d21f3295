"""Turns preferences of a request into objectives, placed after all objectives of the operator. A tier is a part of the
request that may contain preferences; those of a higher tier win.

A preference that the tenant may not bring is refused before any work is done. stages.py fulfils preferences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from aligner_proxy.errors import BadRequest, ForbiddenError
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Objective, Policy, StreamMode
from aligner_proxy_systems.metaalign.conflicts import ResolvedPreferences, resolve_conflicts
from aligner_proxy_systems.metaalign.lexicon import LANGUAGES
from aligner_proxy_systems.metaalign.parser import parse
from aligner_proxy_systems.metaalign.types import Preference, PreferenceKind, PreferenceSource

SOURCES_KEY = "preferences"
GRANT_KEY = "allow_preferences"
"""Keys of the policies file: where preferences are read, and whether a tenant may bring its own."""
IN_FORCE = "preferences in force"
"""Extension value of a policy with preferences: (objective name, preference) in the policy's order."""


class BadPreference(BadRequest):
    """The request's preference or persona is too long."""

    param = "metadata.aligner"


Tier = tuple[PreferenceSource, str]
"""The source and text of one part of the request that may contain preferences."""
MAX_CHARS = 1_000
"""Most characters of a preference text or persona; a longer one is a bad request."""
READ_CHARS = 20_000
"""How much of a system prompt is read, from its beginning; the rest is ignored."""
_OBJECTIVE_TEXTS: Mapping[PreferenceKind, str] = {
    PreferenceKind.MAX_WORDS: "Length: the response should have at most {n} words",
    PreferenceKind.MAX_SENTENCES: "Length: the response should have at most {n} sentences",
    PreferenceKind.MAX_PARAGRAPHS: "Length: the response should have at most {n} paragraphs",
    PreferenceKind.MAX_CHARS: "Length: the response should have at most {n} characters",
    PreferenceKind.MIN_WORDS: "Fullness: the response should have at least {n} words",
    PreferenceKind.MIN_SENTENCES: "Fullness: the response should have at least {n} sentences",
    PreferenceKind.NO_LISTS: "Prose: the response should be written in sentences instead of lists",
    PreferenceKind.LISTS: "Lists: the response should be written as a list",
    PreferenceKind.NO_EMOJI: "Sobriety: the response should not contain emoji",
    PreferenceKind.EMOJI: "Emoji: the response should contain emoji",
    PreferenceKind.NO_EXCLAMATION: "Calm: the response should not contain exclamation marks",
    PreferenceKind.NO_MARKDOWN: "Plain text: the response should not contain markdown",
    PreferenceKind.NO_CONTRACTIONS: "Full forms: the response should not contain contractions",
    PreferenceKind.NO_QUESTIONS: "Statements: the response should not contain questions",
    PreferenceKind.ENDS_WITH_QUESTION: "Question: the response should end with a question to the reader",
    PreferenceKind.LANGUAGE: "Language: the response should be written in {language}",
    PreferenceKind.BANNED_WORDS: "Wording: the response should not use these words: {words}",
    PreferenceKind.UPPER_CASE: "Capitals: the response should be written in capital letters",
    PreferenceKind.LOWER_CASE: "Small letters: the response should be written without capital letters",
}
# the kind of preference and the objective's text, by the source of a free text
_FREE_TEXT_OBJECTIVES = {
    PreferenceSource.REQUEST: (
        PreferenceKind.WORDED,
        "Preference: the response should be as the reader wishes: {words}",
    ),
    PreferenceSource.PERSONA: (PreferenceKind.PERSONA, "Persona: the response should suit this reader: {words}"),
}


def tiers(request: RequestFacts) -> tuple[Tier, ...]:
    """Return the texts of a request that may contain preferences, the highest tier first.

    These are the tiers of MetaAlign (arXiv 2410.14184): the system prompt, then texts by or about the user. The query
    itself is never read for preferences.
    """
    return (
        (PreferenceSource.SYSTEM, request.system),
        (PreferenceSource.REQUEST, _read_text(request.fields.get("preference"))),
        (PreferenceSource.PERSONA, _read_text(request.fields.get("persona"))),
    )


def add_preferences(policy: Policy, request: RequestFacts) -> Policy:
    """Add the request's preferences to the policy, as far as its route reads them and its tenant may bring them.

    Raises `ForbiddenError` if the request brings its own preference or persona without permission, and `BadPreference`
    if one is too long. A system prompt without permission is ignored, because every request may have one.
    """
    sources = policy.extension(SOURCES_KEY, ())
    is_allowed = policy.extension(GRANT_KEY, False)
    texts = [(source, text) for source, text in tiers(request) if source in sources and text.strip()]
    own_texts = [(source, text) for source, text in texts if source is not PreferenceSource.SYSTEM]
    if own_texts and not is_allowed:
        raise ForbiddenError("this key may not send a preference of its own; its tenant needs allow_preferences: true")
    for source, text in own_texts:
        if len(text) > MAX_CHARS:
            name = "persona" if source is PreferenceSource.PERSONA else "preference"
            raise BadPreference(f"metadata.aligner.{name} has {len(text):,} characters; at most {MAX_CHARS:,} are read")
    if not texts or not is_allowed:
        return policy
    parsed_tiers = [(source, parse(text[:READ_CHARS], source)) for source, text in texts]
    return _append_preferences(policy, resolve_conflicts(policy.objectives, parsed_tiers))


def preferences_of(policy: Policy) -> dict[str, Preference]:
    """Return the policy's preferences by the names of their objectives."""
    return dict(policy.extension(IN_FORCE, ()))


def operator_policy(policy: Policy) -> Policy:
    """Return the policy with only the operator's objectives."""
    # only objectives of preferences have an allowance
    own_objectives = tuple(objective for objective in policy.objectives if objective.allowance is None)
    return replace(policy, objectives=own_objectives)


def _read_text(value: object) -> str:
    """Return the text of a request's field: a list of texts is joined, and another value counts as empty."""
    texts = value if isinstance(value, list) else [value]
    return "\n".join(text for text in texts if isinstance(text, str))


def _append_preferences(policy: Policy, resolved: ResolvedPreferences) -> Policy:
    """Append an objective for each preference, and record the preferences in the policy.

    Streams are held then, because only a whole answer shows whether preferences are met.
    """
    preferences = tuple(_order_preferences(resolved))
    if not preferences:
        return policy
    free_texts = dict(resolved.words)
    new_objectives = tuple(_make_objective(preference, free_texts) for preference in preferences)
    # the source of each new objective, which `aligner-proxy check` shows
    new_origins = tuple((f"objective:{preference.kind.value}", preference.source.value) for preference in preferences)
    new_policy = replace(
        policy,
        objectives=policy.objectives + new_objectives,
        stream=StreamMode.HOLD if policy.stream is StreamMode.SENTENCE else policy.stream,
        origins=policy.origins + new_origins,
    )
    return new_policy.with_extension(IN_FORCE, tuple((preference.kind.value, preference) for preference in preferences))


def _order_preferences(resolved: ResolvedPreferences) -> Iterator[Preference]:
    """Yield the preferences, those for the aligner first, because it numbers the objectives that it gets."""
    for preference in resolved.preferences:
        if not preference.fixable:
            yield preference
    for source, _ in resolved.words:
        kind, _ = _FREE_TEXT_OBJECTIVES[source]
        yield Preference(kind, source)
    for preference in resolved.preferences:
        if preference.fixable:
            yield preference


def _make_objective(preference: Preference, free_texts: Mapping[PreferenceSource, str]) -> Objective:
    """Return the objective that states a preference; `free_texts` are the texts that no rule can check, by source."""
    if preference.checkable:
        # each kind's text has only the placeholder that it needs
        language = " or ".join(name.capitalize() for name, codes in LANGUAGES.items() if codes == preference.words)
        banned_words = ", ".join(preference.words)
        template = _OBJECTIVE_TEXTS[preference.kind]
        text = template.format(n=preference.number, language=language, words=banned_words)
    else:
        _, template = _FREE_TEXT_OBJECTIVES[preference.source]
        text = template.format(words=free_texts[preference.source])
    return Objective(preference.kind.value, text, allowance=preference.allowance)
