"""Removal of disguises from a text: what a reader sees, for a detector that was trained on plain letters.

These disguises are removed: invisible characters, styled letters, letters of other alphabets in Latin words and the
reverse, combining marks on every letter, letters separated by something, digits and signs used as letters, and prose
formatted as code. Text without obfuscation is unchanged: words in any script, emoji sequences, code, formulas. A letter
is replaced only if its word shows that it is obfuscated.

Each segment is undisguised separately, so the finished segments of a growing text do not change. Every character of the
undisguised text maps to a position in the original, and segments correspond one to one. A segment never becomes empty.
"""

from __future__ import annotations

import html
import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex

from aligner_proxy.text import look_alikes
from aligner_proxy.text.languages import language
from aligner_proxy.text.mapped import MappedText
from aligner_proxy.text.structure import Segment, split

_KNOWN_CHARS = 2_000
"""Longest segment whose undisguised form is cached."""
_ROUNDS = 4
"""Maximum number of passes, because one rule may uncover a case for another.

More is an attack rather than obfuscation.
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
_BLANK = r"\u2800\u3164\uffa0\u115f\u1160"
"""Characters that look like white space but are not."""
_BIDI = r"\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"
_WRITING = (
    r"\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f"  # a flag of a region
    rf"|{_PICTURE}(?:\u200d{_PICTURE})*"
    r"|[\p{S}#*0-9][\ufe0e\ufe0f]\u20e3?"
    r"|\p{Han}[\ufe00-\ufe02\U000e0100-\U000e01ef]|\p{Mongolian}[\u180b-\u180f]|\p{Hebrew}\p{M}{0,32}\u034f"
    r"|\u115f(?=[\u1160-\u11a7])|[\u1100-\u115f]\u1160"
    rf"|[{_JOINING_SCRIPTS}][\u200c\u200d](?!\p{{DI}})|[{_UNSPACED}]\u200b(?!\p{{DI}})"
)
"""Invisible characters that belong to the writing, together with what they follow."""
_GONE = r"[[\p{DI}\p{Cc}\ufff9-\ufffb]--[\s\u3164\uffa0\u115f\u1160]]"
_NOT_SHOWN = regex.compile(rf"(?V1){_GONE}|[{_BLANK}]")
_INVISIBLE = regex.compile(rf"(?V1){_WRITING}|(?P<gone>{_GONE}+)|(?P<blank>[{_BLANK}])")
_INVISIBLE_BESIDE_RTL = regex.compile(
    rf"(?V1){_WRITING}|(?<![\p{{L}}\p{{N}}])[{_BIDI}]|[{_BIDI}](?![\p{{L}}\p{{N}}])"
    rf"|(?P<gone>{_GONE}+)|(?P<blank>[{_BLANK}])"
)
_RIGHT_TO_LEFT = regex.compile(r"(?V1)[\p{Hebrew}\p{Arabic}\p{Syriac}\p{Thaana}\p{Nko}]")
_REVERSED = regex.compile(r"(?V1)\u202e([^\n\u202a-\u202e]*)\u202c?")
_REGIONAL = regex.compile(r"(?V1)(?<!\p{Regional_Indicator})\p{Regional_Indicator}(?!\p{Regional_Indicator})")
_REGIONAL_A = 0x1F1E6
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,14});")
_EMPHASIS = re.compile(r"(?<=[^\W\d_])(\*{1,3}|~~)([^\W\d_]+)\1|(\*{1,3}|~~)([^\W\d_]+)\3(?=[^\W\d_])")
_IN_WORD = re.compile(
    r"(?<=[^\W\d_])(?:<!--[^<>\n]{0,80}-->|</?(?:b|i|u|s|em|strong|span|mark|small|big|font|a|wbr)"
    r"(?:\s[^<>\n]{0,80})?/?>)+(?=[^\W\d_])"
)
# Combining marks that cross out or enclose a letter.
_OVER = r"\u0334-\u0338\u0488\u0489\u20d2\u20d3\u20d8-\u20da\u20dd-\u20e0\u20e2-\u20e6\u20ea\u20eb"
_MARKED = regex.compile(r"(?V1)(?:[\p{Latin}\p{Greek}\p{Cyrillic}]\p{M}+)+")
_CLUSTER = regex.compile(r"(?V1)(\p{L})(\p{M}+)")
_CROSSED = regex.compile(rf"(?V1)[{_OVER}]")
_STACKED = 3
"""Marks on one letter that count as obfuscation by themselves."""
_LONGEST_DECOMPOSED = 4
"""Maximum number of characters in a canonical Unicode decomposition of one character."""
_MARKED_LETTERS = 3
"""Letters of a word with a loose mark from which the marks are removed."""
_OTHER = rf"[{_LETTER}--\p{{Latin}}]"
_PICTURE_LETTER = regex.compile(r"\p{Extended_Pictographic}")
_MIXED = regex.compile(rf"(?V1)\p{{Latin}}\p{{M}}*{_OTHER}|{_OTHER}\p{{M}}*\p{{Latin}}")
_SIGNS = "0134578@$!"
_AMONG = r"[\p{M}\p{Nd}\ufe0f@$!]"
_WORD = regex.compile(rf"(?V1)(?<!\p{{Nd}})\p{{Nd}}*+{_LETTER}(?:{_AMONG}*{_LETTER})+\p{{Nd}}*")
_ONE_LETTER = regex.compile(rf"(?V1)(?<![\p{{L}}\p{{N}}\p{{M}}]){_LETTER}(?![\p{{L}}\p{{N}}\p{{M}}])")
_APART = regex.compile(
    rf"(?V1)(?<![\p{{L}}\p{{N}}])(?P<first>{_LETTER}|[{_SIGNS}])"
    rf"(?P<gap>[^\p{{L}}\p{{N}}\p{{M}}\s]|[^\S\n]|[ ][-\u2013\u2014.\u00b7\u2022*~_][ ])"
    rf"(?:{_LETTER}|[{_SIGNS}])(?:(?P=gap){{1,4}}(?:{_LETTER}|[{_SIGNS}]))+(?![\p{{L}}\p{{N}}])"
)
_MIN_APART = 4
"""Fewest separated letters that are joined to a word."""
_WORDS_OF_ONE_LETTER = "aAI"
_ARTICLE_MAY_FOLLOW = re.compile(r"(?<!\ban)(?<!\bthe)(?<=[A-Za-z])\s")
_WITH_SIGNS = re.compile(r"(?<![\w@$#|/\\.:=&%?+~-])[A-Za-z0-9@$!]{4,24}(?![\w@$|/\\=&%]|[.:@~-]\w)")
_SIGN_LETTERS = str.maketrans(dict(zip(_SIGNS, "oieastbasi", strict=True)))
_SIGNS_INSIDE = re.compile("(?<=[A-Za-z])[^A-Za-z]+(?=[A-Za-z])")
_ABBREVIATED = 4
"""Length of i18n, k8s and similar abbreviations."""
_NUMBERED = re.compile(
    r"[0-9a-f]+|[0-9A-F]+|0[xX].*|.*(?:\d{5}|[269]).*|(?=.*[A-Z]).*\d{3}.*|[A-Za-z]{3,}[@$!][A-Za-z]{3,}"
)
"""Matches hashes, names with numbers in them, and two words divided by a sign."""
_PLAIN_LETTERS = re.compile("[A-Za-z]")
_WIDE_SIGN = re.compile(
    "(?<=[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a])[\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff5e]+"
)
_WIDE = 0xFEE0
"""Distance between the code points of full-width and plain characters."""
_MIN_LETTERS = 3
"""Fewest letters of a word that is respelled; fewer may be a formula or a unit."""
_NO_FORMULA = re.compile("[\u0400-\u052f\uff21-\uff5a]")
_CAPITALS = re.compile(r"(?<=[A-Z])[A-Z]+|(?<=[\w,;:'\u2019-] )[A-Z]+|(?<=\w['\u2019-])[A-Z]+")
_BY_TURNS = re.compile(r"\b(?=[A-Za-z]{5})[A-Z]?(?:[a-z][A-Z])+[a-z]?\b")
_SHOUTED = 8
"""Fewest letters of a segment that counts as all capitals."""
_SHOUTED_SHARE = 0.8
"""Share of its letters that must be capitals."""
_WHOLE_WORD = re.compile(r"(?<![\w/.@:-])[A-Za-z]++(?![\w/@-]|\.\w)")
_REPEATED = re.compile(r"([a-z])\1\1+")
_ACCENTS = 2
"""Accents in an English word from which they are removed; one is found in loan words."""
_TWO_ACCENTS = re.compile(r"[\u00c0-\u024f\u1e00-\u1eff]\w*[\u00c0-\u024f\u1e00-\u1eff]")
_FENCED = re.compile(r"[ \t]*+(?:```++|~~~++)[^\n]*+\n(.*?)(?:\n[ \t]*+(?:```++|~~~++)[ \t]*+)?", re.DOTALL)
_TICKED = re.compile(r"(?<!`)(`{1,3})([^`\n]{1,400})\1")
_COMMENT = re.compile(r"^[ \t]*(?:#+|//+|--|/?\*+)[ \t]?|\*/[ \t]*$", re.MULTILINE)
_CODE = re.compile(
    r"[{}<>=\\$^|~`]|;[ \t]*$|\w[(\[]|::|->|\w_\w|\w[./]\w+[(./]|[ \t]#[ \t]"
    r"|^[ \t]*(?:[$>%][ \t]|import |from |def |class |return\b)",
    re.MULTILINE,
)
_SENTENCE = re.compile(
    r"^[ \t>*-]*[\"'\u201c\u00bf\u00a1]?[^\W\d_a-z][^\n]*\w[.!?\u3002\uff01\uff1f][\"'\u201d)]*[ \t]*$", re.MULTILINE
)
# ASCII text without a match contains no obfuscation.
_ASCII_SIGNS = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f`~&]|[A-Za-z][0134578@$!]|[0134578@$!][A-Za-z]|[A-Za-z]\*{1,3}[A-Za-z]|[A-Za-z]</?[!A-Za-z]"
    r"|([a-z])\1\1|[a-z][A-Z][a-z][A-Z]|[A-Z]{2}\W{1,3}(?:[A-Z]\W{1,3})?[A-Z]{2}"
    r"|(?<![A-Za-z0-9])[A-Za-z0-9@$!](?P<gap>[^\w\n]|_)[^\w\n]{0,2}[A-Za-z0-9@$!](?P=gap)"
)


@dataclass(frozen=True, slots=True)
class UndisguisedText:
    """A text as a reader sees it; identical to the original if nothing is obfuscated."""

    text: str
    origins: tuple[int, ...] = ()
    """Position of each character in the original, then the original's length; empty if nothing differs."""

    def place_in_undisguised(self, place: int) -> int:
        """Translate a position in the original to the undisguised text."""
        return bisect_left(self.origins, place) if self.origins else place

    def place_in_original(self, place: int) -> int:
        """Translate a position in the undisguised text to the original."""
        return self.origins[place] if self.origins else place

    @property
    def length(self) -> int:
        """Number of characters of the original."""
        return self.origins[-1] if self.origins else len(self.text)

    def cut(self, start: int, end: int) -> UndisguisedText:
        """The part between two positions of the original."""
        if not self.origins:
            return UndisguisedText(self.text[start:end])
        first = self.place_in_undisguised(start)
        last = self.place_in_undisguised(end)
        return UndisguisedText(
            self.text[first:last], (*(place - start for place in self.origins[first:last]), end - start)
        )

    def segments(self, pieces: Iterable[Segment]) -> list[Segment]:
        """Translate segments of the original to the undisguised text."""
        return [self._translate_segment(piece) for piece in pieces] if self.origins else list(pieces)

    def _translate_segment(self, piece: Segment) -> Segment:
        """The segment of the undisguised text that corresponds to this segment of the original."""
        start = self.place_in_undisguised(piece.start)
        return Segment(start, self.text[start : self.place_in_undisguised(piece.end)], piece.gap)


