"""Chat style: sentences that begin with a small letter behind a full stop, as in "it is fine. you are right. call us."

A small letter behind a full stop mostly continues a sentence, because the full stop belongs to an abbreviation, a file
name or a title. The small letter begins a sentence if the word before the full stop is an ordinary word, and if either
the sentence before began with a small letter, too, or the next word is one that hardly ever continues a sentence.
"""

from __future__ import annotations

import re

from aligner_proxy.text.abbreviations import word_set

MARKS = (".", "!", "?")
"""End marks behind which a sentence may begin with a small letter."""
LONGEST_WORD = 48
"""Most characters of the next word that are needed to decide."""
_LAST_WORD = re.compile(
    r"(?:^|(?<=[\s\"'\u201c\u2018(]))(?P<word>[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|\d{1,4})(?:\.|[!?]{1,3})$"
)
"""Matches the last word of a sentence and its mark; the word is no part of a name of a file or page."""
_NEXT_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_VOWEL = re.compile(r"[aeiouy\u00e0-\u00ff]")
_SMALL_ABBREVIATIONS = word_set(
    "ab abs abt adj adv alt approx apr aprox apt art aug av ave avg ca cap chap cit co col conj cont corp corr "
    "dec dept div ed eds eg elev eq esp est etc ev ex excl exkl ext feb fig fri gal geb gem gest ibid id ie in "
    "inc incl init inkl intl jan jul jun kap lim loc max med mi mil min mind mins mio misc mo mon mult neg no nos "
    "nov num oct op opp opt orig oz pag par pos poss prep prev prob prof qty ref refs rel rep repr resp rev sat "
    "sec secs sen sep sept seq sog spec sun tel temp thu thur thurs trans tue tues usu usw var ver verb verh vol "
    "wed yd yr yrs"
)
"""Abbreviations in small letters, besides those that end no sentence anyway."""
_SENTENCE_STARTERS = word_set(
    "i i'm i'll i've i'd you you're you'll you've you'd he he's she she's we we're we'll we've they they're they'll it "
    "it's that's there's what's here's nobody everybody everyone please don't"
)
"""Words that hardly ever continue a sentence behind a full stop."""
_CONTINUING_WORDS = word_set(
    "and or to of than as at by for from in into on per with within without is are was were has had und oder von zu "
    "mit bis et ou de des \u00e0 y o e di da en van of"
)
"""Words that often continue a sentence behind an abbreviation."""
_MIN_NAME_LETTERS = 4
"""Fewest letters of a word with a capital that is no abbreviation before a full stop."""
_CODE_SIGNS = tuple("(=_/\\[{<@")
"""Signs behind a word that is a piece of code or an address."""


def begins_sentence(before: str, following: str, *, begins_small: bool) -> bool | None:
    """Whether the small letter at the beginning of `following` begins a sentence; None if it is too short to say.

    `before` is the end of the sentence so far, with its end mark, and `following` the text behind. `begins_small` says
    whether the sentence so far began with a small letter.
    """
    last = _LAST_WORD.search(before)
    following_word = _NEXT_WORD.match(following, 0, LONGEST_WORD)
    if last is None or following_word is None:
        return False
    # an apostrophe may join a further part to the word: "don't"
    may_be_unfinished = following[following_word.end() :] in ("", "'", "\u2019", "-")
    if may_be_unfinished and len(following) < LONGEST_WORD:
        return None
    if following[following_word.end() : following_word.end() + 1] in _CODE_SIGNS:
        return False
    next_word = following_word.group().replace("\u2019", "'")
    last_word = last["word"]
    is_ordinary = _is_ordinary(last_word.casefold())
    if next_word in _SENTENCE_STARTERS:
        return begins_small or is_ordinary
    # a name may end in an end mark ("Yahoo!"), and a short word with a capital may be an abbreviation
    has_capital = not last_word.islower()
    may_be_name = has_capital and (before[-1] != "." or len(last_word) < _MIN_NAME_LETTERS)
    return begins_small and is_ordinary and not may_be_name and next_word not in _CONTINUING_WORDS


def _is_ordinary(word: str) -> bool:
    """Whether a word in small letters is most likely no abbreviation, number or single letter."""
    if word[0].isdecimal() or len(word) == 1:
        return False
    return _VOWEL.search(word) is not None and word not in _SMALL_ABBREVIATIONS
