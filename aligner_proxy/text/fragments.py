"""Fragments: sentences that mean little without the text before them.

"Then let it dry." needs the step before it and the thing that is to dry; "Sure, here is how:" and "Good luck!" only
frame an answer. A sentence is independent if it names what it is about and does not begin in the middle. The patterns
are English; for other languages only sequence words and short sentences are recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from aligner_proxy.text.lists import marks

MIN_WORDS = 3
"""A text with fewer words says nothing: it is a label, a number or a name."""
_SHORT_ANSWER = 20
"""An answer of fewer words is not judged as a whole: each of its few sentences is judged by itself, and two of them say
little of the whole. Banter ("The stairs murdered me.") scored high."""
_EARLY = 6
"""A pronoun within this many words of the beginning refers back; later, the sentence may have named its referent."""
_SHORT = 9
"""Maximum length in words of a sentence that is too short to name a thing and then refer to it."""
_ORDER = re.compile(
    r"(?:and |but |so |now |just )?"
    r"(?:then|next|after (?:that|this|which|it|doing)|afterwards?|finally|lastly|once (?:you|it|this|that|they|the)|"
    r"meanwhile|later|secondly|thirdly|also|additionally|furthermore|moreover|in addition|besides|otherwise|instead|"
    r"therefore|thus|hence|and|but|or|so|because|which|repeat|continue|again|when (?:it|this|that|done|you)|"
    r"dann|danach|anschlie\u00dfend|schlie\u00dflich|zuletzt|au\u00dferdem|und|aber|puis|ensuite|enfin|apr\u00e8s|et|mais|"
    r"luego|despu\u00e9s|finalmente|entonces|y|pero|poi|dopo|infine|e|ma)\b",
    re.IGNORECASE,
)
"""Matches the beginning of a sentence that continues the one before."""
_BACK = re.compile(
    r"\b(?:it|its|this|these|those(?! who| that| of)|they|them|their|such(?! as)|he|she|him|her|"
    r"the (?:former|latter|above|same|rest|other))\b|\bthat(?=[.!,;:?]|$| (?:is|was|will|should|way))",
    re.IGNORECASE,
)
"""Matches words that refer to something named before."""
_OWNER = re.compile(
    r"((?:an?|the|each|every|any|all|most|many|some|no|my|your|our)\s+"
    r"(?!(?:former|latter|above|same|rest|other|others|one|ones|first|second|third|next|last)\b)(?:[\w'\u2019-]+\s+){2,8}?)"
    r"(?:its|their)\b",
    re.IGNORECASE,
)
"""Matches a sentence up to the word for what its subject owns, as in "A loop repeats its body"."""
_DUMMY = re.compile(r"\bit(?:'s| is| was| can be| may be) (?:important|best|possible|necessary|illegal|\w+ to)\b", re.I)
"""Matches "it" without a referent, as in "it is important"."""
_OPENING = re.compile(
    r"(?:sure|certainly|of course|absolutely|okay|ok|alright|all right|understood|got it|hello|hi|hey|greetings|dear|"
    r"thank(?:s| you))\b(?:\W+[\w'\u2019-]+){0,6}\W*|(?:yes|no|well|great)\b(?:\W+(?:sir|there|sure|question))?\W*"
    r"|(?:sure|certainly|of course|absolutely|okay|ok)\b.{0,160}"
    r"|here(?:'s|\u2019s| is| are| you)\b.{0,160}|below (?:is|are)\b.{0,160}|the following\b.{0,160}:",
    re.IGNORECASE | re.DOTALL,
)
"""Matches a sentence that only opens an answer."""
_CLOSING = re.compile(
    r"(?:good luck|enjoy|have (?:fun|a )|happy |i hope|hope (?:this|that|it)|let me know|feel free|"
    r"if you (?:have|need) |(?:best|kind|warm) (?:regards|wishes)|regards|sincerely|yours|stay safe|take care|"
    r"that(?:'s| is) (?:it|all)|there you (?:go|have it)|any (?:other )?questions|is there anything|bye|goodbye|cheers|"
    r"see you)\b.{0,160}",
    re.IGNORECASE | re.DOTALL,
)
"""Matches a sentence that only closes an answer."""
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_UNSPACED = r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
"""A letter of a script without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_IN_ONE = re.compile(f"{_UNSPACED}{{2}}(?={_UNSPACED})")
"""Matches two such letters, about one word, before another."""
_SIGNS = "*_#>\"'\u201c\u201d \t"
"""Signs around a sentence that say nothing."""


def independent_segments(segments: Sequence[str], remaining: Sequence[bool]) -> list[int]:
    """Indexes of the `remaining` segments that are independent, perhaps thanks to an independent one before them."""
    independent: list[int] = []
    for number, text in enumerate(segments):
        if not remaining[number]:
            continue
        if stands_alone(text, follows_independent=bool(independent) and independent[-1] == number - 1):
            independent.append(number)
    return independent


def stands_alone(text: str, *, follows_independent: bool = False) -> bool:
    """Whether a sentence makes sense alone, or directly after one that does (`follows_independent`)."""
    sentence = strip_marks(text)
    words = _WORD.findall(space_words(sentence))
    if len(words) < MIN_WORDS or sentence.endswith((":", "\uff1a")) or text.lstrip().startswith("#"):
        return False
    if _OPENING.fullmatch(sentence) or _CLOSING.fullmatch(sentence):
        return False
    # directly after an independent sentence, what it refers to is there
    return follows_independent or not (_ORDER.match(sentence) or _looks_back(sentence, words))


def space_words(text: str) -> str:
    """The text with a space after about every word, where its script has no spaces."""
    return _IN_ONE.sub(r"\g<0> ", text)


def is_short_answer(texts: Iterable[str]) -> bool:
    """Whether an answer of these segments has too few words to be judged as a whole."""
    return sum(len(space_words(text).split()) for text in texts) < _SHORT_ANSWER


def strip_marks(text: str) -> str:
    """A segment without its list marker and without signs around it."""
    text = text.strip()
    mark = marks.read(text)
    return (text[mark.stop :] if mark is not None else text).strip(_SIGNS)


def _looks_back(sentence: str, words: Sequence[str]) -> bool:
    """Whether a sentence refers to something that it does not name."""
    # what the subject of the sentence owns is named
    owner = _OWNER.match(sentence)
    if owner is not None:
        sentence = owner[1] + sentence[owner.end() :]
    sentence = _DUMMY.sub("", sentence)
    match = _BACK.search(sentence)
    if match is None:
        return False
    return len(words) <= _SHORT or len(_WORD.findall(sentence[: match.start()])) < _EARLY