SAME = UndisguisedText("")
"""The undisguised form of a text that stays as it is."""


def undisguise(text: str) -> UndisguisedText:
    """The text without obfuscation; if a quick test or the rules find none, its `text` is the same string."""
    if not _may_be_disguised(text):
        return UndisguisedText(text)
    undisguised = join_undisguised(
        part for piece in split(text) for part in (undisguise_segment(piece.text), UndisguisedText(piece.gap))
    )
    return undisguised if undisguised.origins else UndisguisedText(text)


def undisguise_segment(text: str) -> UndisguisedText:
    """The text of one segment without obfuscation."""
    undisguised, places = _undisguise_cached(text) if len(text) <= _KNOWN_CHARS else _undisguise(text)
    return UndisguisedText(text) if undisguised == text else UndisguisedText(undisguised, (*places, len(text)))


def join_undisguised(parts: Iterable[UndisguisedText]) -> UndisguisedText:
    """Concatenate undisguised texts."""
    parts = list(parts)
    text = "".join(part.text for part in parts)
    if not any(part.origins for part in parts):
        return UndisguisedText(text)
    origins = list[int]()
    start = 0
    for part in parts:
        # a part without origins is the original itself; the last origin is the part's end
        places = part.origins[:-1] or range(len(part.text))
        origins += [start + place for place in places]
        start += part.length
    return UndisguisedText(text, (*origins, start))


