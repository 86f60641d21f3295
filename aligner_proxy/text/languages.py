"""Detection of the languages and scripts of a text, by its letters and small words.

Only clear cases count: a listed language to which many of the words belong, or a distinct script. Languages that share
their small words, short texts, and unlisted languages stay unknown.
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
"""By language, its small words: frequent and short ones that few other languages have, such as "the"."""
LANGUAGES = tuple(_SMALL)
"""Codes of the languages that are recognised by their small words."""
_SPOKEN_IN: dict[str, list[str]] = {}
"""For each small word, the languages that have it."""
for _language, _small in _SMALL.items():
    for _small_word in _small:
        _SPOKEN_IN.setdefault(_small_word, []).append(_language)
# Words of sentences that address somebody, as insults do. For longer texts the small words are enough.
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
"""For each word, the languages that it indicates in a sentence."""
for _language in {*_SMALL, *_ADDRESSING}:
    for _word_of_it in (*_SMALL.get(_language, ()), *_ADDRESSING.get(_language, "").split()):
        _SHOWN_BY[_word_of_it] = _SHOWN_BY.get(_word_of_it, frozenset()) | {_language}
for _word_of_it in ("over", "bent", "per"):  # also English words, so they indicate no other language
    _SHOWN_BY[_word_of_it] = _SHOWN_BY.get(_word_of_it, frozenset()) | {"en"}
_AGAINST_KNOWN = 3
"""Signs of another language needed to outweigh one word of a known one, because a sentence may name foreign things."""
_WORD = re.compile(r"[^\W\d_]+")
_MIN_WORDS = 3
"""Fewest words of a text, and small words of its language, from which the language is told."""
_SHARE = 0.2
"""Share of the words of a text that must be small words of its language."""
_LEAD = 1.5
"""How many times as many small words as the next language the best one must have."""
_CLEAR_SIGNS = 2
"""Signs of another language, such as words or letters, that are clear together."""
_LETTERS = 3
"""Fewest letters of a script; fewer are symbols."""
_LATIN = "LATIN"
# Han characters are mixed with kana and Hangul, so a change between them is not a change of script.
_SAME = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "BOPOMOFO": "CJK", "IDEOGRAPHIC": "CJK"}
_ANYWHERE = frozenset({"MODIFIER", "COMBINING", "MASCULINE", "FEMININE", "MICRO", "OHM", "DOUBLE-STRUCK", "SCRIPT"})
"""First words of the names of signs that occur in texts of any script."""
_KNOWN_CHARS = 400
"""Longest sentence whose language is cached."""
_SAMPLE = 2_000
"""Characters read at each of three places of a long text."""
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
"""The script of each language not written in Latin letters, named as `language` returns it."""
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
"""First words of the Unicode names of styled letters."""
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_ASCII_LETTERS = re.compile(r"[A-Za-z]+")


def scripts(text: str) -> set[str]:
    """Every script of which the text has a letter."""
    return {script for script, count in _count_by_script(text).items() if count}


def scripts_in_use(text: str) -> set[str]:
    """The scripts of which a text has several letters; single letters (pi, mu) are symbols."""
    return {script for script, count in _count_by_script(text).items() if count >= _LETTERS}


def _count_by_script(text: str) -> Counter[str]:
    """The number of letters of each script; signs that belong to none are left out."""
    counts = Counter[str]()
    for char, count in Counter(_NOT_ASCII.findall(text)).items():
        if char.isalpha():
            counts[_script_of_char(char)] += count
    counts[_LATIN] += sum(map(len, _ASCII_LETTERS.findall(text)))
    return Counter({script: count for script, count in counts.items() if script not in _ANYWHERE})


@lru_cache(maxsize=4096)
def _script_of_char(char: str) -> str:
    """The script of a letter: the first word of its Unicode name, such as GREEK."""
    first = unicodedata.name(char, "UNKNOWN").partition(" ")[0]
    return _SAME.get(first, first)


def language(text: str) -> str | None:
    """The language of a text, or its script if that is not Latin; None if neither is clear."""
    if text.isascii():
        return _language_by_small_words(_WORD.findall(text.casefold()))
    counts = _count_by_script(text)
    if not counts or not counts.total():
        return None
    script, letters = counts.most_common(1)[0]
    if script != _LATIN:
        return script if letters >= _LETTERS else None
    return _language_by_small_words(_WORD.findall(text.casefold()))


def _language_by_small_words(words: list[str]) -> str | None:
    """The language of which clearly many of these words are small words; None if there is none."""
    if len(words) < _MIN_WORDS:
        return None
    return _clear_language(len(words), _count_small_words(words))


def _clear_language(word_count: int, hits: Counter[str]) -> str | None:
    """The language with so many hits (small words) that no other can be meant; None if there is none."""
    # every language counted with 0, so that there are always two
    (best, most), (_, second) = Counter({**dict.fromkeys(_SMALL, 0), **hits}).most_common(2)
    is_clear = most >= _MIN_WORDS and most >= _SHARE * word_count and most >= _LEAD * second
    return best if is_clear else None


def _count_small_words(words: list[str]) -> Counter[str]:
    """How many of the words are small words of each language."""
    hits = Counter(dict.fromkeys(_SMALL, 0))
    for word, count in Counter(words).items():
        for name in _SPOKEN_IN.get(word, ()):
            hits[name] += count
    return hits


def is_foreign(text: str, native_languages: set[str], native_letters: set[str]) -> bool:
    """Whether a text is in none of the `native_languages`; `native_letters` are non-ASCII letters already in use.

    This needs less evidence than naming the language of the text: it must have no small word that only native languages
    have, but small words of another language or new letters.
    """
    clear_language = language(text)
    if clear_language is not None:
        return clear_language not in native_languages
    words = _WORD.findall(text.casefold())
    native_words = frozenset[str]().union(*(_SMALL.get(name, ()) for name in native_languages))
    other_words = frozenset[str]().union(*(small for name, small in _SMALL.items() if name not in native_languages))
    if len(words) < _MIN_WORDS or any(word in native_words and word not in other_words for word in words):
        return False
    # Single letters are also what remains of "'s" and of initials.
    foreign_count = sum(len(word) > 1 and word in other_words and word not in native_words for word in words)
    foreign_letter_count = sum(letter not in native_letters for letter in odd_letters(text))
    if max(foreign_count, foreign_letter_count) >= _CLEAR_SIGNS:
        return True
    # in a longer sentence without a native word, one foreign word is enough
    return foreign_count > 0 and len(words) > _MIN_WORDS


def odd_letters(text: str) -> list[str]:
    """Every non-ASCII letter, in lower case."""
    return [char for char in _NOT_ASCII.findall(text.casefold()) if char.isalpha()]


def prose_language(text: str) -> str | None:
    """The language of a whole text by its prose, or its script; None if it is short or unclear.

    For a long text only the beginning, the middle and the end are read.
    """
    return language(_read_prose(text))


def _read_prose(text: str) -> str:
    """The prose of a text without web addresses; of a long text that of its beginning, middle and end."""
    if len(text) > 3 * _SAMPLE:
        middle = len(text) // 2
        text = "\n".join((text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:]))
    return WEB.sub(" ", prose(text))


def is_among(name: str, codes: Collection[str]) -> bool:
    """Whether a language or script, as named by `prose_language`, is or may be one of these languages.

    It may be one if the codes include a language in Latin letters whose small words are not listed here.
    """
    # styled letters are undisguised before a text is judged, so they say nothing about its language
    if name in _STYLES:
        return True
    if name in _SMALL:
        # one of the codes may be a language in Latin letters that is mistaken for this one
        return name in codes or any(code not in _SMALL and code not in _SCRIPT_OF for code in codes)
    return any(_SCRIPT_OF.get(code) == name for code in codes)


def is_written_in(text: str, codes: Collection[str]) -> bool:
    """Whether the prose of a text is in one of these languages, or more likely in one of them than in any other.

    A list of terms has few small words, but most of these are of its language. False without prose. Where a language
    among the codes is not recognised here, unclear prose may be in it.
    """
    text = _read_prose(text)
    name = language(text)
    if name is None:
        # every one counts, however few they are
        name = _clear_language(0, _count_small_words(_WORD.findall(text.casefold())))
    if name is None:
        return any(code not in _SMALL and code not in _SCRIPT_OF for code in codes)
    return is_among(name, codes)


def languages(text: str) -> set[str]:
    """Every language in which some sentence of the text, or the text as a whole, is clearly written."""
    return language_signs(text).languages


@dataclass(frozen=True, slots=True)
class LanguageSigns:
    """Evidence of the languages of a text; `|` combines the evidence of two consecutive texts."""

    sentences: frozenset[str]
    """The languages of its sentences."""
    word_count: int
    """Number of words in its prose."""
    hits: Counter[str]
    """Number of small words by language."""
    letters: Counter[str]
    """Number of letters by script."""
    is_ascii: bool
    """Whether its prose has no letters beyond ASCII."""

    @property
    def languages(self) -> set[str]:
        """The languages of its sentences, and that of the whole, if it is clear."""
        whole = _clear_language(self.word_count, self.hits)
        if not self.is_ascii:
            script, letter_count = max(self.letters.items(), key=itemgetter(1), default=(_LATIN, 0))
            # small words tell only languages of the Latin script apart; for others the script stands
            if script != _LATIN:
                whole = script if letter_count >= _LETTERS else None
        return {*self.sentences, whole} if whole else {*self.sentences}

    def __or__(self, other: LanguageSigns) -> LanguageSigns:
        """The evidence of this text and of one that follows it."""
        return LanguageSigns(
            self.sentences | other.sentences,
            self.word_count + other.word_count,
            self.hits + other.hits,
            self.letters + other.letters,
            self.is_ascii and other.is_ascii,
        )


def language_signs(text: str) -> LanguageSigns:
    """Collect the evidence of a text's languages."""
    whole, *pieces = passages(text)
    names = (_known_language(piece) if len(piece) <= _KNOWN_CHARS else language(piece) for piece in pieces)
    words = _WORD.findall(whole.casefold())
    sentences = frozenset(name for name in names if name is not None)
    return LanguageSigns(sentences, len(words), _count_small_words(words), _count_by_script(whole), whole.isascii())


