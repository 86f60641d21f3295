"""Short answers: sentences that say nothing alone, but answer the question that was asked.

"Wipe them with a dry brush." answers "How do I clean suede shoes?", because the question names what "them" means. A
word such as "it" may also refer to a removed sentence before it. So a sentence with such a word counts as an answer
only before the first removed sentence, or if it repeats a word of the question, or if the removed sentences are only
about the reader. Whether a label, a number or a name is an answer depends on what the question asks for.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache

from aligner_proxy.text import fragments
from aligner_proxy.text.abbreviations import word_set
from aligner_proxy.text.judged_words import is_row
from aligner_proxy.text.structure import FENCES, split

_QUESTION_FOR_FACT = re.compile(
    r"(?:(?:and|but|so|ok|okay|well|hi|hello|please)\b\W*)?(?:(?:at|in|on|for|from|to|with|by|of)\s+)?"
    r"(?:who|whom|whose|what|what's|who's|where's|when's|which|where|when|how (?:many|much|long|often|old|far|big|tall|"
    r"high|late|early|soon|fast|hot|cold|deep|heavy|wide)|wer|wen|wem|was|wo|wann|welche[rsnm]?|wie "
    r"(?:viel|viele|lange|oft|alt|weit|hoch|teuer)|qui|que|quel|quelle|quels|quelles|o\u00f9|quand|combien|qui\u00e9n|qu\u00e9|cu\u00e1l|"
    r"d\u00f3nde|cu\u00e1ndo|cu\u00e1nt[oa]s?|chi|quale|dove|quando|quant[oiae])\b",
    re.IGNORECASE,
)
"""Matches a question that a name, a number or a time answers."""
_YES_NO_QUESTION = re.compile(
    r"(?:(?:and|but|so|ok|okay|well|hi|hello)\b\W*)?"
    r"(?:(?:is|are|am|was|were|does|do|did|has|have|had|may|must|should|shall|isn't|aren't|doesn't|don't|didn't)\b"
    r"|(?:can|could|will|would|won't|can't)\b(?! you\b)"
    r"|(?:ist|sind|hat|haben|kann|k\u00f6nnen|darf|soll|wird|gibt|est-ce|puis-je|peut-on)\b)",
    re.IGNORECASE,
)
"""Matches a question that "yes" or "no" answers; "Can you help me?" asks for help."""
_TWO_WORD_ORDER = re.compile(r"[^\W\d_][\w'\u2019-]*\s+(?:it|them|him|her|this|that|one|both)\W*", re.IGNORECASE)
"""Matches two words that tell what to do with what the question names, such as "Oil it."."""
_BECAUSE = re.compile(r"(?:because|weil|parce que|porque|perch\u00e9)\b", re.IGNORECASE)
_WHY = re.compile(r"\b(?:why|how come|warum|weshalb|wieso|pourquoi|por qu\u00e9|perch\u00e9)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{3,}")
_FUNCTION_WORDS = word_set(
    "the and for are you your can how what when where which who why does did this that with from have has was were "
    "will would should could into about them they its our make made get got use take want need there their any some "
    "not but all one out put way best good thing give know tell help please done doing"
)
_STEM_LETTERS = 4
"""Words that agree in so many first letters count as the same word, such as "open" and "opens"."""
_YES_OR_NO = re.compile(
    r"(?:yes|no|never|always|sure|certainly|of course|definitely|not at all|of course not|not yet|ja|nein|oui|"
    r"absolutely|non|s\u00ed|s\u00ec|nee|sim|n\u00e3o)\W*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\W{0,3}\d[\d.,:/ -]*\d\W{0,3}")
_SINGLE_DIGIT = re.compile(
    r"(?:[*_$]{1,2}|[-+\u2212\u20ac\u00a3$])?\d(?:[*_$]{1,2}| ?[%\u20ac\u00a3\u00b0])?!?(?P<stop>\.?)"
)
"""Matches a single digit that may be an answer; a digit in brackets or behind "#" may not."""
_QUESTION_FOR_NUMBER = re.compile(
    r"\b(?:how (?!do|can|to\b)\w|wie (?:viel|lang|oft|alt|weit|hoch)|combien|cu\u00e1nt|quant)|\d", re.IGNORECASE
)
"""Matches a question for a number."""
_CODE_STARTS = (*FENCES, "`")


class QuestionKind(Enum):
    """What a question asks for."""

    FACT = auto()
    CHOICE = auto()
    OTHER = auto()


def answers_question(text: str, question: str, *, may_refer: bool = True) -> bool:
    """Whether a sentence answers `question`, or makes sense without any question.

    `may_refer` says whether "it" can only mean what the question names, not something that was removed before the
    sentence.
    """
    if fragments.stands_alone(text):
        return True
    if not question.strip():
        return False
    kind = _find_kind(question)
    sentence = fragments.strip_marks(text)
    if kind is QuestionKind.CHOICE and is_yes_or_no(text):
        return True
    if fragments.is_frame(text) or (fragments.goes_on(sentence) and not _gives_reason(sentence, question)):
        return False
    repeats_word = bool(_list_stems(sentence) & _list_stems(question))
    if fragments.looks_back(sentence) and not (may_refer or repeats_word):
        return False
    if _fits_question(text, sentence, kind):
        return True
    return kind is QuestionKind.FACT and _is_digit(text.strip(), question)


def is_full_row(text: str, text_before: str) -> bool:
    """Whether a segment is a row of a table with words or numbers in several cells, and follows another row."""
    if not (is_row(text) and is_row(text_before)):
        return False
    return sum(any(map(str.isalnum, cell)) for cell in text.split("|")) > 1


def is_yes_or_no(text: str) -> bool:
    """Whether a sentence is a bare "yes" or "no"."""
    return _YES_OR_NO.fullmatch(fragments.strip_marks(text)) is not None


def _gives_reason(sentence: str, question: str) -> bool:
    """Whether the question asks why and the sentence begins with "because"."""
    return _BECAUSE.match(sentence) is not None and _WHY.search(question) is not None


def _fits_question(text: str, sentence: str, kind: QuestionKind) -> bool:
    """Whether `text` has what a question of this kind asks for; `sentence` is `text` without list mark and emphasis."""
    if fragments.count_words(sentence) >= fragments.MIN_WORDS or text.lstrip().startswith(_CODE_STARTS):
        return True
    if kind is QuestionKind.OTHER:
        return _TWO_WORD_ORDER.fullmatch(sentence) is not None
    if any(char.isalpha() for char in sentence):
        return True
    return kind is QuestionKind.FACT and _NUMBER.fullmatch(text.strip()) is not None


def _is_digit(text: str, question: str) -> bool:
    """Whether a text is a single digit. With a full stop ("3.") it counts only if the question asks for a number."""
    digit = _SINGLE_DIGIT.fullmatch(text)
    return digit is not None and (not digit["stop"] or _QUESTION_FOR_NUMBER.search(question) is not None)


@lru_cache(maxsize=4)
def _find_kind(question: str) -> QuestionKind:
    """What the last question of a text asks for; without a question mark the last sentence counts as the question."""
    sentences = [segment.text.strip() for segment in split(question)]
    questions = [sentence for sentence in sentences if sentence.endswith("?")]
    last_question = (questions or sentences)[-1]
    if _QUESTION_FOR_FACT.match(last_question):
        return QuestionKind.FACT
    return QuestionKind.CHOICE if _YES_NO_QUESTION.match(last_question) else QuestionKind.OTHER


@lru_cache(maxsize=8)
def _list_stems(text: str) -> frozenset[str]:
    """The first letters of the words of a text, without function words such as "the"."""
    words = (word.casefold() for word in _WORD.findall(text))
    return frozenset(word[:_STEM_LETTERS] for word in words if word not in _FUNCTION_WORDS)