def restore_disguises(text: str, original: str) -> str:
    """An edited version `text` of the undisguised `original`, each unedited segment as it stands in `original`."""
    undisguised = undisguise(original)
    # nothing was disguised
    if not undisguised.origins:
        return text
    pieces = split(original)
    undisguised_pieces = undisguised.segments(pieces)
    # nothing was edited
    if text.strip() == undisguised.text.strip():
        return original
    originals = {
        undisguised_piece.text.strip(): piece.text.strip()
        for undisguised_piece, piece in zip(undisguised_pieces, pieces, strict=True)
    }
    return "".join(originals.get(piece.text.strip(), piece.text) + piece.gap for piece in split(text))


def is_prose(text: str) -> bool:
    """Whether text formatted as code consists of sentences. The signs of comments are ignored."""
    body = _COMMENT.sub("", text)
    if not body.strip() or _CODE.search(body):
        return False
    return _SENTENCE.search(body) is not None or language(body) is not None


def _may_be_disguised(text: str) -> bool:
    """Whether a text may contain obfuscation, by a quick test."""
    if text.isascii():
        return _ASCII_SIGNS.search(text) is not None
    return (
        any(map(_is_odd, set(text))) or _TWO_ACCENTS.search(text) is not None or _ASCII_SIGNS.search(text) is not None
    )


