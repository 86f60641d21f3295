"""Whose preference holds where two cannot both hold? The operator's objectives, then the system prompt, then the user.

1. What contradicts an objective of the operator (enforced, the route's, or a configured one that was asked for) is set
   aside, and so is a checkable wish whose subject an objective speaks of without agreeing with it.
2. What contradicts a wish of a higher tier is set aside; within a tier the later word counts.
3. Wishes that can both hold both hold: of two bounds the tighter one, of two lists of banned words both.
4. Words that speak of objectives, rules or instructions instead of the answer are set aside as a whole.

Nothing here can take an objective away: wishes are only ever added behind them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from aligner_proxy.preferences.reading import Read, read
from aligner_proxy.types import Objective
from aligner_proxy.wishes import LEAST, MOST, Wish, WishKind, WishSource

_OPPOSITES = (
    {WishKind.NO_LISTS, WishKind.LISTS},
    {WishKind.NO_EMOJI, WishKind.EMOJI},
    {WishKind.UPPER_CASE, WishKind.LOWER_CASE},
    {WishKind.NO_QUESTIONS, WishKind.ENDS_WITH_QUESTION},
    {WishKind.MAX_WORDS, WishKind.MIN_WORDS},
    {WishKind.MAX_SENTENCES, WishKind.MIN_SENTENCES},
)
_POLES = tuple(
    (re.compile(rf"\b(?:{one})\b", re.I), re.compile(rf"\b(?:{other})\b", re.I))
    for one, other in (
        (r"formal(?:ly)?|professional(?:ly|ism)?", r"informal(?:ly)?|casual(?:ly)?|slang|chatty|slangy|"
        r"unprofessional(?:ly)?"),
        (r"brief(?:ly)?|short(?:er)?|concise(?:ly)?|terse(?:ly)?|brevity", r"long(?:er)?|detailed|"
        r"verbose(?:ly)?|elaborate(?:ly)?|in[- ]depth|exhaustive(?:ly)?"),
        (r"polite(?:ly)?|kind(?:ly|ness)?|respect(?:ful|fully)?|insult\w*|harmless(?:ness)?|"
        r"warm(?:ly)?", r"rude(?:ly|ness)?|mean|insult\w*|disrespect\w*|offensive(?:ly)?|nasty|cruel(?:ly)?|"
        r"mock\w*|hateful|swear\w*|curse|profan\w+|harmful|abusive(?:ly)?|toxic"),
        (r"honest(?:ly|y)?|truth(?:ful\w*)?|correct(?:ness)?|factual(?:ly)?|accura\w+", r"lie|lies|lying|"
        r"dishonest(?:ly)?|deceive|deceptive|false|made[- ]up|make things up|invent\w*|fake"),
        (r"simple|simply|plain(?:ly)?|readable", r"technical(?:ly)?|jargon|complicated|convoluted"),
        (r"serious(?:ly)?|sober(?:ly)?|professional(?:ly)?", r"funny|jok\w+|humou?r(?:ous\w*)?|silly|playful(?:ly)?"),
        (r"harmless(?:ness)?|harm(?:ful)?|safe(?:ty|ly)?", r"harmful(?:ly)?|dangerous(?:ly)?|illegal(?:ly)?|"
        r"violent(?:ly)?|unsafe|uncensored|unfiltered|no filter|weapons?|drugs?"),
        (r"fair(?:ly|ness)?|unbiased|neutral(?:ly)?|stereotyp\w+", r"biased|racist|sexist|stereotyp\w+|"
        r"prejudiced|one-sided"),
    )
)  # fmt: skip
_ABOUT_RULES = re.compile(
    r"\b(?:objectives?|instructions?|guidelines?|guard ?rails?|rules?|polic(?:y|ies)|system prompts?|"
    r"system messages?|aligners?|align(?:ed|ment)|"
    r"moderation|restrictions?|filters?|safeguards?|corrections?|corrector|jailbreak\w*|developer mode|"
    r"admin(?:istrator)?|operator|"
    r"override\w*|overrul\w+|disregard\w*|ignor(?:e|es|ing)|bypass\w*|disabl\w+|turn(?:ed)? off|forget|above|"
    r"previous(?:ly)?|earlier|prior|"
    r"harmless\w*|enforce\w*|unchanged|as is|as it is|(?:already|is|are) (?:perfect|fine|compliant|approved|"
    r"exempt)|do not (?:edit|change|correct|flag)|"
    r"never (?:edit|change|correct|flag)|don't (?:edit|change|correct|flag)|flag(?:ged)?|segments?|verdicts?)\b",
    re.IGNORECASE,
)
# A wish yields to an objective that speaks of its subject, unless that was read as the same wish.
_SUBJECTS: Mapping[WishKind, re.Pattern[str]] = MappingProxyType(
    {
        WishKind.NO_LISTS: re.compile(r"\b(?:lists?|bullets?|bulleted|enumerat\w+|numbered|steps)\b", re.I),
        WishKind.NO_EMOJI: re.compile(r"\bemojis?|emoticons?\b", re.I),
        WishKind.NO_EXCLAMATION: re.compile(r"\bexclamation|enthusias\w+|excited|excitement\b", re.I),
        WishKind.NO_MARKDOWN: re.compile(r"\bmarkdown|headings?|bold|formatting\b", re.I),
        WishKind.NO_CONTRACTIONS: re.compile(r"\bcontractions?|informal|casual|colloquial\b", re.I),
        WishKind.LANGUAGE: re.compile(
            r"\b(?:in|into) (?:english|german|french|spanish|italian|portuguese|dutch|[A-Z][a-z]+(?:ish|ese|ian|"
            r"an))\b|\blanguage of\b", re.I
        ),
        WishKind.UPPER_CASE: re.compile(r"\bcapitals?|upper-? ?case|shout\w*\b", re.I),
        WishKind.LOWER_CASE: re.compile(r"\bcapitals?|lower-? ?case|spelling\b", re.I),
        WishKind.NO_QUESTIONS: re.compile(r"\bquestions?\b", re.I),
        WishKind.ENDS_WITH_QUESTION: re.compile(r"\bquestions?\b", re.I),
        WishKind.MAX_WORDS: re.compile(r"\b(?:long|detailed|comprehensive|exhaustive|in[- ]depth|thorough)\b", re.I),
        WishKind.MIN_WORDS: re.compile(r"\b(?:short|brief|concise|terse|succinct|few words)\b", re.I),
    }
)  # fmt: skip
_SAME_SUBJECT = {
    WishKind.LISTS: WishKind.NO_LISTS,
    WishKind.EMOJI: WishKind.NO_EMOJI,
    **dict.fromkeys((WishKind.MAX_SENTENCES, WishKind.MAX_PARAGRAPHS, WishKind.MAX_CHARS), WishKind.MAX_WORDS),
    WishKind.MIN_SENTENCES: WishKind.MIN_WORDS,
}


@dataclass(frozen=True, slots=True)
class InForce:
    """What of all tiers holds together: wishes that rules can check, and words by who said them."""

    wishes: tuple[Wish, ...] = ()
    words: tuple[tuple[WishSource, str], ...] = ()


def contradict(one: Wish, other: Wish) -> bool:
    """Whether no answer meets both."""
    if one.kind is other.kind:
        return one.kind is WishKind.LANGUAGE and not set(one.words) & set(other.words)
    if {one.kind, other.kind} not in _OPPOSITES:
        return False
    most, least = (one, other) if one.kind in MOST else (other, one)
    return most.number < least.number if most.kind in MOST else True


def in_force(operator: Sequence[Objective], tiers: Iterable[tuple[WishSource, Read]]) -> InForce:
    """What holds of `tiers`, the highest first, beside the operator's objectives."""
    above = [objective.text for objective in operator]
    agreed = [wish for text in above for wish in read(text, WishSource.SYSTEM).wishes]
    held: dict[WishKind, Wish] = {}
    words: list[tuple[WishSource, str]] = []
    for source, said in tiers:
        for wish in said.wishes:
            if _yields(wish, above, agreed) or any(contradict(wish, higher) for higher in held.values()):
                continue
            held[wish.kind] = _both(held[wish.kind], wish) if wish.kind in held else wish
        if source is WishSource.SYSTEM:
            above = [
                *above,
                said.words,
            ]  # read for contradictions alone: it is no objective, and not for an aligner's eyes
        elif said.words and not _ABOUT_RULES.search(said.words) and not _opposed(said.words, above):
            words.append((source, said.words))
    return InForce(tuple(held.values()), tuple(words))


