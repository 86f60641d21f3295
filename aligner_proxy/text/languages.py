"""Detection of the languages and scripts of a text, by its letters and small words.

Only clear cases count: a language of the list below that many of the words belong to, or a script of its own. Languages
that share their small words, short texts, and languages that are not listed stay unknown.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import yaml

from aligner_proxy.text.facts import WEB, prose
from aligner_proxy.text.structure import Segment, split

_TABLE = Path(__file__).with_suffix(".yaml")
_SMALL: dict[str, frozenset[str]] = {
    language: frozenset(words.split()) for language, words in yaml.safe_load(_TABLE.read_text(encoding="utf-8")).items()
}
LANGUAGES = tuple(_SMALL)
"""Those that are told apart by their small words, by their codes."""
_SPOKEN_IN: dict[str, list[str]] = {}
for _language, _small in _SMALL.items():
    for _small_word in _small:
        _SPOKEN_IN.setdefault(_small_word, []).append(_language)
_WORD = re.compile(r"[^\W\d_]+")
_FEWEST_WORDS = 3
_SHARE = 0.2
_LEAD = 1.5
_CLEAR_SIGNS = 2
_LETTERS = 3
_LATIN = "LATIN"
# Han characters are written among kana and beside Hangul: one script as far as a change of script is concerned.
_SAME = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "BOPOMOFO": "CJK", "IDEOGRAPHIC": "CJK"}
_ANYWHERE = frozenset({"MODIFIER", "COMBINING", "MASCULINE", "FEMININE", "MICRO", "OHM", "DOUBLE-STRUCK", "SCRIPT"})
_SAMPLE = 2_000
"""Characters of a long text that are read from each of three places."""
_SCRIPT_OF = {
    **dict.fromkeys(("zh", "ja"), "CJK"),
    "ko": "HANGUL",
    **dict.fromkeys(("ru", "uk", "bg", "be", "mk", "sr", "kk"), "CYRILLIC"),
    **dict.fromkeys(("ar", "fa", "ur"), "ARABIC"),
    **dict.fromkeys(("hi", "mr", "ne"), "DEVANAGARI"),
    "el": "GREEK",
    "he": "HEBREW",
    "th": "THAI",
    "ka": "GEORGIAN",
    "hy": "ARMENIAN",
    "bn": "BENGALI",
    "ta": "TAMIL",
    "te": "TELUGU",
    "gu": "GUJARATI",
    "pa": "GURMUKHI",
    "kn": "KANNADA",
    "ml": "MALAYALAM",
    "am": "ETHIOPIC",
    "my": "MYANMAR",
    "km": "KHMER",
    "lo": "LAO",
    "si": "SINHALA",
}
"""Languages with letters other than Latin ones, each with what `language` calls its letters."""
_STYLES = frozenset(
    {
        "MATHEMATICAL",
        "FULLWIDTH",
        "CIRCLED",
        "SQUARED",
        "PARENTHESIZED",
        "NEGATIVE",
        "SUPERSCRIPT",
        "SUBSCRIPT",
        "OUTLINED",
    }
)
"""First words of the names of letters that only look different."""
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_ASCII_LETTERS = re.compile(r"[A-Za-z]+")


def scripts(text: str) -> set[str]:
    """Every script that the text has a letter of."""
    return {script for script, count in _counts(text).items() if count}


def written_in(text: str) -> set[str]:
    """The scripts that a text has several letters of; single letters (pi, mu) are symbols."""
    return {script for script, count in _counts(text).items() if count >= _LETTERS}


def _counts(text: str) -> Counter[str]:
    counts = Counter[str]()
    for char, count in Counter(_NOT_ASCII.findall(text)).items():
        if char.isalpha():
            counts[_script(char)] += count
    counts[_LATIN] += sum(map(len, _ASCII_LETTERS.findall(text)))
    return Counter({script: count for script, count in counts.items() if script not in _ANYWHERE})


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    first = unicodedata.name(char, "UNKNOWN").partition(" ")[0]
    return _SAME.get(first, first)


def language(text: str) -> str | None:
    """The language of a text, or a script that is not Latin; None when neither is clear."""
    if text.isascii():
        return _by_small_words(_WORD.findall(text.casefold()))
    counts = _counts(text)
    if not counts or not counts.total():
        return None
    script, letters = counts.most_common(1)[0]
    if script != _LATIN:
        return script if letters >= _LETTERS else None
    return _by_small_words(_WORD.findall(text.casefold()))


def _by_small_words(words: list[str]) -> str | None:
    if len(words) < _FEWEST_WORDS:
        return None
    (best, most), (_, second) = _hits(words).most_common(2)
    clear = most >= _FEWEST_WORDS and most >= _SHARE * len(words) and most >= _LEAD * second
    return best if clear else None


def _hits(words: list[str]) -> Counter[str]:
    hits = Counter(dict.fromkeys(_SMALL, 0))
    for word in words:
        hits.update(_SPOKEN_IN.get(word, ()))
    return hits


def foreign(text: str, known: set[str], letters: set[str]) -> bool:
    """Whether a text is in none of the `known` languages; `letters` are non-ASCII letters already in use.

    Comparing needs less evidence than naming: no small word of a known language alone, and small words of another
    language or new letters.
    """
    clear = language(text)
    if clear is not None:
        return clear not in known
    words = _WORD.findall(text.casefold())
    native = frozenset[str]().union(*(_SMALL.get(name, ()) for name in known))
    other = frozenset[str]().union(*(small for name, small in _SMALL.items() if name not in known))
    if len(words) < _FEWEST_WORDS or any(word in native and word not in other for word in words):
        return False
    # Single letters are also what is left of "'s" and of initials.
    signs = sum(len(word) > 1 and word in other and word not in native for word in words)
    new = sum(letter not in letters for letter in odd_letters(text))
    return signs >= _CLEAR_SIGNS or new >= _CLEAR_SIGNS or (signs > 0 and len(words) > _FEWEST_WORDS)


def odd_letters(text: str) -> list[str]:
    """Every letter outside ASCII, in lower case."""
    return [char for char in _NOT_ASCII.findall(text.casefold()) if char.isalpha()]


def spoken(text: str) -> str | None:
    """The language of a whole text by its prose, or its script; None where it is short or unclear.

    Of a long text the beginning, the middle and the end are read.
    """
    if len(text) > 3 * _SAMPLE:
        middle = len(text) // 2
        text = "\n".join((text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:]))
    return language(WEB.sub(" ", prose(text)))


def is_among(name: str, known: Collection[str]) -> bool:
    """Whether a language or script, as `spoken` names it, is one of these languages or may be.

    A language that is not told apart by its small words could be taken for another one in Latin letters.
    """
    if name in _STYLES:
        return True
    if name in _SMALL:
        return name in known or any(code not in _SMALL and code not in _SCRIPT_OF for code in known)
    return any(_SCRIPT_OF.get(code) == name for code in known)


def languages(text: str) -> set[str]:
    """Every language that some sentence of the text, or the text as a whole, is clearly written in."""
    return {name for piece in passages(text) if (name := language(piece)) is not None}


def passages(text: str) -> list[str]:
    """The text without code and addresses, as a whole and sentence by sentence."""
    text = WEB.sub(" ", prose(text))
    return [text, *(piece.text for piece in split(text))]


def foreign_segments(text: str, known: Collection[str]) -> list[Segment]:
    """The segments of a text that are in none of the `known` languages; none where nobody says what is known.

    A sentence shows its language by less than a whole text, so it is compared: it has several small words of one other
    language, and none of those that are known.
    """
    if not known:
        return []
    return [piece for piece in split(text) if _is_foreign(piece.text, known)]


def _is_foreign(sentence: str, known: Collection[str]) -> bool:
    sentence = WEB.sub(" ", prose(sentence))
    name = language(sentence)
    if name is not None:
        return not is_among(name, known)
    words = _WORD.findall(sentence.casefold())
    if len(words) < _FEWEST_WORDS or any(code not in _SMALL and code not in _SCRIPT_OF for code in known):
        return False
    native = frozenset[str]().union(*(_SMALL.get(code, ()) for code in known))
    hits = _hits([word for word in words if word not in native])
    most = max(hits.values())
    return most >= _CLEAR_SIGNS and most >= _SHARE * len(words) and not any(word in native for word in words)