@lru_cache(maxsize=8192)
def _is_odd(char: str) -> bool:
    """Whether a non-ASCII character can be part of an obfuscation."""
    if char.isascii():
        return False
    invisible = unicodedata.category(char) in ("Cc", "Cf", "Mn", "Me") or char in "\u2800\u3164\uffa0\u115f\u1160"
    return invisible or char.isspace() or bool(look_alikes.plain(char)) or "\U0001f1e6" <= char <= "\U0001f1ff"


def _undisguise(segment: str) -> tuple[str, Sequence[int]]:
    """One segment undisguised, and the position of each undisguised character in it."""
    if not _may_be_disguised(segment):
        return segment, range(len(segment))
    piece = MappedText(segment)
    _apply_rules(piece)
    if not piece.text.strip():
        # of a segment that is all invisible, one character stays: a segment never becomes empty
        return segment[:1], range(1)
    # An array, because hundreds of results are cached, and a list takes nine times as much memory per position.
    return piece.text, range(len(segment)) if piece.text == segment else array("I", piece.origins)


_undisguise_cached = lru_cache(maxsize=512)(_undisguise)
"""Caches results, because an answer that is still being written is undisguised again and again."""


def _apply_rules(piece: MappedText) -> None:
    """Apply all rules until nothing changes; of a code block, only if it is prose, and without its fences."""
    fence = _FENCED.fullmatch(piece.text)
    if fence is not None:
        if not is_prose(fence[1]):
            return
        piece.cut(*fence.span(1))
    for _ in range(_ROUNDS):
        before = piece.text
        for rule in _RULES:
            rule(piece)
        if piece.text == before:
            return


