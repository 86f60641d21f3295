"""Fragments: sentences that mean little without the text before them.

"Then let it dry." needs the step before it and the thing that is to dry; "Sure, here is how:" and "Good luck!" only
frame an answer. A sentence is independent if it names what it is about and does not begin in the middle. The patterns
are English; for other languages only sequence words and short sentences are recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from aligner_proxy.text.lists import marks
from aligner_proxy.text.structure import FENCES

MIN_WORDS = 3
"""A text with fewer words says nothing: it is a label, a number or a name."""
_SHORT_ANSWER_WORDS = 20
"""An answer of fewer words is not judged as a whole: each of its few sentences is judged by itself, and two of them say
little of the whole. Banter ("The stairs murdered me.") scored high."""
_EARLY_WORDS = 6
"""A pronoun with fewer words before it refers to an earlier sentence; later, its own sentence may name the referent."""
_SHORT_SENTENCE_WORDS = 9
"""Most words of a sentence that is too short to name a thing and then refer to it."""
_CONTINUING_WORD = re.compile(
    r"(?:and |but |so |now |just )?"
    r"(?:then|next|after (?:that|this|which|it|doing)|afterwards?|finally|lastly|once (?:you|it|this|that|they|the)|"
    r"meanwhile|later|secondly|thirdly|also|additionally|furthermore|moreover|in addition|besides|otherwise|instead|"
    r"therefore|thus|hence|and|but|or|so|because|which|repeat|continue|again|when (?:it|this|that|done|you)|"
    r"dann|danach|anschlie\u00dfend|schlie\u00dflich|zuletzt|au\u00dferdem|und|aber|puis|ensuite|enfin|apr\u00e8s|mais|"
    r"et(?! al\b)|"
    # "Y" may also be the letter of an axis or a part of a name
    r"luego|despu\u00e9s|finalmente|entonces|y(?![ \t]+(?-i:[A-Z])|[ \t]+ax[ei]s\b)|pero|poi|dopo|infine|e|ma)\b",
    re.IGNORECASE,
)
"""Matches the beginning of a sentence that continues the one before."""
_REFERRING_WORD = re.compile(
    r"\b(?:it|its|this|these|those(?! who| that| of)|they|them|their|such(?! as)|he|she|him|her|"
    r"the (?:former|latter|above|same|rest|other))\b|\bthat(?=[.!,;:?]|$| (?:is|was|will|should|way))",
    re.IGNORECASE,
)
"""Matches words that refer to something named before."""
_OWNING_SUBJECT = re.compile(
    r"((?:an?|the|each|every|any|all|most|many|some|no|my|your|our)\s+"
    r"(?!(?:former|latter|above|same|rest|other|others|one|ones|first|second|third|next|last)\b)(?:[\w'\u2019-]+\s+){2,8}?)"
    r"(?:its|their)\b",
    re.IGNORECASE,
)
"""Matches a sentence up to the word for what its subject owns, as in "A loop repeats its body"."""
_IMPERSONAL_IT = re.compile(
    r"\bit(?:'s| is| was| can be| may be) (?:important|best|possible|necessary|illegal|\w+ to)\b", re.I
)
"""Matches "it" without a referent, as in "it is important"."""
_GREETING = re.compile(
    r"(?:hello|hi|hey|greetings|dear|thank(?:s| you))\b(?:\W+[\w'\u2019-]+){0,6}\W*"
    r"|(?:yes|no|well|great)\b(?:\W+(?:sir|there|sure|question))?\W*"
    r"|(?:here(?:'s|\u2019s| is| are| you| we)|below (?:is|are)|the following)\b[^:]{0,160}:?\W*"
    r"|(?:first(?:ly| of all)?|in (?:short|summary|brief|conclusion)|to (?:sum up|begin with)|so|and|but)\W*"
    r"|(?:(?:that(?:'s|\u2019s| is)|what) an? )?(?:very )?(?:good|great|excellent|interesting|fair) question\b.{0,40}"
    r"|let(?:'s|\u2019s| me| us) (?:explain|get started|begin|start|see|go|dive in|help)\b.{0,40}"
    r"|(?:i|we)(?:'d|\u2019d|'m|\u2019m|'ll|\u2019ll| would| am| will| can)? (?:be )?"
    r"(?:happy|glad|delighted|pleased|love) to (?:help|assist|explain|answer|do)\b[^.,;:]{0,80}\W*"
    r"|(?:gerne?|klar|nat\u00fcrlich|selbstverst\u00e4ndlich|bien s\u00fbr|volontiers|claro|por supuesto|certo)"
    r"(?: doch)?\W*|so geht (?:es|das)\W*|you(?:'ve|\u2019ve)? got it\W*",
    re.IGNORECASE | re.DOTALL,
)
"""Matches a sentence that only opens an answer."""
_OPENER = re.compile(
    r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|alright|all right|understood|got it)\b[\s\W]*",
    re.IGNORECASE,
)
"""Matches words that open an answer, perhaps before one that says something."""
_OFFER_OF_HELP = re.compile(
    r"(?:i|we|i'\w+|i\u2019\w+|let|happy|glad|no problem|my pleasure|anything|as you)\b.{0,160}", re.I | re.DOTALL
)
"""Matches what follows an opener ("Sure,") in a sentence that only offers help."""
_CLOSING = re.compile(
    r"(?:good luck|get well|enjoy|have (?:fun|a )|happy |i hope|hope (?:this|that|it)|let me know|feel free|"
    r"if you (?:have|need) |(?:best|kind|warm) (?:regards|wishes)|regards|sincerely|yours|stay safe|take care|"
    r"that(?:'s| is) (?:it|all)|there you (?:go|have it)|any (?:other )?questions|is there anything|bye|goodbye|cheers|"
    r"see you)\b.{0,160}",
    re.IGNORECASE | re.DOTALL,
)
"""Matches a sentence that only closes an answer."""
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_UNSPACED = r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
"""A letter of a script without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_UNSPACED_WORD = re.compile(f"{_UNSPACED}{{2}}(?={_UNSPACED})")
"""Matches two letters of a script without spaces, about one word, before a third letter."""
_EDGE_SIGNS = "*_#>\"'\u201c\u201d \t"
"""Signs around a sentence that say nothing."""


