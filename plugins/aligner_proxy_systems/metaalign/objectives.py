"""Turns preferences of a request into objectives, placed after all objectives of the operator.

A preference that the tenant may not bring is refused before any work is done. stages.py fulfils preferences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

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
"""Longest preference text or persona; a longer one is a bad request."""
READ_CHARS = 20_000
"""How much of a system prompt is read, from its beginning; the rest is ignored."""
_TEXTS: Mapping[PreferenceKind, str] = MappingProxyType(
    {
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
)
_TEXTS_IN_WORDS = {
    PreferenceSource.REQUEST: (
        PreferenceKind.WORDED,
        "Preference: the response should be as the reader wishes: {words}",
    ),
    PreferenceSource.PERSONA: (PreferenceKind.PERSONA, "Persona: the response should suit this reader: {words}"),
}


def tiers(request: RequestFacts) -> tuple[Tier, ...]:
    """The texts of a request that may contain preferences, highest tier first.

    These are the tiers of MetaAlign (arXiv 2410.14184): the system prompt, then texts by or about the user. The query
    itself is never read for preferences.
    """
    return (
        (PreferenceSource.SYSTEM, request.system),
        (PreferenceSource.REQUEST, _text(request.fields.get("preference"))),
        (PreferenceSource.PERSONA, _text(request.fields.get("persona"))),
    )


def add_preferences(policy: Policy, request: RequestFacts) -> Policy:
    """Add the request's preferences to the policy, as far as its route reads them and its tenant may bring them.

    Raises `ForbiddenError` if the request brings its own preference or persona without permission, and `BadPreference`
    if one is too long. A system prompt without permission is ignored.
    """
    sources = policy.extension(SOURCES_KEY, ())
    allowed = policy.extension(GRANT_KEY, False)
    texts = [(source, text) for source, text in tiers(request) if source in sources and text.strip()]
    request_texts = [(source, text) for source, text in texts if source is not PreferenceSource.SYSTEM]
    if request_texts and not allowed:
        raise ForbiddenError("this key may not send a preference of its own; its tenant needs allow_preferences: true")
    for source, text in request_texts:
        if len(text) > MAX_CHARS:
            name = "persona" if source is PreferenceSource.PERSONA else "preference"
            raise BadPreference(f"metadata.aligner.{name} has {len(text):,} characters; at most {MAX_CHARS:,} are read")
    if not texts or not allowed:
        return policy
    parsed = [(source, parse(text[:READ_CHARS], source)) for source, text in texts]
    return _append_preferences(policy, resolve_conflicts(policy.objectives, parsed))


def preferences_of(policy: Policy) -> dict[str, Preference]:
    """The policy's preferences by the names of their objectives."""
    return dict(policy.extension(IN_FORCE, ()))


def operator_policy(policy: Policy) -> Policy:
    """The policy with only the operator's objectives."""
    own = tuple(objective for objective in policy.objectives if objective.allowance is None)
    return replace(policy, objectives=own)


def _text(value: object) -> str:
    """A request field as text: a list of texts is joined, and any other value counts as empty."""
    texts = value if isinstance(value, list) else [value]
    return "\n".join(text for text in texts if isinstance(text, str))


def _append_preferences(policy: Policy, resolved: ResolvedPreferences) -> Policy:
    """Append preferences to the objectives, and hold the stream, since only a whole answer shows if they are met."""
    preferences = tuple(_order_preferences(resolved))
    if not preferences:
        return policy
    words = dict(resolved.words)
    added = tuple(_make_objective(preference, words) for preference in preferences)
    stream = StreamMode.HOLD if policy.stream is StreamMode.SENTENCE else policy.stream
    origins = tuple((f"objective:{preference.kind.value}", preference.source.value) for preference in preferences)
    policy = replace(policy, objectives=policy.objectives + added, stream=stream, origins=policy.origins + origins)
    return policy.with_extension(IN_FORCE, tuple((preference.kind.value, preference) for preference in preferences))


def _order_preferences(resolved: ResolvedPreferences) -> Iterator[Preference]:
    """Order preferences: those for the aligner first, since it numbers the objectives that it gets."""
    yield from (preference for preference in resolved.preferences if not preference.fixable)
    yield from (Preference(_TEXTS_IN_WORDS[source][0], source) for source, _ in resolved.words)
    yield from (preference for preference in resolved.preferences if preference.fixable)


def _make_objective(preference: Preference, words: Mapping[PreferenceSource, str]) -> Objective:
    """The objective that states a preference; `words` are the free texts by their source."""
    if preference.checkable:
        language = " or ".join(name.capitalize() for name, codes in LANGUAGES.items() if codes == preference.words)
        banned = ", ".join(preference.words)
        text = _TEXTS[preference.kind].format(n=preference.number, language=language, words=banned)
    else:
        text = _TEXTS_IN_WORDS[preference.source][1].format(words=words[preference.source])
    return Objective(preference.kind.value, text, allowance=preference.allowance)
