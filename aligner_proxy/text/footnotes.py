"""Notes below an answer: the note of a removed sentence goes with it, and so does a reference to a removed note.

A note is a line that begins with its sign: `[^1]:`, `[1]`, `[1]:` or a superscript number. It goes if its sign stood in
a removed sentence and stands in none that stays. Numbers of other notes stay as they are. Lines that begin with `[1]`
count as notes as long as the text before refers to each of them; else they may be the items of a list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from aligner_proxy.text.sentence_ends import NOTE_DIGITS
from aligner_proxy.text.structure import FENCES, Segment

_SIGN = re.compile(rf"\[\^\w{{1,8}}\]|\[\d{{1,3}}\]|[{NOTE_DIGITS}]+")
_NOTE = re.compile(rf"[ \t]{{0,3}}(?P<sign>\[\^\w{{1,8}}\](?=:)|\[\d{{1,3}}\]|[{NOTE_DIGITS}]+):?[ \t]+(?=\S)")
"""Matches the sign at the beginning of a note."""
_TITLE = re.compile(
    r"(?:^|(?<=\n))[#*_ \t]*(?:(?:foot)?notes?|references?|sources?|fu\u00dfnoten?|anmerkung(?:en)?|quellen?|"
    r"r\u00e9f\u00e9rences?|notas?|fuentes?|note|fonti)?[*_: \t-]*\n*$",
    re.IGNORECASE,
)
"""Matches the title of the notes or a line that divides them from the text, at its end."""
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Footnotes:
    """The references and notes of an answer, whole or as it comes."""

    def __init__(self) -> None:
        self._removed: set[str] = set()
        """The signs in sentences that are removed."""
        self._referred: set[str] = set()
        """The signs in sentences that stay."""
        self._has_list = False
        """Whether lines that begin with `[1]` or a superscript number may be items of a list."""
        self._begins_line = True
        """Whether the next text begins a line."""
        self._is_code = False
        """Whether the next line is in a block of code."""
        self._is_dropping = False
        """Whether the present line is a note that goes."""
        self._waiting = ""
        """The line breaks before notes that went, perhaps with the title of the notes, until text follows."""

    def settle(self, pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
        """The `text` that goes out for these pieces, without notes to which only `removed` ones refer."""
        for number in removed:
            self._removed.update(_SIGN.findall(_without_sign(pieces[number].text)))
        if not self._waiting and not self._is_dropping and not self._removed:
            self._note_signs(text)
            return text
        if not text.strip():
            # perhaps the end of an answer, which keeps its white space
            self._begins_line |= "\n" in text
            self._waiting = self._waiting if self._waiting.strip() else self._waiting[text.count("\n") :]
            return text
        result = ""
        for line in _LINE.findall(text):
            result = self._add_line(result, line)
        return result

    def _add_line(self, result: str, line: str) -> str:
        """The text so far with a further line, or a piece of one, unless that is part of a note that goes."""
        is_dropped = self._is_dropping or (self._begins_line and self._goes(line))
        self._begins_line = line.endswith("\n")
        if is_dropped:
            self._is_dropping = not self._begins_line
            body = _TITLE.sub("", result) if _NOTE.match(line) else result
            body = body.rstrip("\n")
            self._waiting = result[len(body) :] or self._waiting
            return body
        if self._waiting and not line.strip():
            return result
        waiting = self._waiting
        self._waiting = ""
        self._refer(line)
        return result + waiting + line

    def _goes(self, line: str) -> bool:
        """Whether a line is a note to which only removed sentences refer."""
        self._is_code ^= line.lstrip(" \t").startswith(FENCES)
        note = _NOTE.match(line)
        if note is None or self._is_code:
            return False
        sign = note["sign"]
        self._has_list |= not sign.startswith("[^") and sign not in self._removed | self._referred
        is_note = sign.startswith("[^") or not self._has_list
        return is_note and sign in self._removed and sign not in self._referred

    def _note_signs(self, text: str) -> None:
        """Note the signs in text of which nothing can go."""
        for line in _LINE.findall(text):
            if self._begins_line:
                self._goes(line)
            self._refer(line)
            self._begins_line = line.endswith("\n")

    def _refer(self, line: str) -> None:
        self._referred.update(_SIGN.findall(_without_sign(line)))


def _without_sign(line: str) -> str:
    """A line without the sign of a note at its beginning."""
    note = _NOTE.match(line)
    return line[note.end() :] if note else line


def settle_footnotes(pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
    """The whole edited `text` without the notes and references whose counterparts were removed."""
    original = "".join(piece.text + piece.gap for piece in pieces)
    notes = [note["sign"] for line in _LINE.findall(original) if (note := _NOTE.match(line))]
    if not notes or len(set(notes)) < len(notes):
        return text
    gap = text[len(text.rstrip("\n")) :]
    new_text = Footnotes().settle(pieces, removed, text)
    remaining_notes = {note["sign"] for line in _LINE.findall(text) if (note := _NOTE.match(line))}
    for sign in set(notes) - remaining_notes:
        new_text = _drop_references(new_text, sign)
    return new_text if new_text == text else new_text.rstrip("\n") + gap


def _drop_references(text: str, sign: str) -> str:
    """The text without references by this sign; unchanged if one of them may be something else, such as an index."""
    before = rf"(?:[ \t]|(?<![\[\]\w`{NOTE_DIGITS}]))" if sign[:2] != "[^" else r"[ \t]?"
    reference = re.compile(rf"{before}{re.escape(sign)}(?![\w\[(`{NOTE_DIGITS}])")
    return reference.sub("", text) if len(reference.findall(text)) == text.count(sign) else text
