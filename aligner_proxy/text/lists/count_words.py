"""Words around the counts of lists in eleven languages, and a count with another value in the form its noun needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from aligner_proxy.text.languages import most_likely_language

MIN_COUNT = 2
"""Smallest number that has a word here."""
_WORDS_BY_KIND = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_LEAST_MANY = 5
"""In Slavic languages the noun has another form from five on."""
_SLAVIC = re.compile(r"[\u0400-\u04ff\u0104-\u0107\u0118\u0119\u0141-\u0144\u015a\u015b\u0179-\u017c]")
"""Matches a letter of Russian, or one of the Polish letters that Western languages lack."""
_KANA = re.compile(r"[\u3040-\u30ff]")
_CHINESE_TWO = "\u4e24"
_CHINESE_TWO_ALONE = "\u4e8c"
"""The Chinese words for two, before a counter and without one."""
_CHINESE_STOPS = ("\u3002", "\uff1a", ":")
_WORD = re.compile(r"[^\W\d_]+")
_NOUN_DISTANCE = 3
"""Words behind a count among which its noun is searched."""
_MASCULINE_IN_AS = (
    r"(?:dias|problemas|sistemas|temas|programas|mapas|planetas|idiomas|esquemas|(?:bot|cart|milh)\u00f5es)"
)
_FEMININE = re.compile(
    rf"(?!{_MASCULINE_IN_AS}$)\w+(?:as|\u00f5es|dades|gens)"
    r"|wskaz\u00f3wki|porady|rady|zasady|rzeczy|metody|opcje|przyczyny|mo\u017cliwo\u015bci|kwestie|czynno\u015bci"
    r"|(?!\w+[\u044b\u0438]\u0435$)\w+[\u044b\u0438]"
)
_MASCULINE = re.compile(
    rf"{_MASCULINE_IN_AS}|\w+os|kroki|powody|sposoby|punkty|etapy|elementy|dokumenty|warunki|pytania|dzia\u0142ania"
    r"|\w+[\u0430\u044f]"
)
"""Matches Portuguese, Polish and Russian nouns behind a count that are feminine, or masculine or neuter."""


@dataclass(frozen=True, slots=True)
class _Form:
    """One form of the numbers of a language."""

    language: str
    gender: str
    """Either "feminine" or "masculine"; empty if the form has no gender."""
    words: tuple[str, ...]
    """The number words from two on; a dash for a number that the form lacks."""

    def word(self, value: int) -> str | None:
        """The word for this number; None if the form has none."""
        index = value - MIN_COUNT
        word = self.words[index] if 0 <= index < len(self.words) else "-"
        return None if word == "-" else word


_FORMS = tuple(
    _Form(language, name if name in ("feminine", "masculine") else "", tuple(words.split()))
    for language, forms in _WORDS_BY_KIND["numbers"].items()
    for name, words in forms.items()
)
_LANGUAGES = tuple(dict.fromkeys(form.language for form in _FORMS))
"""The languages, in the order in which a count is read if the text does not show its language."""
_ALL_NUMBERS = sorted({word for form in _FORMS for word in form.words if word != "-"}, key=len, reverse=True)
ANY_NUMBER = "|".join(word for word in _ALL_NUMBERS if len(word) > 1)
"""Matches every number word of the languages that put spaces between words."""
IDEOGRAPHS = "".join(word for word in _ALL_NUMBERS if len(word) == 1)
"""The number words of Chinese and Japanese, for a class of characters."""


def join_numbers(*languages: str) -> str:
    """A pattern of the number words of these languages."""
    words = {word for form in _FORMS if form.language in languages for word in form.words if word != "-"}
    return "|".join(sorted(words, key=len, reverse=True))


def join_words(kind: str) -> str:
    """A pattern of all words of this kind, such as "nouns", in all languages that `count_words.yaml` has them for."""
    return "|".join(word for words in _WORDS_BY_KIND[kind].values() for word in words.split())


def replace_count(count: str, old_value: int, new_value: int, *, before: str, behind: str, answer: str) -> str:
    """The count `old_value` with the value `new_value`, in the notation of `count`; unchanged if that is not sure.

    `before` and `behind` are the texts around the count, and `answer` the whole answer, which tells the language.
    """
    if new_value < MIN_COUNT or _changes_noun(count + behind, old_value, new_value):
        return count
    if count.isdecimal():
        return _write_digits(new_value, count) if int(count) == old_value else count
    forms = [form for form in _FORMS if form.word(old_value) == count.lower() and form.word(new_value)]
    codes = {form.language for form in forms}
    if len(codes) > 1:
        language = _choose_language(codes, before + count + behind, answer)
        forms = [form for form in forms if form.language == language]
    new_words = {form.word(new_value) for form in forms}
    if new_words == {_CHINESE_TWO} and behind.startswith(_CHINESE_STOPS):
        return _CHINESE_TWO_ALONE
    if len(new_words) > 1:
        gender = _read_gender(behind)
        new_words = {form.word(new_value) for form in forms if form.gender == gender}
    if len(new_words) != 1:
        return count
    new_word = new_words.pop() or count
    return new_word.capitalize() if count[0].isupper() else new_word


def _changes_noun(text: str, old_value: int, new_value: int) -> bool:
    """Whether the noun behind a count would need another form, as in Polish and Russian between five and four."""
    is_crossing = (old_value >= _LEAST_MANY) != (new_value >= _LEAST_MANY)
    return is_crossing and _SLAVIC.search(text) is not None


def _write_digits(value: int, like: str) -> str:
    """The value in digits, which are full-width if those of `like` are."""
    if like.isascii():
        return str(value)
    return "".join(chr(ord(digit) - ord("0") + ord("\uff10")) for digit in str(value))


def _choose_language(codes: set[str], sentence: str, answer: str) -> str:
    """The language among `codes` in which a count is written: by its own sentence, else by the whole answer."""
    if codes == {"zh", "ja"}:
        return "ja" if _KANA.search(answer) else "zh"
    return (
        most_likely_language(sentence, codes) or most_likely_language(answer, codes) or min(codes, key=_LANGUAGES.index)
    )


def _read_gender(behind: str) -> str:
    """The gender of the noun in the text behind a count; empty if it is not known."""
    for word in _WORD.findall(behind)[:_NOUN_DISTANCE]:
        if _FEMININE.fullmatch(word.lower()):
            return "feminine"
        if _MASCULINE.fullmatch(word.lower()):
            return "masculine"
    return ""
