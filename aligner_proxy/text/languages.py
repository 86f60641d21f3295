"""Detection of the languages and scripts of a text, by its letters and small words (frequent words such as "the").

Only clear cases count: a listed language to which many of the words belong, or a script other than Latin. Short texts,
unlisted languages, and those that share their small words are not recognised. A language is named by its code, such as
"de", a script by the first word of its Unicode names, such as "GREEK".
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

from aligner_proxy.text.abbreviations import word_set
from aligner_proxy.text.facts import WEB, prose
from aligner_proxy.text.structure import Segment, split

_SMALL_WORDS_FILE = Path(__file__).with_suffix(".yaml")
_SMALL_WORDS_BY_CODE: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in yaml.safe_load(_SMALL_WORDS_FILE.read_text(encoding="utf-8")).items()
}
"""For each language its small words: frequent, short, and found in few other languages."""
LANGUAGES = tuple(_SMALL_WORDS_BY_CODE)
"""Codes of the languages that are recognised by their small words."""
_CODES_BY_SMALL_WORD: dict[str, list[str]] = {}
"""For each small word, the languages that have it."""
for _language, _small in _SMALL_WORDS_BY_CODE.items():
    for _small_word in _small:
        _CODES_BY_SMALL_WORD.setdefault(_small_word, []).append(_language)
# Words of sentences that address somebody, as insults do. For longer texts the small words are enough.
_ADDRESSING_WORDS_BY_CODE = {
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
_CODES_BY_WORD: dict[str, frozenset[str]] = {}
"""For each word, the languages that it indicates in a sentence."""
for _language in {*_SMALL_WORDS_BY_CODE, *_ADDRESSING_WORDS_BY_CODE}:
    for _word in (*_SMALL_WORDS_BY_CODE.get(_language, ()), *_ADDRESSING_WORDS_BY_CODE.get(_language, "").split()):
        _CODES_BY_WORD[_word] = _CODES_BY_WORD.get(_word, frozenset()) | {_language}
for _word in ("over", "bent", "per"):  # also English words, so they indicate no other language
    _CODES_BY_WORD[_word] = _CODES_BY_WORD.get(_word, frozenset()) | {"en"}
_SIGNS_AGAINST_KNOWN = 3
"""Signs of another language that outweigh one word of a known one, because a sentence may name foreign things."""
_WORD = re.compile(r"[^\W\d_]+")
_MIN_WORDS = 3
"""Fewest words of a text whose language is told, and fewest small words of that language in it."""
_MIN_SHARE = 0.2
"""Share of the words of a text that must be small words of its language."""
_MIN_LEAD = 1.5
"""A language is clear if it has at least this many times as many small words as any other."""
_MIN_FOREIGN_SIGNS = 2
"""Fewest signs of another language, such as words or letters, that make a sentence foreign."""
_MIN_SCRIPT_LETTERS = 3
"""Fewest letters that show that a text is in a script; fewer are symbols."""
_LATIN = "LATIN"
# Han characters are mixed with kana and Hangul, so a change between them is not a change of script.
_COMMON_SCRIPT = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "BOPOMOFO": "CJK", "IDEOGRAPHIC": "CJK"}
_NO_SCRIPT = frozenset({"MODIFIER", "COMBINING", "MASCULINE", "FEMININE", "MICRO", "OHM", "DOUBLE-STRUCK", "SCRIPT"})
"""First words of the names of signs that occur in texts of any script."""
_MAX_CACHED_CHARS = 400
"""Longest sentence whose language is cached."""
_SAMPLE_CHARS = 2_000
"""Characters read at each of three places of a long text."""
_SCRIPT_BY_CODE = {
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
_STYLE_NAMES = word_set("MATHEMATICAL FULLWIDTH CIRCLED SQUARED PARENTHESIZED NEGATIVE SUPERSCRIPT SUBSCRIPT OUTLINED")
"""First words of the Unicode names of styled letters."""
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_ASCII_LETTERS = re.compile(r"[A-Za-z]+")


def scripts(text: str) -> set[str]:
    """Every script of which the text has a letter."""
    return {script for script, count in _count_by_script(text).items() if count}


def scripts_in_use(text: str) -> set[str]:
    """The scripts of which a text has several letters; single letters (pi, mu) are symbols."""
    return {script for script, count in _count_by_script(text).items() if count >= _MIN_SCRIPT_LETTERS}


def _count_by_script(text: str) -> Counter[str]:
    """The number of letters of each script; signs that occur in texts of any script are not counted."""
    counts = Counter[str]()
    for char, count in Counter(_NOT_ASCII.findall(text)).items():
        if char.isalpha():
            counts[_script_of_char(char)] += count
    counts[_LATIN] += sum(map(len, _ASCII_LETTERS.findall(text)))
    return Counter({script: count for script, count in counts.items() if script not in _NO_SCRIPT})


@lru_cache(maxsize=4096)
def _script_of_char(char: str) -> str:
    """The script of a letter: the first word of its Unicode name, such as GREEK."""
    first_word = unicodedata.name(char, "UNKNOWN").partition(" ")[0]
    return _COMMON_SCRIPT.get(first_word, first_word)


def language(text: str) -> str | None:
    """The language of a text if it is in Latin letters, otherwise its script; None if it is not clear."""
    if text.isascii():
        return _language_by_small_words(_WORD.findall(text.casefold()))
    counts = _count_by_script(text)
    if not counts or not counts.total():
        return None
    script, letter_count = counts.most_common(1)[0]
    if script != _LATIN:
        return script if letter_count >= _MIN_SCRIPT_LETTERS else None
    return _language_by_small_words(_WORD.findall(text.casefold()))


def _language_by_small_words(words: list[str]) -> str | None:
    """The language to which clearly many of the words belong as small words; None if there is none."""
    if len(words) < _MIN_WORDS:
        return None
    return _clear_language(min_hits=_MIN_SHARE * len(words), hits=_count_small_words(words))


def _clear_language(*, min_hits: float, hits: Counter[str]) -> str | None:
    """The language with so many small words that no other can be meant; None if there is none.

    `hits` is the number of small words of each language in a text, and `min_hits` the fewest that the language needs.
    """
    # languages without hits count as 0, so that there are always two languages
    all_hits = Counter({**dict.fromkeys(_SMALL_WORDS_BY_CODE, 0), **hits})
    (best_language, most_hits), (_, second_hits) = all_hits.most_common(2)
    is_clear = most_hits >= max(_MIN_WORDS, min_hits, _MIN_LEAD * second_hits)
    return best_language if is_clear else None


def most_likely_language(text: str, codes: Collection[str]) -> str | None:
    """The language among `codes` of which the text has the most small words; None if no language has the most."""
    hits = _count_small_words(_WORD.findall(text.casefold()))
    (best_language, most_hits), *others = Counter({code: hits[code] for code in codes}).most_common()
    return best_language if all(count < most_hits for _, count in others) else None


def _count_small_words(words: list[str]) -> Counter[str]:
    """How many of the words are small words of each language."""
    hits = Counter(dict.fromkeys(_SMALL_WORDS_BY_CODE, 0))
    for word, count in Counter(words).items():
        for code in _CODES_BY_SMALL_WORD.get(word, ()):
            hits[code] += count
    return hits


def is_foreign(text: str, native_languages: set[str], native_letters: set[str]) -> bool:
    """Whether a text is in none of the `native_languages`; `native_letters` are the non-ASCII letters already in use.

    This needs less evidence than naming the language of the text: the text must have no small word that only native
    languages have, but small words of another language or new letters.
    """
    clear_language = language(text)
    if clear_language is not None:
        return clear_language not in native_languages
    words = _WORD.findall(text.casefold())
    codes_by_position = [set(_CODES_BY_SMALL_WORD.get(word, ())) for word in words]
    if len(words) < _MIN_WORDS or any(codes and codes <= native_languages for codes in codes_by_position):
        return False
    # Single letters do not count, since they may be what remains of "'s" and of initials.
    foreign_count = sum(
        len(word) > 1 and bool(codes) and codes.isdisjoint(native_languages)
        for word, codes in zip(words, codes_by_position, strict=True)
    )
    foreign_letter_count = sum(letter not in native_letters for letter in odd_letters(text))
    if max(foreign_count, foreign_letter_count) >= _MIN_FOREIGN_SIGNS:
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
    """The prose of a text without web addresses; of a long text only that of its beginning, middle and end."""
    if len(text) > 3 * _SAMPLE_CHARS:
        middle = len(text) // 2
        text = "\n".join((text[:_SAMPLE_CHARS], text[middle : middle + _SAMPLE_CHARS], text[-_SAMPLE_CHARS:]))
    return WEB.sub(" ", prose(text))


def is_among(name: str, codes: Collection[str]) -> bool:
    """Whether a language or script, as named by `prose_language`, is or may be one of the languages in `codes`.

    A language in Latin letters may also be one of `codes` that is not recognised here and was taken for it.
    """
    # styled letters are undisguised before a text is judged, so they say nothing about its language
    if name in _STYLE_NAMES:
        return True
    if name in _SMALL_WORDS_BY_CODE:
        return name in codes or not all(map(_is_recognised, codes))
    return any(_SCRIPT_BY_CODE.get(code) == name for code in codes)


def _is_recognised(code: str) -> bool:
    """Whether this module can recognise a language, by its small words or its script."""
    return code in _SMALL_WORDS_BY_CODE or code in _SCRIPT_BY_CODE


def is_written_in(text: str, codes: Collection[str]) -> bool:
    """Whether the prose of a text is most likely in one of the languages in `codes`.

    If its language is unclear, even to the few small words in it, the result is whether `codes` include a language that
    this module cannot recognise.
    """
    text = _read_prose(text)
    detected = language(text)
    if detected is None:
        # a list of terms has few small words, but most of them are of its language, so here their share does not count
        detected = _clear_language(min_hits=0, hits=_count_small_words(_WORD.findall(text.casefold())))
    if detected is None:
        return not all(map(_is_recognised, codes))
    return is_among(detected, codes)


def languages(text: str) -> set[str]:
    """Every language in which some sentence of the text, or the text as a whole, is clearly written."""
    return language_signs(text).languages


@dataclass(frozen=True, slots=True)
class LanguageSigns:
    """Evidence of the languages of a text; `|` combines the evidence of two consecutive texts."""

    sentences: frozenset[str]
    """The languages and scripts of the text's sentences."""
    word_count: int
    """Number of words in the text's prose."""
    hits: Counter[str]
    """Number of small words by language."""
    letters: Counter[str]
    """Number of letters by script."""
    is_ascii: bool
    """Whether the prose has only ASCII characters."""

    @property
    def languages(self) -> set[str]:
        """The languages of the text's sentences, and the language or script of the whole text, if it is clear."""
        whole = _clear_language(min_hits=_MIN_SHARE * self.word_count, hits=self.hits)
        if not self.is_ascii:
            script, letter_count = max(self.letters.items(), key=itemgetter(1), default=(_LATIN, 0))
            # small words tell only languages in Latin letters apart; of other texts the script is told
            if script != _LATIN:
                whole = script if letter_count >= _MIN_SCRIPT_LETTERS else None
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
    whole, *sentences = passages(text)
    names = {_cached_language(each) if len(each) <= _MAX_CACHED_CHARS else language(each) for each in sentences}
    words = _WORD.findall(whole.casefold())
    return LanguageSigns(
        sentences=frozenset(name for name in names if name is not None),
        word_count=len(words),
        hits=_count_small_words(words),
        letters=_count_by_script(whole),
        is_ascii=whole.isascii(),
    )


