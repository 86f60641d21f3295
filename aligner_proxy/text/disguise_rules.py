"""Rules that each remove one kind of disguise from a segment, such as invisible characters or digits used as letters.

A letter is replaced only if its word shows that it is a disguise, so that words in any script, emoji sequences, code
and formulas stay unchanged.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import regex

from aligner_proxy.text import look_alikes
from aligner_proxy.text.languages import language
from aligner_proxy.text.mapped import MappedText

_MAX_PASSES = 4
"""Most times that all rules are applied, since one rule may uncover a case for another.

A text that needs more is an attack rather than a disguise.
"""
# Scripts that are written without spaces or with joiners, or that share no letters with Latin. Their letters end a word
# here, and are never replaced.
_JOINING_SCRIPTS = (
    r"\p{Arabic}\p{Syriac}\p{Thaana}\p{Nko}\p{Mongolian}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Oriya}"
    r"\p{Tamil}\p{Telugu}\p{Kannada}\p{Malayalam}\p{Sinhala}\p{Myanmar}\p{Khmer}\p{Tibetan}"
)
_UNSPACED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}"
_LETTER = (
    rf"[[\p{{L}}\p{{Nl}}\u249c-\u24e9\U0001f110-\U0001f189]--[{_JOINING_SCRIPTS}{_UNSPACED}\p{{Hangul}}\p{{Hebrew}}]]"
)
_PICTURE = r"\p{Extended_Pictographic}[\ufe0e\ufe0f]?\p{Emoji_Modifier}?"
_BLANK_CHARS = r"\u2800\u3164\uffa0\u115f\u1160"
"""Characters that look like white space but are not."""
_DIRECTION_MARKS = r"\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"
_NEEDED_INVISIBLE = (
    r"\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f"  # a flag of a region
    rf"|{_PICTURE}(?:\u200d{_PICTURE})*"
    r"|[\p{S}#*0-9][\ufe0e\ufe0f]\u20e3?"
    r"|\p{Han}[\ufe00-\ufe02\U000e0100-\U000e01ef]|\p{Mongolian}[\u180b-\u180f]|\p{Hebrew}\p{M}{0,32}\u034f"
    r"|\u115f(?=[\u1160-\u11a7])|[\u1100-\u115f]\u1160"
    rf"|[{_JOINING_SCRIPTS}][\u200c\u200d](?!\p{{DI}})|[{_UNSPACED}]\u200b(?!\p{{DI}})"
)
"""Matches invisible characters that a script or emoji needs, together with the character before them."""
_INVISIBLE_CHAR = r"[[\p{DI}\p{Cc}\ufff9-\ufffb]--[\s\u3164\uffa0\u115f\u1160]]"
_INVISIBLE_OR_BLANK = regex.compile(rf"(?V1){_INVISIBLE_CHAR}|[{_BLANK_CHARS}]")
_INVISIBLE = regex.compile(rf"(?V1){_NEEDED_INVISIBLE}|(?P<gone>{_INVISIBLE_CHAR}+)|(?P<blank>[{_BLANK_CHARS}])")
_INVISIBLE_BESIDE_RTL = regex.compile(
    rf"(?V1){_NEEDED_INVISIBLE}|(?<![\p{{L}}\p{{N}}])[{_DIRECTION_MARKS}]|[{_DIRECTION_MARKS}](?![\p{{L}}\p{{N}}])"
    rf"|(?P<gone>{_INVISIBLE_CHAR}+)|(?P<blank>[{_BLANK_CHARS}])"
)
_RIGHT_TO_LEFT = regex.compile(r"(?V1)[\p{Hebrew}\p{Arabic}\p{Syriac}\p{Thaana}\p{Nko}]")
_REVERSED_TEXT = regex.compile(r"(?V1)\u202e([^\n\u202a-\u202e]*)\u202c?")
_SINGLE_REGIONAL_LETTER = regex.compile(
    r"(?V1)(?<!\p{Regional_Indicator})\p{Regional_Indicator}(?!\p{Regional_Indicator})"
)
_REGIONAL_A = 0x1F1E6
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,14});")
_EMPHASIS_IN_WORD = re.compile(r"(?<=[^\W\d_])(\*{1,3}|~~)([^\W\d_]+)\1|(\*{1,3}|~~)([^\W\d_]+)\3(?=[^\W\d_])")
_TAGS_IN_WORD = re.compile(
    r"(?<=[^\W\d_])(?:<!--[^<>\n]{0,80}-->|</?(?:b|i|u|s|em|strong|span|mark|small|big|font|a|wbr)"
    r"(?:\s[^<>\n]{0,80})?/?>)+(?=[^\W\d_])"
)
# Combining marks that cross out or enclose a letter.
_CROSSING_MARKS = r"\u0334-\u0338\u0488\u0489\u20d2\u20d3\u20d8-\u20da\u20dd-\u20e0\u20e2-\u20e6\u20ea\u20eb"
_WORD_WITH_MARKS = regex.compile(r"(?V1)(?:[\p{Latin}\p{Greek}\p{Cyrillic}]\p{M}+)+")
_LETTER_WITH_MARKS = regex.compile(r"(?V1)(\p{L})(\p{M}+)")
_CROSSING_MARK = regex.compile(rf"(?V1)[{_CROSSING_MARKS}]")
_MIN_STACKED_MARKS = 3
"""Fewest marks on one letter that are a disguise by themselves."""
_LONGEST_DECOMPOSED = 4
"""Maximum number of characters in a canonical Unicode decomposition of one character."""
_MIN_MARKED_LETTERS = 3
"""Fewest letters of a word with loose marks, which form no Unicode letter with it, for these marks to be removed."""
_NON_LATIN_LETTER = rf"[{_LETTER}--\p{{Latin}}]"
_PICTURE_LETTER = regex.compile(r"\p{Extended_Pictographic}")
_MIXED_ALPHABETS = regex.compile(rf"(?V1)\p{{Latin}}\p{{M}}*{_NON_LATIN_LETTER}|{_NON_LATIN_LETTER}\p{{M}}*\p{{Latin}}")
_LETTER_SIGNS = "0134578@$!"
_AMONG_LETTERS = r"[\p{M}\p{Nd}\ufe0f@$!]"
_WORD = regex.compile(rf"(?V1)(?<!\p{{Nd}})\p{{Nd}}*+{_LETTER}(?:{_AMONG_LETTERS}*{_LETTER})+\p{{Nd}}*")
_LONE_LETTER = regex.compile(rf"(?V1)(?<![\p{{L}}\p{{N}}\p{{M}}]){_LETTER}(?![\p{{L}}\p{{N}}\p{{M}}])")
_SEPARATED_LETTERS = regex.compile(
    rf"(?V1)(?<![\p{{L}}\p{{N}}])(?P<first>{_LETTER}|[{_LETTER_SIGNS}])"
    rf"(?P<gap>[^\p{{L}}\p{{N}}\p{{M}}\s]|[^\S\n]|[ ][-\u2013\u2014.\u00b7\u2022*~_][ ])"
    rf"(?:{_LETTER}|[{_LETTER_SIGNS}])(?:(?P=gap){{1,4}}(?:{_LETTER}|[{_LETTER_SIGNS}]))+(?![\p{{L}}\p{{N}}])"
)
_MIN_SEPARATED = 4
"""Fewest separated letters that are joined to a word."""
_WORDS_OF_ONE_LETTER = "aAI"
_ARTICLE_MAY_FOLLOW = re.compile(r"(?<!\ban)(?<!\bthe)(?<=[A-Za-z])\s")
_WORD_WITH_SIGNS = re.compile(r"(?<![\w@$#|/\\.:=&%?+~-])[A-Za-z0-9@$!]{4,24}(?![\w@$|/\\=&%]|[.:@~-]\w)")
_SIGN_LETTERS = str.maketrans(dict(zip(_LETTER_SIGNS, "oieastbasi", strict=True)))
_INNER_SIGNS = re.compile("(?<=[A-Za-z])[^A-Za-z]+(?=[A-Za-z])")
_ABBREVIATION_LENGTH = 4
"""Most characters of abbreviations such as i18n and k8s."""
_NAME_OR_NUMBER = re.compile(
    r"[0-9a-f]+|[0-9A-F]+|0[xX].*|.*(?:\d{5}|[269]).*|(?=.*[A-Z]).*\d{3}.*|[A-Za-z]{3,}[@$!][A-Za-z]{3,}"
)
"""Matches hashes, names with numbers in them, and two words divided by a sign."""
_PLAIN_LETTERS = re.compile("[A-Za-z]")
_WIDE_SIGNS = re.compile(
    "(?<=[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a])[\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff5e]+"
)
_WIDE_DISTANCE = 0xFEE0
"""Distance between the code points of full-width and plain characters."""
_MIN_LETTERS = 3
"""Fewest letters of a word that is respelled; fewer may be a formula or a unit."""
_NOT_IN_FORMULA = re.compile("[\u0400-\u052f\uff21-\uff5a]")
_CAPITALS_TO_LOWER = re.compile(r"(?<=[A-Z])[A-Z]+|(?<=[\w,;:'\u2019-] )[A-Z]+|(?<=\w['\u2019-])[A-Z]+")
_ALTERNATING_CASE_WORD = re.compile(r"\b(?=[A-Za-z]{5})[A-Z]?(?:[a-z][A-Z])+[a-z]?\b")
_MIN_SHOUTED_LETTERS = 8
"""Fewest letters of a segment that counts as all capitals."""
_SHOUTED_SHARE = 0.8
"""Share of its letters that must be capitals."""
_WHOLE_WORD = re.compile(r"(?<![\w/.@:-])[A-Za-z]++(?![\w/@-]|\.\w)")
_REPEATED_LETTER = re.compile(r"([a-z])\1\1+")
_MIN_ACCENTS = 2
"""Fewest accents in an English word for them to be removed; loan words have one."""
TWO_ACCENTS = re.compile(r"[\u00c0-\u024f\u1e00-\u1eff]\w*[\u00c0-\u024f\u1e00-\u1eff]")
_FENCED_BLOCK = re.compile(r"[ \t]*+(?:```++|~~~++)[^\n]*+\n(.*?)(?:\n[ \t]*+(?:```++|~~~++)[ \t]*+)?", re.DOTALL)
_TICKED_TEXT = re.compile(r"(?<!`)(`{1,3})([^`\n]{1,400})\1")
_COMMENT_SIGNS = re.compile(r"^[ \t]*(?:#+|//+|--|/?\*+)[ \t]?|\*/[ \t]*$", re.MULTILINE)
_CODE_SIGNS = re.compile(
    r"[{}<>=\\$^|~`]|;[ \t]*$|\w[(\[]|::|->|\w_\w|\w[./]\w+[(./]|[ \t]#[ \t]"
    r"|^[ \t]*(?:[$>%][ \t]|import |from |def |class |return\b)",
    re.MULTILINE,
)
_SENTENCE_LINE = re.compile(
    r"^[ \t>*-]*[\"'\u201c\u00bf\u00a1]?[^\W\d_a-z][^\n]*\w[.!?\u3002\uff01\uff1f][\"'\u201d)]*[ \t]*$", re.MULTILINE
)


def is_prose(text: str) -> bool:
    """Whether the inside of a code block consists of sentences, rather than code. Comment signs are ignored."""
    body = _COMMENT_SIGNS.sub("", text)
    if not body.strip() or _CODE_SIGNS.search(body):
        return False
    return _SENTENCE_LINE.search(body) is not None or language(body) is not None


def apply_rules(segment: MappedText) -> None:
    """Apply all rules again and again until nothing changes, at most `_MAX_PASSES` times.

    If the segment is a fenced code block, its content alone is kept and undisguised, but only if it is prose.
    """
    fence = _FENCED_BLOCK.fullmatch(segment.text)
    if fence is not None:
        if not is_prose(fence[1]):
            return
        segment.keep_only(*fence.span(1))
    for _ in range(_MAX_PASSES):
        text_before = segment.text
        for rule in _RULES:
            rule(segment)
        if segment.text == text_before:
            return


def _reverse_text(segment: MappedText) -> None:
    """Reverse text that a control character displays from right to left."""
    if "\u202e" in segment.text:
        segment.replace(_REVERSED_TEXT, lambda match: match[1][::-1])


def _decode_entities(segment: MappedText) -> None:
    """Decode HTML entities of letters and of invisible characters."""
    if "&" in segment.text:
        segment.replace(_ENTITY, lambda match: _accept_decoded(html.unescape(match[0])))


def _accept_decoded(decoded: str) -> str | None:
    """The decoded entity if it is a letter or an invisible character; None for any other, which stays an entity."""
    is_accepted = len(decoded) == 1 and (decoded.isalpha() or _INVISIBLE.fullmatch(decoded))
    return decoded if is_accepted else None


def _replace_regional(segment: MappedText) -> None:
    """Replace regional-indicator letters by plain capitals, unless two of them form a flag."""
    if not segment.text.isascii():
        segment.replace(_SINGLE_REGIONAL_LETTER, lambda match: chr(ord(match[0]) - _REGIONAL_A + ord("A")))


def _remove_invisible(segment: MappedText) -> None:
    """Remove invisible characters, except those that a script or emoji needs."""
    if _INVISIBLE_OR_BLANK.search(segment.text) is None:
        return
    pattern = _INVISIBLE_BESIDE_RTL if _RIGHT_TO_LEFT.search(segment.text) else _INVISIBLE
    segment.replace(pattern, _find_shown_form)


def _find_shown_form(match: re.Match[str]) -> str | None:
    """What a reader sees of matched characters: nothing, or a space; None leaves those that the script needs."""
    if match["gone"]:
        return ""
    return " " if match["blank"] else None


def _narrow_signs(segment: MappedText) -> None:
    """Replace full-width signs after full-width letters, because even one full-width full stop can hide an insult."""
    if not segment.text.isascii():
        segment.replace(_WIDE_SIGNS, lambda match: "".join(chr(ord(char) - _WIDE_DISTANCE) for char in match[0]))


def _remove_marks(segment: MappedText) -> None:
    """Remove combining marks that cross letters out, are stacked on one letter, or occur on many letters of a word."""
    if not segment.text.isascii():
        segment.replace_words(_WORD_WITH_MARKS, _remove_word_marks)


def _remove_word_marks(word: str) -> str | None:
    """The word without combining marks that form no Unicode letter, if they are a disguise; otherwise None."""
    clusters: list[tuple[str, str]] = _LETTER_WITH_MARKS.findall(word)
    loose_marks = [marks for letter, marks in clusters if not _is_one_letter(letter + marks)]
    hides_letter = any(len(marks) >= _MIN_STACKED_MARKS or _CROSSING_MARK.search(marks) for marks in loose_marks)
    if len(loose_marks) < _MIN_MARKED_LETTERS and not hides_letter:
        return None
    removed_marks = frozenset(loose_marks)
    return "".join(letter if marks in removed_marks else letter + marks for letter, marks in clusters)


def _is_one_letter(cluster: str) -> bool:
    """Whether a letter and its combining marks form one Unicode character.

    The length is limited, because normalising many marks takes quadratic time.
    """
    return len(cluster) <= _LONGEST_DECOMPOSED and len(unicodedata.normalize("NFC", cluster)) == 1


def _join_divided_words(segment: MappedText) -> None:
    """Remove tags, comments and emphasis inside words."""
    segment.replace(_TAGS_IN_WORD, lambda _: "")
    # the emphasised letters are in group 2 behind other letters of the word, in group 4 before them
    segment.replace(_EMPHASIS_IN_WORD, lambda match: match[2] or match[4])


def _remove_ticks(segment: MappedText) -> None:
    """Remove backticks around sentences."""
    if "`" in segment.text:
        segment.replace(
            _TICKED_TEXT, lambda match: match[2] if match[2].count(" ") > 1 and is_prose(match[2]) else None
        )


def _replace_look_alikes(segment: MappedText) -> None:
    """Replace words that contain styled letters or letters of other alphabets."""
    if segment.text.isascii():
        return
    among_latin = _is_latin(segment.text)
    has_styled = any(map(look_alikes.plain_of_styled, set(segment.text)))
    if not (among_latin or has_styled or _MIXED_ALPHABETS.search(segment.text)):
        return
    # A styled word of some length shows that short styled ones near it are words, too, and no formulas.
    has_styled_word = any(map(_is_styled_word, set(_WORD.findall(segment.text))))
    min_letters = 1 if has_styled_word else _MIN_LETTERS
    segment.replace_words(_WORD, lambda word: _plain_word(word, among_latin=among_latin, min_letters=min_letters))
    if has_styled_word:
        segment.replace(_LONE_LETTER, lambda match: _plain_article(match[0]))


def _is_styled_word(word: str) -> bool:
    """Whether a word has at least `_MIN_LETTERS` letters and all of them are styled, but not shown as pictures."""
    letters = _letters_of(word)
    all_styled = len(letters) >= _MIN_LETTERS and all(map(look_alikes.plain_of_styled, letters))
    return all_styled and not _is_picture(letters)


def _letters_of(word: str) -> list[str]:
    """The letters of a word, styled ones included, which Unicode may class as symbols."""
    return [char for char in word if char.isalpha() or look_alikes.plain_of_styled(char).isalpha()]


def _is_picture(letters: Sequence[str]) -> bool:
    """Whether all of these letters are shown as pictures (emoji), as some circled and squared letters are."""
    return all(map(_PICTURE_LETTER.match, letters))


def _plain_article(letter: str) -> str | None:
    """The plain form of a styled letter that is a word by itself ("a", "I"); None for any other letter."""
    plain = look_alikes.plain_of_styled(letter) and look_alikes.plain(letter)
    return plain if plain and plain in _WORDS_OF_ONE_LETTER else None


def _is_latin(text: str) -> bool:
    """Whether a text has more ASCII letters than letters that look like no Latin letter."""
    other_count = sum(char.isalpha() and not look_alikes.plain(char) for char in text if not char.isascii())
    return len(_PLAIN_LETTERS.findall(text)) > other_count


def _plain_word(word: str, *, among_latin: bool, min_letters: int) -> str | None:
    """The word in plain letters; None if it is not disguised.

    `among_latin` says whether the text around it is in Latin letters. A word of fewer than `min_letters` letters may be
    a formula.
    """
    letters = _letters_of(word)
    unusual_letters = [char for char in letters if not (char.isascii() or _is_accented(char))]
    if not unusual_letters:
        return None
    if not all(map(look_alikes.plain, unusual_letters)):
        return _cyrillic_word(word, letters)
    foreign_letters = [char for char in unusual_letters if not look_alikes.plain_of_styled(char)]
    if len(foreign_letters) == len(letters):
        # All letters are of other alphabets, so it may be a real word.
        imitates_latin = all(map(look_alikes.is_twin, foreign_letters)) or _is_jumbled(foreign_letters)
        is_genuine = not (among_latin and imitates_latin)
    elif _is_picture(letters):
        is_genuine = True
    else:
        # Two letters are a formula rather than a word, unless one is Cyrillic or full-width.
        is_genuine = len(letters) < min_letters and not any(map(_NOT_IN_FORMULA.match, unusual_letters))
    return None if is_genuine else "".join(look_alikes.plain(char) or char for char in word if char != "\ufe0f")


def _is_jumbled(letters: Sequence[str]) -> bool:
    """Whether the letters belong to several alphabets, or one of them is a Cyrillic letter hardly used today."""
    # the Unicode name of a letter begins with its alphabet
    alphabets = {unicodedata.name(char).partition(" ")[0] for char in letters}
    return len(alphabets) > 1 or any("\u0460" <= char < "\u0530" for char in letters)


def _is_accented(char: str) -> bool:
    """Whether a letter is ASCII or an ordinary accented letter of a language in Latin script."""
    return (char < "\u0250" or "\u1e00" <= char < "\u1f00") and not look_alikes.plain_of_styled(char)


def _cyrillic_word(word: str, letters: Sequence[str]) -> str | None:
    """The word with its Latin letters replaced by Cyrillic ones that look the same; None if it is not disguised.

    A disguised word is mostly Cyrillic, has no third alphabet, and each of its Latin letters has a Cyrillic twin.
    `letters` are the letters of the word.
    """
    latin_letters = [char for char in letters if char.isascii()]
    cyrillic_count = sum("\u0400" <= char < "\u0530" for char in letters)
    has_third_alphabet = cyrillic_count + len(latin_letters) < len(letters)
    if not latin_letters or cyrillic_count <= len(latin_letters) or has_third_alphabet:
        return None
    if not all(map(look_alikes.cyrillic_twin, latin_letters)):
        return None
    return "".join(look_alikes.cyrillic_twin(char) or char for char in word)


def _join_letters(segment: MappedText) -> None:
    """Join words whose letters are separated; a wider gap becomes the space between words."""
    segment.replace(_SEPARATED_LETTERS, _join_match)


def _join_match(match: Any) -> str | None:
    """The word or words that separated letters spell; None if they may be something else, such as numbers."""
    gap = match["gap"]
    # a group in the pattern makes `split` return the gaps, too: letter, gap, letter, ...
    parts = re.split(f"((?:{re.escape(gap)})+)", match[0])
    letters = parts[::2]
    gaps = parts[1::2]
    letter_count = sum(look_alikes.plain(char).isalpha() for char in letters)
    # about half must be letters rather than digits, or a series of digits would be read as a word
    if len(letters) < _MIN_SEPARATED or letter_count < 2 or 2 * letter_count + 1 < len(letters):
        return None
    if not all(char in _LETTER_SIGNS or look_alikes.plain(char) for char in letters):
        return None
    narrow_gap = min(gaps, key=len)
    if letters[0] in _WORDS_OF_ONE_LETTER and _ARTICLE_MAY_FOLLOW.match(match.string, max(0, match.start() - 1)):
        # in "what a f o o l" the "a" is a word, so the gap behind it becomes a wide one
        gaps[0] += narrow_gap * gap.isspace()
    joined = letters[0]
    for letter_gap, letter in zip(gaps, letters[1:], strict=True):
        joined += letter if letter_gap == narrow_gap else f" {letter}"
    return joined


def _replace_signs(segment: MappedText) -> None:
    """Replace digits and signs that stand for letters in words."""
    segment.replace_words(_WORD_WITH_SIGNS, _spell_word)


def _lower_capitals(segment: MappedText) -> None:
    """Write a segment that is nearly all capitals in small letters, in others only words such as "hElLo"."""
    if _is_shouted(segment.text):
        # the word "I" is a capital in any sentence
        segment.replace(_CAPITALS_TO_LOWER, lambda match: match[0] if match[0] == "I" else match[0].lower())
    else:
        segment.replace(_ALTERNATING_CASE_WORD, lambda match: match[0].lower())


def _is_shouted(text: str) -> bool:
    """Whether a segment of several words is nearly all in capitals."""
    letters = _PLAIN_LETTERS.findall(text)
    return (
        len(letters) >= _MIN_SHOUTED_LETTERS
        and sum(map(str.isupper, letters)) > _SHOUTED_SHARE * len(letters)
        and " " in text
    )


def _shorten_repeats(segment: MappedText) -> None:
    """Shorten letters that are repeated three or more times."""
    if _REPEATED_LETTER.search(segment.text):
        segment.replace(_WHOLE_WORD, _shorten_word)


def _shorten_word(match: re.Match[str]) -> str | None:
    """The matched word with each repeated letter once; None for a word of one letter throughout, such as "aaa"."""
    return _REPEATED_LETTER.sub(r"\1", match[0]) if len(set(match[0])) > 1 else None


def _remove_accents(segment: MappedText) -> None:
    """Remove accents from English words that have several."""
    if TWO_ACCENTS.search(segment.text) and language(segment.text) == "en":
        segment.replace_words(_WORD, _remove_word_accents)


def _remove_word_accents(word: str) -> str | None:
    """The word without accents, if it has several; otherwise None."""
    accented_letters = [char for char in word if _is_accented(char) and not char.isascii()]
    if len(accented_letters) < _MIN_ACCENTS:
        return None
    return "".join(_base_letter(char) if char in accented_letters else char for char in word)


def _base_letter(char: str) -> str:
    """A letter without its accents."""
    base = unicodedata.normalize("NFD", char)[0]
    return base if base.isascii() else look_alikes.plain(char) or char


def _spell_word(token: str) -> str | None:
    """The word that a mix of letters, digits and signs spells ("1d10t"); None for names, units and numbers.

    None also for abbreviations such as "k8s". Exclamation marks at the end are kept.
    """
    body = token.rstrip("!")
    letters = "".join(char for char in body if char.isalpha())
    if _NAME_OR_NUMBER.fullmatch(body) or not _is_spelled(body, len(letters)) or not _is_in_one_case(letters):
        return None
    spelled = body.translate(_SIGN_LETTERS)
    return (spelled.upper() if letters.isupper() else spelled) + token[len(body) :]


def _is_spelled(body: str, letter_count: int) -> bool:
    """Whether digits or signs replace letters inside a word, and are not just a number before a unit or after a name.

    `letter_count` is the number of letters in `body`.
    """
    # only signs between letters count, because signs at the ends may be punctuation or a number
    sign_count = len(_INNER_SIGNS.findall(body))
    is_clear = not (body.isalnum() and body[0].isalpha())
    has_final_digit = not (body[-2:].isdigit() or body[-1].isalpha())
    if has_final_digit and not is_clear:
        sign_count -= 1  # a version or a serial number
    if letter_count >= _MIN_LETTERS:
        return sign_count > 0
    # with fewer letters it may be an abbreviation such as k8s
    return sign_count > 0 and letter_count > 1 and (is_clear or len(body) > _ABBREVIATION_LENGTH)


def _is_in_one_case(letters: str) -> bool:
    """Whether the letters of a word are all small, all small but the first, or at least `_MIN_LETTERS` capitals.

    Words with other mixes of capitals and small letters are names or identifiers.
    """
    if letters.isupper():
        return len(letters) >= _MIN_LETTERS
    return letters in (letters.lower(), letters.capitalize())


_RULES = (
    _reverse_text,
    _replace_regional,
    _decode_entities,
    _remove_invisible,
    _narrow_signs,
    _remove_marks,
    _join_divided_words,
    _remove_ticks,
    _replace_look_alikes,
    _join_letters,
    _replace_signs,
    _lower_capitals,
    _shorten_repeats,
    _remove_accents,
)
