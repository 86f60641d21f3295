"""Types for preferences of a request: kinds, sources, and what each allows an edit to do despite the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aligner_proxy.text.lengths import LENGTHS
from aligner_proxy.types import Allowance, GateRule, LengthUnit


class PreferenceSource(StrEnum):
    """Where a preference was stated: in the preference field, as the persona, or in the system prompt."""

    REQUEST = "request"
    PERSONA = "persona"
    SYSTEM = "system"


class PreferenceKind(StrEnum):
    """Kinds of preferences; the value is the objective's name in headers and logs."""

    WORDED = "preference"
    PERSONA = "persona"
    MAX_WORDS = "max-words"
    MAX_SENTENCES = "max-sentences"
    MAX_PARAGRAPHS = "max-paragraphs"
    MAX_CHARS = "max-characters"
    MIN_WORDS = "min-words"
    MIN_SENTENCES = "min-sentences"
    NO_LISTS = "no-lists"
    LISTS = "lists"
    NO_EMOJI = "no-emoji"
    EMOJI = "emoji"
    NO_EXCLAMATION = "no-exclamation-marks"
    NO_MARKDOWN = "no-markdown"
    NO_CONTRACTIONS = "no-contractions"
    NO_QUESTIONS = "no-questions"
    ENDS_WITH_QUESTION = "ends-with-question"
    LANGUAGE = "language"
    BANNED_WORDS = "banned-words"
    UPPER_CASE = "upper-case"
    LOWER_CASE = "lower-case"


IN_WORDS = frozenset({PreferenceKind.WORDED, PreferenceKind.PERSONA})
"""Free texts; no rule can check whether they are met."""
FIXABLE = frozenset(
    {
        PreferenceKind.NO_LISTS,
        PreferenceKind.NO_EMOJI,
        PreferenceKind.NO_EXCLAMATION,
        PreferenceKind.NO_MARKDOWN,
        PreferenceKind.NO_CONTRACTIONS,
        PreferenceKind.UPPER_CASE,
        PreferenceKind.LOWER_CASE,
    }
)
"""Rules can meet these without changing words, so the aligner is not asked (fixes.py)."""
MOST: Mapping[PreferenceKind, LengthUnit] = {
    PreferenceKind.MAX_WORDS: LengthUnit.WORDS,
    PreferenceKind.MAX_SENTENCES: LengthUnit.SENTENCES,
    PreferenceKind.MAX_PARAGRAPHS: LengthUnit.PARAGRAPHS,
    PreferenceKind.MAX_CHARS: LengthUnit.CHARACTERS,
}
LEAST: Mapping[PreferenceKind, LengthUnit] = {
    PreferenceKind.MIN_WORDS: LengthUnit.WORDS,
    PreferenceKind.MIN_SENTENCES: LengthUnit.SENTENCES,
}
"""What each bound of length counts."""
_RULES: Mapping[PreferenceKind, tuple[GateRule, ...]] = {
    PreferenceKind.NO_LISTS: (GateRule.LOST_ITEM,),
    PreferenceKind.LANGUAGE: (GateRule.LANGUAGE, GateRule.SCRIPT),
}
"""Gate rules that an edit must be allowed to break to meet the preference."""


@dataclass(frozen=True, slots=True)
class Preference:
    """One preference.

    `number` is the bound of a length; `words` are banned words, or codes of a language.
    """

    kind: PreferenceKind
    source: PreferenceSource = PreferenceSource.REQUEST
    number: int = 0
    words: tuple[str, ...] = ()

    @property
    def checkable(self) -> bool:
        """Whether a rule can check if an answer meets the preference."""
        return self.kind not in IN_WORDS

    @property
    def fixable(self) -> bool:
        """Whether a rule can fulfil the preference without changing words."""
        return self.kind in FIXABLE

    @property
    def allowance(self) -> Allowance:
        """What an edit for the preference may do that the gate otherwise refuses; nothing for free texts."""
        upper_bound = (MOST[self.kind], self.number) if self.kind in MOST else None
        banned_words = self.words if self.kind is PreferenceKind.BANNED_WORDS else ()
        return Allowance(_RULES.get(self.kind, ()), upper_bound, banned_words)


def length(kind: PreferenceKind, text: str) -> int:
    """Length of a text in the unit that this kind of bound counts."""
    return LENGTHS[MOST.get(kind) or LEAST[kind]](text)