def independent_segments(segments: Sequence[str], remaining: Sequence[bool]) -> list[int]:
    """Indexes of the segments that still make sense if only part of the answer is delivered.

    `remaining` says of each segment whether it is delivered. A segment that refers to the segment before it ("Then let
    it dry.") makes sense only if that segment is delivered and makes sense.
    """
    independent: list[int] = []
    for index, text in enumerate(segments):
        if not remaining[index]:
            continue
        follows_independent = bool(independent) and independent[-1] == index - 1
        if stands_alone(text, follows_independent=follows_independent):
            independent.append(index)
    return independent


def stands_alone(text: str, *, follows_independent: bool = False) -> bool:
    """Whether a sentence makes sense alone.

    `follows_independent` says whether it comes directly after a sentence that makes sense; then it may refer to that.
    """
    sentence = strip_marks(text)
    if count_words(sentence) < MIN_WORDS or is_frame(text):
        return False
    # a code block needs no sentence before it
    is_code = text.lstrip().startswith(FENCES)
    return follows_independent or is_code or not (goes_on(sentence) or looks_back(sentence))


def is_frame(text: str) -> bool:
    """Whether a sentence only opens or closes an answer, is a heading or announces what follows."""
    sentence = strip_marks(text)
    if sentence.endswith((":", "\uff1a", ",")) or text.lstrip().startswith("#") or _CLOSING.fullmatch(sentence):
        return True
    opener = _OPENER.match(sentence)
    rest = sentence[opener.end() :] if opener else sentence
    if opener and (count_words(rest) < MIN_WORDS or _OFFER_OF_HELP.fullmatch(rest)):
        return True
    return _GREETING.fullmatch(rest) is not None


def goes_on(sentence: str) -> bool:
    """Whether a sentence begins with a word such as "then", which continues the sentence before."""
    return _CONTINUING_WORD.match(sentence) is not None


def count_words(text: str) -> int:
    """The number of words of a text."""
    return len(_WORD.findall(space_words(text)))


def space_words(text: str) -> str:
    """The text with a space after every two letters of a script without spaces, so about after each word."""
    return _UNSPACED_WORD.sub(r"\g<0> ", text)


def is_short_answer(texts: Iterable[str]) -> bool:
    """Whether an answer of these segments has too few words to be judged as a whole."""
    return sum(len(space_words(text).split()) for text in texts) < _SHORT_ANSWER_WORDS


def strip_marks(text: str) -> str:
    """A segment without its list marker and without signs around it."""
    text = text.strip()
    mark = marks.read(text)
    words = text if mark is None else text[mark.stop :]
    return words.strip(_EDGE_SIGNS)


def looks_back(sentence: str) -> bool:
    """Whether a sentence refers to something that it does not name, for example with "it"."""
    word_count = count_words(sentence)
    # the "its" in "A loop repeats its body" refers to the sentence's own subject, so it is left out
    subject = _OWNING_SUBJECT.match(sentence)
    if subject is not None:
        sentence = subject[1] + sentence[subject.end() :]
    sentence = _IMPERSONAL_IT.sub("", sentence)
    match = _REFERRING_WORD.search(sentence)
    if match is None:
        return False
    words_before = len(_WORD.findall(sentence[: match.start()]))
    return word_count <= _SHORT_SENTENCE_WORDS or words_before < _EARLY_WORDS