def _yields(wish: Wish, operator: Sequence[str], agreed: Sequence[Wish]) -> bool:
    """Whether an objective of the operator stands against a wish."""
    if any(contradict(wish, other) for other in agreed):
        return True
    if wish.kind is WishKind.BANNED_WORDS:
        return any(word.casefold() in text.casefold() for word in wish.words for text in operator)
    subject = _SUBJECTS.get(_SAME_SUBJECT.get(wish.kind, wish.kind))
    if subject is None or any(other.kind is wish.kind for other in agreed):
        return False
    return any(subject.search(text) for text in operator)


def _opposed(words: str, above: Iterable[str]) -> bool:
    """Whether words ask for the opposite of what stands above them."""
    return any(
        (high.search(text) and low.search(words)) or (low.search(text) and high.search(words) and not high.search(text))
        for text in above
        for high, low in _POLES
    )


def _both(one: Wish, other: Wish) -> Wish:
    """Two wishes of one kind that can both hold, as one; it is said where the higher tier says it."""
    if one.kind in MOST:
        return replace(one, number=min(one.number, other.number))
    if one.kind in LEAST:
        return replace(one, number=max(one.number, other.number))
    return (
        replace(one, words=tuple(dict.fromkeys((*one.words, *other.words))))
        if one.kind is WishKind.BANNED_WORDS
        else one
    )
