"""Detection of the languages and scripts of a text, by its letters and small words.

Only clear cases count: a language of the list below that many of the words belong to, or a script of its own. Languages
that share their small words, short texts, and languages that are not listed stay unknown.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
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
# Words of sentences that speak to somebody, as insults do. For longer texts the small words are enough.
_ADDRESSING = {
    "de": "du dich dir dein deine deinen deinem deiner deines bist hast wirst kannst euch kein keine keinen keiner "
    "mich mir weg zur\u00fcck wie so an",
    "fr": "tu te toi ton ta tes es as \u00eates votre vos n'es moi me sale va d'une quel quelle",
    "es": "t\u00fa eres te ti tu tus tienes vete me das qu\u00e9 toda nadie porque demasiado",
    "pt": "tu te ti teu tua \u00e9s tens voc\u00ea seus vai me ningu\u00e9m porque demais que",
    "it": "tu te ti tuo tua tuoi sei hai vai mi nessuno perch\u00e9 troppo che",
    "nl": "jij je jou jouw bent hebt geen niemand omdat te zo",
    "pl": "ty ci ci\u0119 tw\u00f3j twoja twoje jeste\u015b masz nikt bo",
    "sv": "du dig din ditt dina \u00e4r har ingen s\u00e5",
}
_SHOWN_BY: dict[str, frozenset[str]] = {}
"""Languages by the words that show them in a sentence."""
for _language in {*_SMALL, *_ADDRESSING}:
    for _word_of_it in (*_SMALL.get(_language, ()), *_ADDRESSING.get(_language, "").split()):
        _SHOWN_BY[_word_of_it] = _SHOWN_BY.get(_word_of_it, frozenset()) | {_language}
for _word_of_it in ("over", "bent", "per"):  # English words, too, that say nothing of another language
    _SHOWN_BY[_word_of_it] = _SHOWN_BY.get(_word_of_it, frozenset()) | {"en"}
_AGAINST_KNOWN = 3
"""So many signs of another language weigh as much as one word of a known one: a sentence may name things of others."""
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
_KNOWN_CHARS = 400
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


def scripts_in_use(text: str) -> set[str]:
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
    return _clear_language(len(words), _hits(words))


def _clear_language(words: int, hits: Counter[str]) -> str | None:
    """The language that so many of so many words belong to that no other one may be meant."""
    (best, most), (_, second) = Counter({**dict.fromkeys(_SMALL, 0), **hits}).most_common(2)
    clear = most >= _FEWEST_WORDS and most >= _SHARE * words and most >= _LEAD * second
    return best if clear else None


def _hits(words: list[str]) -> Counter[str]:
    hits = Counter(dict.fromkeys(_SMALL, 0))
    for word, count in Counter(words).items():
        for name in _SPOKEN_IN.get(word, ()):
            hits[name] += count
    return hits


def is_foreign(text: str, native_languages: set[str], letters: set[str]) -> bool:
    """Whether a text is in none of the `native_languages` languages; `letters` are non-ASCII letters already in use.

    Comparing needs less evidence than naming: no small word of a known language alone, and small words of another
    language or new letters.
    """
    clear = language(text)
    if clear is not None:
        return clear not in native_languages
    words = _WORD.findall(text.casefold())
    native = frozenset[str]().union(*(_SMALL.get(name, ()) for name in native_languages))
    other = frozenset[str]().union(*(small for name, small in _SMALL.items() if name not in native_languages))
    if len(words) < _FEWEST_WORDS or any(word in native and word not in other for word in words):
        return False
    # Single letters are also what is left of "'s" and of initials.
    signs = sum(len(word) > 1 and word in other and word not in native for word in words)
    new = sum(letter not in letters for letter in odd_letters(text))
    return signs >= _CLEAR_SIGNS or new >= _CLEAR_SIGNS or (signs > 0 and len(words) > _FEWEST_WORDS)


def odd_letters(text: str) -> list[str]:
    """Every letter outside ASCII, in lower case."""
    return [char for char in _NOT_ASCII.findall(text.casefold()) if char.isalpha()]


def prose_language(text: str) -> str | None:
    """The language of a whole text by its prose, or its script; None where it is short or unclear.

    Of a long text the beginning, the middle and the end are read.
    """
    if len(text) > 3 * _SAMPLE:
        middle = len(text) // 2
        text = "\n".join((text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:]))
    return language(WEB.sub(" ", prose(text)))


def is_among(name: str, codes: Collection[str]) -> bool:
    """Whether a language or script, as `prose_language` names it, is one of these languages or may be.

    A language that is not told apart by its small words could be taken for another one in Latin letters.
    """
    if name in _STYLES:
        return True
    if name in _SMALL:
        return name in codes or any(code not in _SMALL and code not in _SCRIPT_OF for code in codes)
    return any(_SCRIPT_OF.get(code) == name for code in codes)


def languages(text: str) -> set[str]:
    """Every language that some sentence of the text, or the text as a whole, is clearly written in."""
    return language_signs(text).languages


@dataclass(frozen=True, slots=True)
class LanguageSigns:
    """What a text shows of its languages; of two texts, one behind the other, the signs of both together."""

    sentences: frozenset[str]
    """The languages of its sentences."""
    words: int
    hits: Counter[str]
    """Small words by language."""
    letters: Counter[str]
    """By script."""
    is_ascii: bool

    @property
    def languages(self) -> set[str]:
        """The languages of its sentences, and its own as a whole."""
        own = _clear_language(self.words, self.hits)
        if not self.is_ascii:
            script, letters = max(self.letters.items(), key=itemgetter(1), default=(_LATIN, 0))
            if script != _LATIN:
                own = script if letters >= _LETTERS else None
        return {*self.sentences, own} if own else {*self.sentences}

    def __or__(self, other: LanguageSigns) -> LanguageSigns:
        return LanguageSigns(
            self.sentences | other.sentences,
            self.words + other.words,
            self.hits + other.hits,
            self.letters + other.letters,
            self.is_ascii and other.is_ascii,
        )


def language_signs(text: str) -> LanguageSigns:
    """What a text shows of its languages."""
    whole, *pieces = passages(text)
    names = (_known_language(piece) if len(piece) <= _KNOWN_CHARS else language(piece) for piece in pieces)
    words = _WORD.findall(whole.casefold())
    sentences = frozenset(name for name in names if name is not None)
    return LanguageSigns(sentences, len(words), _hits(words), _counts(whole), whole.isascii())


_known_language = lru_cache(maxsize=2048)(language)
"""In a stream the gate reads the sentences of an answer again with every edit."""


def passages(text: str) -> list[str]:
    """The text without code and addresses, as a whole and sentence by sentence."""
    text = WEB.sub(" ", prose(text))
    return [text, *(piece.text for piece in split(text))]


def foreign_segments(text: str, native_languages: Collection[str]) -> list[Segment]:
    """The segments of a text that are in none of the `native_languages`; none where nobody says what is known.

    A sentence shows its language by less than a whole text, so it is compared with what is known.
    """
    if not native_languages or any(code not in _SMALL and code not in _SCRIPT_OF for code in native_languages):
        return []
    return [piece for piece in split(text) if _is_foreign_sentence(piece.text, native_languages)]


def _is_foreign_sentence(sentence: str, native_languages: Collection[str]) -> bool:
    """Whether a sentence has several signs of one other language, of which one is a word, and hardly a known word."""
    sentence = unicodedata.normalize("NFC", WEB.sub(" ", prose(sentence)))
    if not sentence.isascii():
        counts = _counts(sentence)
        script = max(counts, key=counts.__getitem__, default=_LATIN)
        if script != _LATIN:
            return counts[script] >= _LETTERS and not is_among(script, native_languages)
    tokens = [token for token in _WORD.findall(sentence) if len(token) > 1]
    if len(tokens) < _FEWEST_WORDS:
        return False
    codes = [_SHOWN_BY.get(token.casefold(), frozenset()) for token in tokens]
    return any(
        _shows_language(code, tokens, codes, native_languages)
        for code in frozenset().union(*codes) - frozenset(native_languages)
    )


def _shows_language(
    code: str, tokens: Sequence[str], codes: Sequence[frozenset[str]], native_languages: Collection[str]
) -> bool:
    """Whether a sentence shows this language, by the languages that each of its words shows."""
    pairs = zip(tokens, codes, strict=True)
    # What is said again and again shows no more than said once.
    hits = len(
        {
            token.casefold()
            for token, word_codes in pairs
            if code in word_codes and word_codes.isdisjoint(native_languages)
        }
    )
    own = sum(code not in word_codes and not word_codes.isdisjoint(native_languages) for word_codes in codes)
    # Names begin with a capital, and English has taken over some words with signs on their letters.
    odd = sum(
        not (word_codes or token.isascii() or token[0].isupper())
        for token, word_codes in zip(tokens, codes, strict=True)
    )
    signs = hits + odd
    return hits > 0 and signs >= max(_CLEAR_SIGNS, _SHARE * len(tokens), _AGAINST_KNOWN * own)