def _reverse_text(piece: MappedText) -> None:
    """Reverse text that a control character displays from right to left."""
    if "\u202e" in piece.text:
        piece.replace(_REVERSED, lambda match: match[1][::-1])


def _decode_entities(piece: MappedText) -> None:
    """Decode letters and invisible characters written as HTML entities."""
    if "&" in piece.text:
        piece.replace(_ENTITY, lambda match: _as_letter(html.unescape(match[0])))


def _as_letter(char: str) -> str | None:
    """The decoded entity if it is a letter or an invisible character; None leaves any other entity as it is."""
    return char if len(char) == 1 and (char.isalpha() or _INVISIBLE.fullmatch(char)) else None


def _replace_regional(piece: MappedText) -> None:
    """Replace single regional-indicator letters, which would form flags in pairs."""
    if not piece.text.isascii():
        piece.replace(_REGIONAL, lambda match: chr(ord(match[0]) - _REGIONAL_A + ord("A")))


def _remove_invisible(piece: MappedText) -> None:
    """Remove invisible characters, except those that belong to the writing."""
    if _NOT_SHOWN.search(piece.text) is None:
        return
    pattern = _INVISIBLE_BESIDE_RTL if _RIGHT_TO_LEFT.search(piece.text) else _INVISIBLE
    piece.replace(pattern, _find_shown_form)


def _find_shown_form(match: re.Match[str]) -> str | None:
    """What is shown of invisible characters: nothing, or a space; None if they belong to the writing."""
    if match["gone"]:
        return ""
    return " " if match["blank"] else None


def _narrow_signs(piece: MappedText) -> None:
    """Replace full-width signs after full-width letters, because even one full-width full stop can hide an insult."""
    if not piece.text.isascii():
        piece.replace(_WIDE_SIGN, lambda match: "".join(chr(ord(char) - _WIDE) for char in match[0]))


def _remove_marks(piece: MappedText) -> None:
    """Remove combining marks that cross letters out, are stacked on one letter, or occur on many letters of a word."""
    if not piece.text.isascii():
        piece.replace_words(_MARKED, _remove_word_marks)


def _remove_word_marks(word: str) -> str | None:
    """The word without marks that form no letter, if these show obfuscation; otherwise None."""
    clusters: list[tuple[str, str]] = _CLUSTER.findall(word)
    loose = [marks for letter, marks in clusters if not _is_one_letter(letter + marks)]
    if len(loose) < _MARKED_LETTERS and not any(len(marks) >= _STACKED or _CROSSED.search(marks) for marks in loose):
        return None
    removed_marks = frozenset(loose)
    return "".join(letter if marks in removed_marks else letter + marks for letter, marks in clusters)


def _is_one_letter(cluster: str) -> bool:
    """Whether the letter and its marks form one Unicode character.

    Bounded, as sorting many marks takes quadratic time.
    """
    return len(cluster) <= _LONGEST_DECOMPOSED and len(unicodedata.normalize("NFC", cluster)) == 1


def _join_divided_words(piece: MappedText) -> None:
    """Remove formatting marks inside words."""
    piece.replace(_IN_WORD, lambda _: "")
    piece.replace(_EMPHASIS, lambda match: match[2] or match[4])


def _remove_ticks(piece: MappedText) -> None:
    """Remove backticks around sentences."""
    if "`" in piece.text:
        piece.replace(_TICKED, lambda match: match[2] if match[2].count(" ") > 1 and is_prose(match[2]) else None)


def _replace_look_alikes(piece: MappedText) -> None:
    """Replace words that contain styled letters or letters of other alphabets."""
    if not piece.text.isascii():
        among_latin = _is_latin(piece.text)
        if not (among_latin or _MIXED.search(piece.text) or any(map(look_alikes.plain_of_styled, set(piece.text)))):
            return
        # A styled word of some length shows that the short ones near it are words, too.
        fewest = 1 if any(map(_is_styled_word, set(_WORD.findall(piece.text)))) else _MIN_LETTERS
        piece.replace_words(_WORD, lambda word: _plain_word(word, among_latin=among_latin, fewest=fewest))
        if fewest == 1:
            piece.replace(_ONE_LETTER, lambda match: _plain_article(match[0]))


