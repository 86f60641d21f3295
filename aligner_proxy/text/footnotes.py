"""Notes below an answer: the note of a removed sentence goes with it, and so does a reference to a removed note.

A note begins with its sign at the beginning of a line: `[^1]:`, `[1]`, `[1]:` or a superscript number. The indented
lines below belong to it, as in Markdown. A reference is the same sign elsewhere; code has no notes and no references.
A note goes if its sign stood in words that are gone and stands in none that stay. Numbers of other notes stay as they
are. The definition of a link (`[shop]: https://...`) is a note, too, but words that refer to it stay without it. Lines
that begin with `[1]` count as notes as long as the text before refers to each of them; else they may be the items of a
list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import takewhile

from aligner_proxy.text.sentence_ends import NOTE_DIGITS, NOTE_LABEL
from aligner_proxy.text.structure import FENCES, Segment

_NUMBER = rf"\[\d{{1,3}}\]|[{NOTE_DIGITS}]+"
_LABEL = r"\[(?!\^)[^\[\]\n]{2,60}\]|\[[^\W\d]\]"
"""Matches the label of a link."""
_SIGN = re.compile(rf"{NOTE_LABEL}|{_NUMBER}|(?:{_LABEL})(?!\()")
_NOTE = re.compile(
    rf"[ \t]{{0,3}}(?P<sign>{NOTE_LABEL}(?=:)|{_NUMBER}"
    rf"|(?P<link>{_LABEL})(?=:[ \t]+<?(?:[a-z]{{2,9}}:|[/#.]|www\.))):?[ \t]+(?=\S)",
    re.IGNORECASE,
)
"""Matches the sign at the beginning of a note."""
_INDENTED = re.compile(r" {4}| {0,3}\t")
"""Matches the beginning of a further line of a note."""
_TITLE = re.compile(
    r"[#*_ \t]{0,9}(?:(?:foot)?notes?|references?|sources?|fu\u00dfnoten?|anmerkung(?:en)?|quellen?|"
    r"r\u00e9f\u00e9rences?|notas?|fuentes?|note|fonti)?[*_: \t-]*",
    re.IGNORECASE,
)
"""Matches the title of the notes, or a line that divides them from the text."""
_FENCE = re.compile(r"[ \t]*(?P<fence>```+|~~~+)")
_CODE = r"(?<!`)(?P<ticks>`{1,3})(?!`)[^\n]+?(?<!`)(?P=ticks)(?!`)"
"""Code within a line."""
_CODE_IN_LINE = re.compile(_CODE)
_LINE = re.compile(r"\s+|\S[^\n]*")
"""Matches white space, or a line from its first word on."""


class Footnotes:
    """The references and notes of an answer, whole or as it comes."""

    def __init__(self, lost_signs: Collection[str] = ()) -> None:
        self._lost_references = _compile_references(lost_signs) if lost_signs else None
        """Matches references by the `lost_signs`, which go, and code, which stays."""
        self._removed: set[str] = set()
        """The signs in sentences that are edited."""
        self._referred: set[str] = set()
        """The signs in sentences that stay."""
        self._has_list = False
        """Whether lines that begin with `[1]` or a superscript number may be items of a list."""
        self._code = _CodeLines()
        self._is_dropping = False
        """Whether the present line belongs to a note that goes."""
        self._gap = _Gap(is_first=True)

    def settle(self, pieces: Sequence[Segment], edited: Collection[int], text: str, *, ends: bool = False) -> str:
        """The `text` that goes out for these pieces, without notes to which only what is gone of `edited` ones refers.

        `ends` says whether it ends the answer.
        """
        lost_signs = {sign for number in edited for sign in _find_signs(pieces[number].text)}
        self._removed |= lost_signs
        result = "".join(map(self._read_line, _LINE.findall(text)))
        # white space around a note that goes waits for text, unless it may be the end of the answer
        waits = (self._gap.has_note and text.strip()) or (lost_signs and not ends)
        return result if waits else result + self._gap.send()

    def end(self) -> str:
        """The white space at the end of the answer that has not gone out."""
        return self._gap.send()

    def _read_line(self, line: str) -> str:
        """What goes out for white space or for a line, or for a piece of one."""
        body = line.rstrip()
        space = line[len(body) :]
        if not body:
            self._gap.space += space
            return ""
        begins_line = self._gap.ends_line
        note = self._begin_line(self._gap.indentation + body) if begins_line else None
        if self._is_dropping:
            self._gap.add_note(space)
            return ""
        if begins_line and not self._code.is_open and self._gap.add_title(body, space):
            return ""
        before = self._gap.close(is_before_note=note is not None)
        self._gap = _Gap(space)
        return before + self._settle_references(body)

    def _begin_line(self, line: str) -> re.Match[str] | None:
        """Find out whether a new line belongs to a note that goes; return the match of the sign if a note begins."""
        self._code.read(line)
        self._is_dropping = self._is_dropping and _INDENTED.match(line) is not None
        note = None if self._is_dropping or self._code.is_open else _NOTE.match(line)
        if note is not None:
            sign = note["sign"].lower()
            has_own_form = sign.startswith("[^") or note["link"] is not None
            self._has_list |= not has_own_form and sign not in self._removed | self._referred
            is_note = has_own_form or not self._has_list
            self._is_dropping = is_note and sign in self._removed and sign not in self._referred
        return note

    def _settle_references(self, text: str) -> str:
        """A text that stays, without references to lost notes; those in it are noted."""
        if self._code.is_open:
            return text
        if self._lost_references is not None:
            text = self._lost_references.sub(lambda match: match["code"] or "", text)
        self._referred.update(_find_signs(text))
        return text


class _CodeLines:
    """Tells which lines are in a block of code."""

    def __init__(self) -> None:
        self._fence = ""

    @property
    def is_open(self) -> bool:
        """Whether the last line read is in a block, or opens one."""
        return bool(self._fence)

    def read(self, line: str) -> None:
        """Read the next line."""
        mark = _FENCE.match(line)
        if mark is None:
            return
        if not self._fence:
            self._fence = mark["fence"]
        elif mark["fence"].startswith(self._fence) and line.strip() == mark["fence"]:
            self._fence = ""


class _Gap:
    """What is between the last text that goes out and the present place: white space, and titles of notes."""

    def __init__(self, space: str = "", *, is_first: bool = False) -> None:
        self.space = space
        """The white space right before the present place."""
        self.has_note = False
        """Whether a note was here that goes."""
        self._is_first = is_first
        """Whether no text comes before."""
        self._title = ""
        """The titles with the white space before them, and with that behind them if a note goes there."""
        self._break = ""
        """The larger of the white spaces before the titles and before a note that goes; it or `space` remains."""
        self._sent_part = ""
        """The part of all this that has gone out."""

    @property
    def ends_line(self) -> bool:
        """Whether what follows begins a line."""
        return "\n" in self.space or (self._is_first and not self.has_note)

    @property
    def indentation(self) -> str:
        """The white space at the beginning of the present line."""
        return self.space.rpartition("\n")[2]

    def add_title(self, line: str, space: str) -> bool:
        """Add a line with the white space behind it, if it is the title of notes; return whether it is."""
        if self.has_note or self._is_first or not _TITLE.fullmatch(line):
            return False
        self._title += self.space + line
        self._break = _larger(self._break, self.space)
        self.space = space
        return True

    def add_note(self, space: str) -> None:
        """Add a line of a note that goes, or a piece of one, with the white space behind it."""
        if not self.has_note:
            self._title += self.space if self._title else ""
            self._break = _larger(self._break, self.space)
        self.has_note = True
        self.space = space

    def send(self) -> str:
        """What can go out although no text follows yet: all, but behind a note that goes only its line breaks."""
        if self.has_note:
            new = self._new(self.space) if self.ends_line else ""
            self._sent_part = _larger(self._sent_part, self.space)
            return new
        new = self._new(self._title + self.space)
        self._sent_part = self.space
        self._title = ""
        self._break = ""
        return new

    def close(self, *, is_before_note: bool) -> str:
        """What goes out before the text, perhaps a note, that follows."""
        if not self.has_note:
            return self._new(self._title + self.space)
        if self._title and is_before_note:
            return self._new(self._title)
        space = _larger(self.space, self._break)
        return "" if self._is_first else self._new(space.rstrip(" \t") + self.indentation)

    def _new(self, text: str) -> str:
        """The text without its beginning that has gone out."""
        if text.startswith(self._sent_part):
            return text[len(self._sent_part) :]
        pairs = zip(text, self._sent_part, strict=False)
        return text[sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) :]


def _larger(first: str, second: str) -> str:
    """The white space with more line breaks, the first if both have as many."""
    return max(first, second, key=lambda space: space.count("\n"))


def _find_signs(text: str) -> list[str]:
    """The signs in a segment or line outside code, but for that of a note at its beginning."""
    if text.lstrip().startswith(FENCES):
        return []
    note = _NOTE.match(text)
    return _SIGN.findall(_CODE_IN_LINE.sub("", text[note.end() :] if note else text).lower())


def settle_footnotes(pieces: Sequence[Segment], edited: Collection[int], text: str) -> str:
    """The whole edited `text` without the notes and references whose counterparts were removed.

    `edited` are the numbers of the pieces that are removed or changed.
    """
    notes = _list_notes("".join(piece.text + piece.gap for piece in pieces))
    signs = {sign for sign, _ in notes}
    if not notes or len(signs) < len(notes):
        return text
    lost_notes = set(notes).difference(_list_notes(text))
    footnotes = Footnotes({sign for sign, is_link in lost_notes if not is_link})
    return footnotes.settle(pieces, edited, text) + footnotes.end()


def _list_notes(text: str) -> list[tuple[str, bool]]:
    """The signs of all notes in a text, in order, each with whether it is the label of a link."""
    code = _CodeLines()
    notes: list[tuple[str, bool]] = []
    for line in text.split("\n"):
        code.read(line)
        note = None if code.is_open else _NOTE.match(line)
        if note is not None:
            notes.append((note["sign"].lower(), note["link"] is not None))
    return notes


def _compile_references(signs: Collection[str]) -> re.Pattern[str]:
    """The pattern of references by these signs, and of code; not of a number that may be a word, or an index."""
    forms: list[str] = []
    for sign in signs:
        if sign.startswith("[^"):
            forms.append(rf"[ \t]?{re.escape(sign)}(?![\w(`])")
        else:
            before = rf"(?:[ \t]|(?<![\[\]\w`{NOTE_DIGITS}]))"
            forms.append(rf"{before}{re.escape(sign)}(?![\w\[(`{NOTE_DIGITS}]| [a-z])")
    return re.compile(rf"(?P<code>{_CODE})|{'|'.join(forms)}")
