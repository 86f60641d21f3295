"""Which preferences of a request become objectives of its answer, and how is each told to an aligner?

`preferred` adds them to a resolved policy, behind everything that the operator wants, and nothing else: what the tenant
may not have is refused before anything is spent. How they are met is the pipeline's business (preferring.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from aligner_proxy.errors import BadPreference, ForbiddenError
from aligner_proxy.preferences.conflicts import InForce, in_force
from aligner_proxy.preferences.dialogue import MetaPrompt
from aligner_proxy.preferences.lexicon import LANGUAGES
from aligner_proxy.preferences.reading import read
from aligner_proxy.types import Objective, Policy, StreamMode
from aligner_proxy.wishes import Wish, WishKind, WishSource

MAX_CHARS = 1_000
"""Of a preference text or persona; more is an error of the request."""
READ_CHARS = 20_000
"""Of a system prompt, from its beginning; what stands behind is not looked at."""
_TEXTS: Mapping[WishKind, str] = MappingProxyType(
    {
        WishKind.MAX_WORDS: "Length: the response should have at most {n} words",
        WishKind.MAX_SENTENCES: "Length: the response should have at most {n} sentences",
        WishKind.MAX_PARAGRAPHS: "Length: the response should have at most {n} paragraphs",
        WishKind.MAX_CHARS: "Length: the response should have at most {n} characters",
        WishKind.MIN_WORDS: "Fullness: the response should have at least {n} words",
        WishKind.MIN_SENTENCES: "Fullness: the response should have at least {n} sentences",
        WishKind.NO_LISTS: "Prose: the response should be written in sentences instead of lists",
        WishKind.LISTS: "Lists: the response should be written as a list",
        WishKind.NO_EMOJI: "Sobriety: the response should not contain emoji",
        WishKind.EMOJI: "Emoji: the response should contain emoji",
        WishKind.NO_EXCLAMATION: "Calm: the response should not contain exclamation marks",
        WishKind.NO_MARKDOWN: "Plain text: the response should not contain markdown",
        WishKind.NO_CONTRACTIONS: "Full forms: the response should not contain contractions",
        WishKind.NO_QUESTIONS: "Statements: the response should not contain questions",
        WishKind.ENDS_WITH_QUESTION: "Question: the response should end with a question to the reader",
        WishKind.LANGUAGE: "Language: the response should be written in {language}",
        WishKind.BANNED_WORDS: "Wording: the response should not use these words: {words}",
        WishKind.UPPER_CASE: "Capitals: the response should be written in capital letters",
        WishKind.LOWER_CASE: "Small letters: the response should be written without capital letters",
    }
)
_WORDED = {
    WishSource.REQUEST: (WishKind.WORDED, "Preference: the response should be as the reader wishes: {words}"),
    WishSource.PERSONA: (WishKind.PERSONA, "Persona: the response should suit this reader: {words}"),
}


def preferred(policy: Policy, said: MetaPrompt, *, may: bool) -> Policy:
    """The policy with what the request prefers, as far as its route reads that and its tenant `may` have it.

    Raises `ForbiddenError` where the request brings a preference or persona of its own and may not, `BadPreference`
    where one is too long. A system prompt is no such wish: where it may not be read it is left alone.
    """
    tiers = [(source, text) for source, text in said.tiers() if source in policy.preferences and text.strip()]
    own = [(source, text) for source, text in tiers if source is not WishSource.SYSTEM]
    if own and not may:
        raise ForbiddenError("this key may not bring a preference of its own; its tenant needs allow_preferences: true")
    for source, text in own:
        if len(text) > MAX_CHARS:
            name = "persona" if source is WishSource.PERSONA else "preference"
            raise BadPreference(f"metadata.aligner.{name} has {len(text):,} characters; at most {MAX_CHARS:,} are read")
    if not tiers or not may:
        return policy
    return _with(
        policy, in_force(policy.objectives, [(source, read(text[:READ_CHARS], source)) for source, text in tiers])
    )


def wishes(policy: Policy) -> dict[str, Wish]:
    """The wishes of a policy by the names of their objectives."""
    return {objective.name: objective.wish for objective in policy.objectives if objective.wish is not None}


def _with(policy: Policy, found: InForce) -> Policy:
    """Wishes come last. A stream with some is held: whether an answer meets them is known at its end."""
    added = tuple(_objectives(found))
    origins = tuple(
        (f"objective:{objective.name}", objective.wish.source.value) for objective in added if objective.wish
    )
    held = StreamMode.HOLD if added and policy.stream is StreamMode.SENTENCE else policy.stream
    return replace(policy, objectives=policy.objectives + added, stream=held, origins=policy.origins + origins)


def _objectives(found: InForce) -> Iterator[Objective]:
    """Those that an aligner is asked for stand first, since it numbers what it was given."""
    yield from (_checkable(wish) for wish in found.wishes if not wish.certain)
    for source, words in found.words:
        kind, form = _WORDED[source]
        yield Objective(kind.value, form.format(words=words), Wish(kind, source))
    yield from (_checkable(wish) for wish in found.wishes if wish.certain)


def _checkable(wish: Wish) -> Objective:
    language = " or ".join(name.capitalize() for name, codes in LANGUAGES.items() if codes == wish.words)
    text = _TEXTS[wish.kind].format(n=wish.number, language=language, words=", ".join(wish.words))
    return Objective(wish.kind.value, text, wish)