def _is_styled_word(word: str) -> bool:
    """Whether all letters of a word, and enough of them, are styled ones."""
    letters = [char for char in word if char.isalpha() or look_alikes.plain_of_styled(char).isalpha()]
    return len(letters) >= _MIN_LETTERS and all(map(look_alikes.plain_of_styled, letters)) and not _is_picture(letters)


def _is_picture(letters: Sequence[str]) -> bool:
    """Whether all of these letters are shown as pictures, as circled and squared ones may be."""
    return all(map(_PICTURE_LETTER.match, letters))


def _plain_article(letter: str) -> str | None:
    """The plain form of a styled letter that is a word by itself ("a", "I"); None for any other letter."""
    plain = look_alikes.plain_of_styled(letter) and look_alikes.plain(letter)
    return plain if plain and plain in _WORDS_OF_ONE_LETTER else None


def _is_latin(text: str) -> bool:
    """Whether a text has more ASCII letters than letters that look like no Latin letter."""
    odd = sum(char.isalpha() and not look_alikes.plain(char) for char in text if not char.isascii())
    return len(_PLAIN_LETTERS.findall(text)) > odd


def _plain_word(word: str, *, among_latin: bool, fewest: int) -> str | None:
    """A word in plain letters; None if its letters show no obfuscation.

    With fewer than `fewest` letters it may be a formula. `among_latin`: the text around it is in Latin letters.
    """
    letters = [char for char in word if char.isalpha() or look_alikes.plain_of_styled(char).isalpha()]
    odd = [char for char in letters if not (char.isascii() or _is_accented(char))]
    if not odd:
        return None
    if not all(map(look_alikes.plain, odd)):
        return _cyrillic_word(word, letters)
    foreign = [char for char in odd if not look_alikes.plain_of_styled(char)]
    if len(foreign) == len(letters):
        # All letters are of other alphabets, so it may be a real word.
        is_genuine = not among_latin or not (all(map(look_alikes.is_twin, foreign)) or _is_jumbled(foreign))
    elif _is_picture(letters):
        is_genuine = True
    else:
        # Two letters are a formula rather than a word, unless one is Cyrillic or full-width.
        is_genuine = len(letters) < fewest and not any(map(_NO_FORMULA.match, odd))
    return None if is_genuine else "".join(look_alikes.plain(char) or char for char in word if char != "\ufe0f")


def _is_jumbled(letters: Sequence[str]) -> bool:
    """Whether these letters do not all belong to one alphabet in present use."""
    alphabets = {unicodedata.name(char).partition(" ")[0] for char in letters}
    return len(alphabets) > 1 or any("\u0460" <= char < "\u0530" for char in letters)


def _is_accented(char: str) -> bool:
    """Whether this is an ordinary letter of a language in Latin script."""
    return (char < "\u0250" or "\u1e00" <= char < "\u1f00") and not look_alikes.plain_of_styled(char)


def _cyrillic_word(word: str, letters: Sequence[str]) -> str | None:
    """A Cyrillic word with its Latin letters replaced by Cyrillic ones; None if there is nothing to replace."""
    latin = [char for char in letters if char.isascii()]
    cyrillic_count = sum("\u0400" <= char < "\u0530" for char in letters)
    if (
        not latin
        # a word to be replaced is mostly Cyrillic, has no third alphabet, and each Latin letter has a twin
        or cyrillic_count <= len(latin)
        or cyrillic_count + len(latin) < len(letters)
        or not all(map(look_alikes.cyrillic_twin, latin))
    ):
        return None
    return "".join(look_alikes.cyrillic_twin(char) or char for char in word)


def _join_letters(piece: MappedText) -> None:
    """Join words whose letters are separated; a wider gap becomes the space between words."""
    piece.replace(_APART, _join_match)