_known_language = lru_cache(maxsize=2048)(language)
"""Cached, because in a stream the gate reads the sentences of an answer again with every edit."""


def passages(text: str) -> list[str]:
    """The text without code and web addresses: first as a whole, then each of its segments."""
    text = WEB.sub(" ", prose(text))
    return [text, *(piece.text for piece in split(text))]


def foreign_segments(text: str, native_languages: Collection[str]) -> list[Segment]:
    """The segments of a text in none of the `native_languages`; empty if these are not all recognisable.

    A sentence gives less evidence of its language than a whole text, so it is compared with the known languages.
    """
    if not native_languages or any(code not in _SMALL and code not in _SCRIPT_OF for code in native_languages):
        return []
    return [piece for piece in split(text) if _is_foreign_sentence(piece.text, native_languages)]


def _is_foreign_sentence(sentence: str, native_languages: Collection[str]) -> bool:
    """Whether a sentence has several signs of one other language, including a word, and hardly a known word."""
    sentence = unicodedata.normalize("NFC", WEB.sub(" ", prose(sentence)))
    if not sentence.isascii():
        counts = _count_by_script(sentence)
        script = max(counts, key=counts.__getitem__, default=_LATIN)
        if script != _LATIN:
            return counts[script] >= _LETTERS and not is_among(script, native_languages)
    tokens = [token for token in _WORD.findall(sentence) if len(token) > 1]
    if len(tokens) < _MIN_WORDS:
        return False
    codes = [_SHOWN_BY.get(token.casefold(), frozenset()) for token in tokens]
    return any(
        _shows_language(code, tokens, codes, native_languages)
        for code in frozenset().union(*codes) - frozenset(native_languages)
    )


def _shows_language(
    code: str, tokens: Sequence[str], codes: Sequence[frozenset[str]], native_languages: Collection[str]
) -> bool:
    """Whether a sentence is in language `code`, given the languages that each of its words indicates."""
    pairs = zip(tokens, codes, strict=True)
    # A repeated word is no more evidence than a single one.
    hits = len(
        {
            token.casefold()
            for token, word_codes in pairs
            if code in word_codes and word_codes.isdisjoint(native_languages)
        }
    )
    native_words = sum(code not in word_codes and not word_codes.isdisjoint(native_languages) for word_codes in codes)
    # Capitalised words may be names. English has loan words with accents, so one small word is required, too.
    accented_words = sum(
        not (word_codes or token.isascii() or token[0].isupper())
        for token, word_codes in zip(tokens, codes, strict=True)
    )
    signs = hits + accented_words
    return hits > 0 and signs >= max(_CLEAR_SIGNS, _SHARE * len(tokens), _AGAINST_KNOWN * native_words)
