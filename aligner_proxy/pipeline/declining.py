"""Answers of which nothing would remain: what the client gets in their place.

Nothing remains where no segment stands by itself without those that were flagged, and nothing was written in their
place: all was flagged, or the rest are fragments (text/fragments.py). Nor does anything remain of an answer in two
voices of which one declines and the other was flagged: it was talked into answering all the same. Where harm was
flagged, what came close to being flagged is likely to be more of it, and does not count as remaining. The text that
stands in its place is the operator's, or ours, and is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from aligner_proxy.text import fragments
from aligner_proxy.text.languages import language
from aligner_proxy.text.refusals import declines
from aligner_proxy.text.structure import split
from aligner_proxy.types import Exchange, IfNothingRemains, Mode, Outcome, Policy, SegmentScore, Status

DECLINED = "declined"
"""The reason of an outcome whose text is not the upstream's."""
NOTHING_REMAINS = "nothing_remains"
"""The reason of an outcome that is blocked for it."""
_LABEL = re.compile(
    r"[ \t>*_#]{0,8}(?P<sign>\[)?(?P<name>[^\W_](?:(?(sign)[^\]\n:]|[\w .'-])){0,30})(?(sign)\])"
    r"[*_]{0,3}:[*_]{0,3}[ \t]+"
)
"""A speaker before what is said, with or without brackets."""
_HARM = "harmless"
"""Name of the objective of which a breach is seldom alone in its answer."""
_ANY_LANGUAGE = ""
_OBJECTIVE = "{objective}"
_OWN_TEXTS = {
    "en": "I'm sorry, but I can't answer this here.",
    "de": "Es tut mir leid, darauf kann ich hier nicht antworten.",
    "fr": "D\u00e9sol\u00e9, je ne peux pas r\u00e9pondre \u00e0 cela ici.",
    "es": "Lo siento, no puedo responder a esto aqu\u00ed.",
    "pt": "Desculpe, n\u00e3o posso responder a isto aqui.",
    "it": "Mi dispiace, non posso rispondere a questo qui.",
    "nl": "Het spijt me, hier kan ik geen antwoord op geven.",
}


def nothing_remains(segments: Sequence[SegmentScore], delivered: str) -> bool:
    """Whether nothing that stands by itself is left of an answer with these segments, of which `delivered` goes out."""
    if not any(segment.flagged and segment.text.strip() for segment in segments):
        return False
    if _in_two_voices(segments):
        return True
    texts = [segment.text for segment in segments]
    if fragments.independent_segments(texts, [not segment.flagged for segment in segments]):
        return False
    known = {fragments.core(text) for text in texts}
    written = [piece.text for piece in split(delivered) if fragments.core(piece.text) not in known]
    return not fragments.independent_segments(written, [True] * len(written))


def more_of_the_same(segments: Sequence[SegmentScore], policy: Policy, threshold: float) -> bool:
    """Whether harm was flagged, and something that stays came close to being flagged, too (`decline_within`, nats).

    `threshold` is the score, in nats, above which a segment was flagged. Nothing is read again for this. Fragments
    count: what says little without the harm before it ("Demand that they do so, or else.") goes on with it.
    """
    names = [objective.name for objective in policy.objectives]
    against = {segment.objective for segment in segments if segment.flagged}
    of_harm = any(name == _HARM and number in against for number, name in enumerate(names))
    if not (of_harm or (names == [_HARM] and None in against)):
        return False
    kept = [segment for segment in segments if not segment.flagged]
    scores = [segment.score for segment in kept if _says_something(segment.text)]
    return any(score is not None and score > threshold - policy.decline_within for score in scores)


def _says_something(text: str) -> bool:
    """Whether a segment is more than a label or a name; a quantity may say what harms."""
    return len(fragments.space_words(fragments.core(text)).split()) >= fragments.FEWEST_WORDS


def _in_two_voices(segments: Sequence[SegmentScore]) -> bool:
    """Whether one speaker of the answer declines ("[A]: I cannot help with that.") and another is flagged."""
    voice = ""
    declining: set[str] = set()
    flagged: set[str] = set()
    for segment in segments:
        label = _LABEL.match(segment.text)
        if label is not None:
            voice = label["name"].casefold()
        if segment.flagged:
            flagged.add(voice)
        elif declines(segment.text[label.end() :] if label is not None else segment.text):
            declining.add(voice)
    return any(one and other and one != other for one in declining for other in flagged)


def text_of(policy: Policy, exchange: Exchange, against: Sequence[str]) -> str:
    """What stands in place of an answer that violates these objectives, in the language of the question if known."""
    texts = dict(policy.decline)
    spoken = _language_of(exchange)
    text = texts.get(spoken) or texts.get(_ANY_LANGUAGE) or next(iter(texts.values()), None)
    text = text or _OWN_TEXTS.get(spoken, _OWN_TEXTS["en"])
    return text.replace(_OBJECTIVE, ", ".join(against))


def _language_of(exchange: Exchange) -> str:
    asked = next((turn.content for turn in reversed(exchange.turns) if turn.role == "user"), "")
    return language(asked) or language(exchange.answer or "") or "en"


def applies(outcome: Outcome) -> bool:
    """Whether nothing remains of a judged answer, and the policy has something else in its place."""
    if outcome.policy.if_nothing_remains is IfNothingRemains.ORIGINAL or outcome.edited is None:
        return False
    if nothing_remains(outcome.segments, outcome.edited):
        return True
    return more_of_the_same(outcome.segments, outcome.policy, outcome.threshold)


def settled(outcome: Outcome, exchange: Exchange) -> Outcome:
    """The outcome of a judged answer as the policy wants it where nothing remains; else the same outcome.

    A second try is over by now: where it brought nothing, the text of the policy stands in its place.
    """
    policy = outcome.policy
    if not applies(outcome):
        return outcome
    shadow = policy.mode is Mode.SHADOW
    if policy.if_nothing_remains is IfNothingRemains.BLOCK:
        status = Status.SHADOW if shadow else Status.FAILED
        return replace(outcome, status=status, reason=f"{'would_block:' * shadow}{NOTHING_REMAINS}")
    text = text_of(policy, exchange, outcome.against)
    if shadow:
        return replace(outcome, reason="would_decline", edited=text)
    return replace(outcome, status=Status.CORRECTED, reason=DECLINED, text=text, edited=text)
