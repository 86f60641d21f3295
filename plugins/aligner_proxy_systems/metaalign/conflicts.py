"""Conflicts of preferences: the operator's objectives come first, then the system prompt, then the user. These are the
tiers, the highest first.

1. A preference that contradicts an objective of the operator (enforced, the route's, or a configured one that was
   requested) is dropped. So is a checkable preference if an objective mentions its subject without agreeing with it.
2. A preference that contradicts a preference of a higher tier is dropped; within a tier the later preference counts.
3. Compatible preferences are combined: the tighter of two bounds, and both of two lists of banned words.
4. A text that mentions objectives, rules or instructions instead of the answer is dropped as a whole.

Nothing here can remove an objective: preferences are only ever added after them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from aligner_proxy.types import Objective
from aligner_proxy_systems.metaalign.parser import ParsedText, parse
from aligner_proxy_systems.metaalign.types import LEAST, MOST, Preference, PreferenceKind, PreferenceSource

_OPPOSITES = (
    {PreferenceKind.NO_LISTS, PreferenceKind.LISTS},
    {PreferenceKind.NO_EMOJI, PreferenceKind.EMOJI},
    {PreferenceKind.UPPER_CASE, PreferenceKind.LOWER_CASE},
    {PreferenceKind.NO_QUESTIONS, PreferenceKind.ENDS_WITH_QUESTION},
    {PreferenceKind.MAX_WORDS, PreferenceKind.MIN_WORDS},
    {PreferenceKind.MAX_SENTENCES, PreferenceKind.MIN_SENTENCES},
)
# Pairs of opposites: a text with words of one side contradicts a text of a higher tier with words of the other side.
_OPPOSITE_WORDS = tuple(
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
# A preference is dropped if an objective mentions its subject, unless the objective was parsed as the same preference.
_SUBJECTS: Mapping[PreferenceKind, re.Pattern[str]] = {
    PreferenceKind.NO_LISTS: re.compile(r"\b(?:lists?|bullets?|bulleted|enumerat\w+|numbered|steps)\b", re.I),
    PreferenceKind.NO_EMOJI: re.compile(r"\b(?:emojis?|emoticons?)\b", re.I),
    PreferenceKind.NO_EXCLAMATION: re.compile(
        r"\b(?:exclamations?|enthusias\w+|excited(?:ly)?|excitement)\b", re.I
    ),
    PreferenceKind.NO_MARKDOWN: re.compile(
        r"\b(?:markdown|(?:sub)?headings?|bold(?:ed|face|ly)?|(?:re)?formatting)\b", re.I
    ),
    PreferenceKind.NO_CONTRACTIONS: re.compile(
        r"\b(?:contractions?|informal(?:ly|ity)?|casual(?:ly)?|colloquial\w*)\b", re.I
    ),
    PreferenceKind.LANGUAGE: re.compile(
        r"\b(?:in|into) (?:english|german|french|spanish|italian|portuguese|dutch|[A-Z][a-z]+(?:ish|ese|ian|"
        r"an))\b|\blanguage of\b", re.I
    ),
    PreferenceKind.UPPER_CASE: re.compile(r"\b(?:capital\w*|upper-? ?case\w*|shout\w*)\b", re.I),
    PreferenceKind.LOWER_CASE: re.compile(r"\b(?:capital\w*|lower-? ?case\w*|(?:mis)?spelling)\b", re.I),
    PreferenceKind.NO_QUESTIONS: re.compile(r"\bquestions?\b", re.I),
    PreferenceKind.ENDS_WITH_QUESTION: re.compile(r"\bquestions?\b", re.I),
    PreferenceKind.MAX_WORDS: re.compile(
        r"\b(?:long|detailed|comprehensive|exhaustive|in[- ]depth|thorough)\b", re.I
    ),
    PreferenceKind.MIN_WORDS: re.compile(r"\b(?:short|brief|concise|terse|succinct|few words)\b", re.I),
}  # fmt: skip
_SAME_SUBJECT = {
    PreferenceKind.LISTS: PreferenceKind.NO_LISTS,
    PreferenceKind.EMOJI: PreferenceKind.NO_EMOJI,
    **dict.fromkeys(
        (PreferenceKind.MAX_SENTENCES, PreferenceKind.MAX_PARAGRAPHS, PreferenceKind.MAX_CHARS),
        PreferenceKind.MAX_WORDS,
    ),
    PreferenceKind.MIN_SENTENCES: PreferenceKind.MIN_WORDS,
}


@dataclass(frozen=True, slots=True)
class ResolvedPreferences:
    """The preferences of all tiers that apply together: checkable preferences, and free texts with their source."""

    preferences: tuple[Preference, ...] = ()
    words: tuple[tuple[PreferenceSource, str], ...] = ()


def contradict(one: Preference, other: Preference) -> bool:
    """Whether no answer can meet both: "at most 80 words" and "at least 200 words" contradict each other."""
    # other preferences of one kind are combined, see `_combine`
    if one.kind is other.kind:
        return one.kind is PreferenceKind.LANGUAGE and not set(one.words) & set(other.words)
    if {one.kind, other.kind} not in _OPPOSITES:
        return False
    if one.kind in MOST:
        return one.number < other.number
    if other.kind in MOST:
        return other.number < one.number
    return True


def resolve_conflicts(
    operator: Sequence[Objective], tiers: Iterable[tuple[PreferenceSource, ParsedText]]
) -> ResolvedPreferences:
    """Return the preferences of `tiers` (the highest first) that contradict neither each other nor the operator.

    `operator` are the operator's objectives.
    """
    higher_texts = [objective.text for objective in operator]
    # preferences that the objectives state; their source is never read
    operator_preferences: list[Preference] = []
    for text in higher_texts:
        operator_preferences += parse(text, PreferenceSource.SYSTEM).preferences
    preference_by_kind: dict[PreferenceKind, Preference] = {}
    free_texts: list[tuple[PreferenceSource, str]] = []
    for source, parsed in tiers:
        for preference in parsed.preferences:
            if _must_yield(preference, higher_texts, operator_preferences):
                continue
            if any(contradict(preference, higher) for higher in preference_by_kind.values()):
                continue
            kind = preference.kind
            higher_preference = preference_by_kind.get(kind)
            preference_by_kind[kind] = _combine(higher_preference, preference) if higher_preference else preference
        if source is PreferenceSource.SYSTEM:
            # a system prompt's free text only serves to find contradictions; it never becomes an objective
            higher_texts = [*higher_texts, parsed.words]
        # a free text must say something, and must not be about rules
        elif parsed.words and not _ABOUT_RULES.search(parsed.words) and not _contradicts(parsed.words, higher_texts):
            free_texts.append((source, parsed.words))
    return ResolvedPreferences(tuple(preference_by_kind.values()), tuple(free_texts))


def _must_yield(
    preference: Preference, operator_texts: Sequence[str], operator_preferences: Sequence[Preference]
) -> bool:
    """Whether a preference must be dropped because of an objective of the operator.

    `operator_preferences` are the preferences that the texts of the objectives (`operator_texts`) state themselves. A
    preference also yields to an objective about the same subject, unless one states a preference of the same kind.
    """
    if any(contradict(preference, other) for other in operator_preferences):
        return True
    # the subjects of a list of banned words are the words themselves
    if preference.kind is PreferenceKind.BANNED_WORDS:
        return any(word.casefold() in text.casefold() for word in preference.words for text in operator_texts)
    subject_kind = _SAME_SUBJECT.get(preference.kind, preference.kind)
    subject = _SUBJECTS.get(subject_kind)
    if subject is None or any(other.kind is preference.kind for other in operator_preferences):
        return False
    return any(subject.search(text) for text in operator_texts)


def _contradicts(free_text: str, higher_texts: Iterable[str]) -> bool:
    """Whether a free text asks for the opposite of a text of a higher tier."""
    for higher_text in higher_texts:
        for first, second in _OPPOSITE_WORDS:
            # a higher text with words of both sides ("polite, never rude") counts as asking for the first side
            if first.search(higher_text):
                contradicts = second.search(free_text) is not None
            else:
                contradicts = second.search(higher_text) is not None and first.search(free_text) is not None
            if contradicts:
                return True
    return False


def _combine(one: Preference, other: Preference) -> Preference:
    """Combine two compatible preferences of one kind; `one` is of the higher tier, whose source the result has."""
    if one.kind in MOST:
        return replace(one, number=min(one.number, other.number))
    if one.kind in LEAST:
        return replace(one, number=max(one.number, other.number))
    if one.kind is PreferenceKind.BANNED_WORDS:
        return replace(one, words=tuple(dict.fromkeys((*one.words, *other.words))))
    return one