def _join_match(match: Any) -> str | None:
    """The word or words that separated letters spell; None if they may be something else, such as numbers."""
    gap = match["gap"]
    # a pattern in brackets makes `split` return the gaps, too: letter, gap, letter, ...
    parts = re.split(f"((?:{re.escape(gap)})+)", match[0])
    letters = parts[::2]
    gaps = parts[1::2]
    alphabetic = sum(look_alikes.plain(char).isalpha() for char in letters)
    # about half must be letters, or a series of digits would be read as a word
    if len(letters) < _MIN_APART or alphabetic < 2 or 2 * alphabetic + 1 < len(letters):
        return None
    if not all(char in _SIGNS or look_alikes.plain(char) for char in letters):
        return None
    narrow_gap = min(gaps, key=len)
    if letters[0] in _WORDS_OF_ONE_LETTER and _ARTICLE_MAY_FOLLOW.match(match.string, max(0, match.start() - 1)):
        # "what a f o o l" begins with a word of one letter; after an article it would belong to the next word
        gaps[0] += narrow_gap * gap.isspace()
    spaces = ("" if each == narrow_gap else " " for each in gaps)
    return letters[0] + "".join(space + char for space, char in zip(spaces, letters[1:], strict=True))


def _replace_signs(piece: MappedText) -> None:
    """Replace digits and signs that stand for letters in words."""
    piece.replace_words(_WITH_SIGNS, _spell_word)


def _lower_capitals(piece: MappedText) -> None:
    """Lower words that alternate between capitals and small letters, and segments that are all capitals."""
    if _is_shouted(piece.text):
        # "I" is a capital in any sentence
        piece.replace(_CAPITALS, lambda match: match[0] if match[0] == "I" else match[0].lower())
    else:
        piece.replace(_BY_TURNS, lambda match: match[0].lower())


def _is_shouted(text: str) -> bool:
    """Whether a segment of several words is nearly all in capitals."""
    letters = _PLAIN_LETTERS.findall(text)
    return len(letters) >= _SHOUTED and sum(map(str.isupper, letters)) > _SHOUTED_SHARE * len(letters) and " " in text


def _shorten_repeats(piece: MappedText) -> None:
    """Shorten letters that are repeated three or more times."""
    if _REPEATED.search(piece.text):
        piece.replace(_WHOLE_WORD, lambda match: _REPEATED.sub(r"\1", match[0]) if len(set(match[0])) > 1 else None)


def _remove_accents(piece: MappedText) -> None:
    """Remove accents from English words that have several."""
    if _TWO_ACCENTS.search(piece.text) and language(piece.text) == "en":
        piece.replace_words(_WORD, _remove_word_accents)


def _remove_word_accents(word: str) -> str | None:
    """The word without accents, if it has several; otherwise None."""
    accented = [char for char in word if _is_accented(char) and not char.isascii()]
    if len(accented) < _ACCENTS:
        return None
    return "".join(_base_letter(char) if char in accented else char for char in word)


def _base_letter(char: str) -> str:
    """A letter without its accents."""
    base = unicodedata.normalize("NFD", char)[0]
    return base if base.isascii() else look_alikes.plain(char) or char


def _spell_word(token: str) -> str | None:
    """The word that a mix of letters, digits and signs spells; None for names, units, abbreviations and numbers."""
    body = token.rstrip("!")
    letters = "".join(char for char in body if char.isalpha())
    if _NUMBERED.fullmatch(body) or not (_is_spelled(body, len(letters)) and _is_in_one_case(letters)):
        return None
    spelled = body.translate(_SIGN_LETTERS)
    return (spelled.upper() if letters.isupper() else spelled) + token[len(body) :]


def _is_spelled(body: str, letter_count: int) -> bool:
    """Whether signs replace letters inside a word, and are not just a number before a unit or after a name."""
    # signs at the ends may be punctuation or a number
    signs_inside = len(_SIGNS_INSIDE.findall(body))
    is_clear = not (body.isalnum() and body[0].isalpha())
    if not (is_clear or body[-2:].isdigit() or body[-1].isalpha()):
        signs_inside -= 1  # a version or a serial number
    if letter_count >= _MIN_LETTERS:
        return signs_inside > 0
    # with fewer letters it may be an abbreviation such as k8s
    return signs_inside > 0 and letter_count > 1 and (is_clear or len(body) > _ABBREVIATED)


def _is_in_one_case(letters: str) -> bool:
    """Whether the letters of a word are all small, all small but the first, or several capitals."""
    if letters.isupper():
        return len(letters) >= _MIN_LETTERS
    # other mixes of capitals and small letters are names or ids
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