_cached_language = lru_cache(maxsize=2048)(language)
"""Cached, because in a stream the gate reads the sentences of an answer again with every edit."""


def passages(text: str) -> list[str]:
    """The text without code and web addresses: first as a whole, then each of its segments."""
    text = WEB.sub(" ", prose(text))
    return [text, *(segment.text for segment in split(text))]


def foreign_segments(text: str, native_languages: Collection[str]) -> list[Segment]:
    """The segments of a text in none of the `native_languages`; empty unless all of these can be recognised.

    A sentence gives less evidence of its language than a whole text, so it is compared with the known languages.
    """
    if not native_languages or not all(map(_is_recognised, native_languages)):
        return []
    return [segment for segment in split(text) if _is_foreign_sentence(segment.text, native_languages)]


def _is_foreign_sentence(sentence: str, native_languages: Collection[str]) -> bool:
    """Whether a sentence has several signs of one other language, including a word, and hardly any native word.

    Of a sentence in another script than Latin only the script counts.
    """
    sentence = unicodedata.normalize("NFC", WEB.sub(" ", prose(sentence)))
    if not sentence.isascii():
        counts = _count_by_script(sentence)
        script = max(counts, key=counts.__getitem__, default=_LATIN)
        if script != _LATIN:
            return counts[script] >= _MIN_SCRIPT_LETTERS and not is_among(script, native_languages)
    words = [word for word in _WORD.findall(sentence) if len(word) > 1]
    if len(words) < _MIN_WORDS:
        return False
    codes_by_position = [_CODES_BY_WORD.get(word.casefold(), frozenset()) for word in words]
    foreign_codes = frozenset().union(*codes_by_position) - frozenset(native_languages)
    return any(_shows_language(code, words, codes_by_position, native_languages) for code in foreign_codes)


def _shows_language(
    code: str, words: Sequence[str], codes_by_position: Sequence[frozenset[str]], native_languages: Collection[str]
) -> bool:
    """Whether a sentence of these words is in the foreign language `code`.

    `codes_by_position` has, for each word, the languages that the word indicates.
    """
    foreign_words: set[str] = set()  # a set, because a repeated word is no more evidence than a single one
    native_count = 0
    accented_count = 0
    for word, codes in zip(words, codes_by_position, strict=True):
        is_native = not codes.isdisjoint(native_languages)
        if code in codes and not is_native:
            foreign_words.add(word.casefold())
        if code not in codes and is_native:
            native_count += 1
        # Capitalised words may be names.
        if not (codes or word.isascii() or word[0].isupper()):
            accented_count += 1
    sign_count = len(foreign_words) + accented_count
    min_signs = max(_MIN_FOREIGN_SIGNS, _MIN_SHARE * len(words), _SIGNS_AGAINST_KNOWN * native_count)
    # English has loan words with accents, so one small word is required, too.
    return bool(foreign_words) and sign_count >= min_signs
