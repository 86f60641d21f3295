"""Notes below an answer: the note of a removed sentence is removed, and so is a reference to a removed note.

A note begins with its sign at the beginning of a line: `[^1]:`, `[1]`, `[1]:` or a superscript number. The indented
lines below belong to it, as in Markdown. A reference is the same sign elsewhere; code has no notes and no references.
A note is removed if its sign is in removed text and not in text that stays. Numbers of other notes stay as they are.
The definition of a link (`[shop]: https://...`) is a note, too, but words that refer to it stay without it. Lines that
begin with `[1]` count as notes as long as the text before refers to each of them; else they may be items of a list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from aligner_proxy.text.sentence_ends import NOTE_DIGITS, NOTE_LABEL
from aligner_proxy.text.structure import FENCES, CodeLines, Segment

_NOTE_NUMBER = rf"\[\d{{1,3}}\]|[{NOTE_DIGITS}]+"
_LINK_LABEL = r"\[(?!\^)[^\[\]\n]{2,60}\]|\[[^\W\d]\]"
"""Matches the label of a link."""
NOTE_BEGINNING = re.compile(rf"[\[{NOTE_DIGITS}]")
"""Matches the first character of the sign of a note; a text without one has no notes."""
_NOTE_SIGN = re.compile(rf"{NOTE_LABEL}|{_NOTE_NUMBER}|(?:{_LINK_LABEL})(?!\()")
_NOTE = re.compile(
    rf"[ \t]{{0,3}}(?P<sign>{NOTE_LABEL}(?=:)|{_NOTE_NUMBER}"
    rf"|(?P<link>{_LINK_LABEL})(?=:[ \t]+<?(?:[a-z]{{2,9}}:|[/#.]|www\.))):?[ \t]+(?=\S)",
    re.IGNORECASE,
)
"""Matches the sign at the beginning of a note."""
_NOTE_CONTINUATION = re.compile(r" {4}| {0,3}\t")
"""Matches the beginning of a further line of a note."""
_NOTES_TITLE = re.compile(
    r"[#*_ \t]{0,9}(?:(?:foot)?notes?|references?|sources?|fu\u00dfnoten?|anmerkung(?:en)?|quellen?|"
    r"r\u00e9f\u00e9rences?|notas?|fuentes?|note|fonti)?[*_: \t-]*",
    re.IGNORECASE,
)
"""Matches the title of the notes, or a line that divides them from the text."""
_INLINE_CODE = r"(?<!`)(?P<ticks>`{1,3})(?!`)[^\n]+?(?<!`)(?P=ticks)(?!`)"
"""Code within a line."""
_CODE_IN_LINE = re.compile(_INLINE_CODE)
_SPACE_OR_LINE = re.compile(r"\s+|\S[^\n]*")
"""Matches white space, or a line from its first word on."""


class Footnotes:
    """The references and notes of an answer, which comes as a whole or piece by piece.

    `lost_signs` are the signs of notes that are certainly removed, so references to them are removed, too.
    """

    def __init__(self, lost_signs: Collection[str] = ()) -> None:
        self._lost_references = _compile_references(lost_signs) if lost_signs else None
        """Matches references to lost notes, and code, which stays; None if no note is lost."""
        self._removed_signs: set[str] = set()
        """The signs in sentences that were edited."""
        self._kept_signs: set[str] = set()
        """The signs in text that stays."""
        self._has_list = False
        """Whether lines that begin with `[1]` or a superscript number may be items of a list."""
        self._code = CodeLines()
        self._is_dropping = False
        """Whether the present line belongs to a note that is removed."""
        self._gap = _Gap(is_first=True)
        """What comes between the last text that was returned and the present place."""

    def settle(self, pieces: Sequence[Segment], edited: Collection[int], text: str, *, ends: bool = False) -> str:
        """Return `text`, the next part of the edited answer, without notes to which only removed words refer.

        `pieces` are the segments of the original part, and `edited` the indexes of those that were edited. `ends` says
        whether the answer ends with the part.
        """
        removed_signs = {sign for index in edited for sign in _find_signs(pieces[index].text)}
        self._removed_signs |= removed_signs
        kept_text = "".join(map(self._read_line, _SPACE_OR_LINE.findall(text)))
        # white space around a removed note waits for the next text, unless the answer may end here
        waits = (self._gap.has_note and text.strip()) or (removed_signs and not ends)
        return kept_text if waits else kept_text + self._gap.send()

    def end(self) -> str:
        """Return the white space at the end of the answer that was held back."""
        return self._gap.send()

    def _read_line(self, line: str) -> str:
        """Return what stays of white space, of a line, or of the rest of a line; white space waits for what follows."""
        words = line.rstrip()
        space = line[len(words) :]
        if not words:
            self._gap.space += space
            return ""
        begins_line = self._gap.ends_line
        note = self._begin_line(self._gap.indentation + words) if begins_line else None
        if self._is_dropping:
            self._gap.add_note(space)
            return ""
        if begins_line and not self._code.is_open and self._gap.add_title(words, space):
            return ""
        gap = self._gap.close(is_before_note=note is not None)
        self._gap = _Gap(space)
        return gap + self._settle_references(words)

    def _begin_line(self, line: str) -> re.Match[str] | None:
        """Find out whether a new line belongs to a note that is removed; return the sign's match if a note begins."""
        self._code.read(line)
        self._is_dropping = self._is_dropping and _NOTE_CONTINUATION.match(line) is not None
        note = None if self._is_dropping or self._code.is_open else _NOTE.match(line)
        if note is not None:
            sign = note["sign"].lower()
            is_surely_note = sign.startswith("[^") or note["link"] is not None
            self._has_list |= not is_surely_note and sign not in self._removed_signs | self._kept_signs
            is_note = is_surely_note or not self._has_list
            self._is_dropping = is_note and sign in self._removed_signs and sign not in self._kept_signs
        return note

    def _settle_references(self, text: str) -> str:
        """Return a text that stays without references to lost notes, and record the references in it."""
        if self._code.is_open:
            return text
        if self._lost_references is not None:
            text = self._lost_references.sub(lambda match: match["code"] or "", text)
        self._kept_signs.update(_find_signs(text))
        return text


class _Gap:
    """What comes between the last text that was returned and the present place.

    This is white space, removed notes, and titles of notes ("Sources:"). A title stays only if a note below it stays.
    """

    def __init__(self, space: str = "", *, is_first: bool = False) -> None:
        self.space = space
        """The white space right before the present place."""
        self.has_note = False
        """Whether a note was removed here."""
        self._is_first = is_first
        """Whether no text comes before the gap."""
        self._titles = ""
        """The titles with the white space before them, and the white space behind them if a removed note follows."""
        self._break = ""
        """The white space before the titles or before the first removed note, whichever has more line breaks."""
        self._sent_text = ""
        """The beginning of the gap that was returned already."""

    @property
    def ends_line(self) -> bool:
        """Whether the text behind the gap begins a line."""
        return "\n" in self.space or (self._is_first and not self.has_note)

    @property
    def indentation(self) -> str:
        """The white space at the beginning of the line behind the gap."""
        return self.space.rpartition("\n")[2]

    def add_title(self, line: str, space: str) -> bool:
        """Add a line and the white space behind it if it is the title of notes; return whether it is."""
        if self.has_note or self._is_first or not _NOTES_TITLE.fullmatch(line):
            return False
        self._titles += self.space + line
        self._break = _larger_space(self._break, self.space)
        self.space = space
        return True

    def add_note(self, space: str) -> None:
        """Add a line of a removed note, or the rest of such a line, and the white space behind it."""
        if not self.has_note:
            self._titles += self.space if self._titles else ""
            self._break = _larger_space(self._break, self.space)
        self.has_note = True
        self.space = space

    def send(self) -> str:
        """Return what can be sent before more text comes: everything, but after a removed note only line breaks."""
        if self.has_note:
            unsent_text = self._cut_sent(self.space) if self.ends_line else ""
            self._sent_text = _larger_space(self._sent_text, self.space)
            return unsent_text
        unsent_text = self._cut_sent(self._titles + self.space)
        self._sent_text = self.space
        self._titles = ""
        self._break = ""
        return unsent_text

    def close(self, *, is_before_note: bool) -> str:
        """Return what of the gap stays before the text behind it; `is_before_note` says whether that text is a note."""
        if not self.has_note:
            return self._cut_sent(self._titles + self.space)
        if self._titles and is_before_note:
            return self._cut_sent(self._titles)
        space = _larger_space(self.space, self._break)
        return "" if self._is_first else self._cut_sent(space.rstrip(" \t") + self.indentation)

    def _cut_sent(self, text: str) -> str:
        """The text without the beginning that it has in common with what was sent already."""
        if text.startswith(self._sent_text):
            return text[len(self._sent_text) :]
        common_length = 0
        for char, sent_char in zip(text, self._sent_text, strict=False):
            if char != sent_char:
                break
            common_length += 1
        return text[common_length:]


def _larger_space(first: str, second: str) -> str:
    """The white space that has more line breaks; the first if both have as many."""
    return max(first, second, key=lambda space: space.count("\n"))


def _find_signs(text: str) -> list[str]:
    """The signs of notes in a segment or line outside code, except the sign of a note that begins there."""
    if text.lstrip().startswith(FENCES):
        return []
    note = _NOTE.match(text)
    return _NOTE_SIGN.findall(_CODE_IN_LINE.sub("", text[note.end() :] if note else text).lower())


def settle_footnotes(pieces: Sequence[Segment], edited: Collection[int], text: str) -> str:
    """Return the whole edited answer `text` without notes whose references were removed, and the reverse.

    `pieces` are the segments of the original answer, and `edited` the indexes of those that were removed or changed.
    """
    notes = _list_notes("".join(segment.text + segment.gap for segment in pieces))
    signs = {sign for sign, _ in notes}
    # if two notes have the same sign, it is unclear which note a reference means
    if not notes or len(signs) < len(notes):
        return text
    lost_notes = set(notes).difference(_list_notes(text))
    footnotes = Footnotes({sign for sign, is_link in lost_notes if not is_link})
    return footnotes.settle(pieces, edited, text) + footnotes.end()


def _list_notes(text: str) -> list[tuple[str, bool]]:
    """The notes in a text, in order, each as (sign, whether it is the definition of a link)."""
    code = CodeLines()
    notes: list[tuple[str, bool]] = []
    for line in text.split("\n"):
        code.read(line)
        note = None if code.is_open else _NOTE.match(line)
        if note is not None:
            notes.append((note["sign"].lower(), note["link"] is not None))
    return notes


def _compile_references(signs: Collection[str]) -> re.Pattern[str]:
    """Return the pattern of references by these signs, with the space before them, or of code (group `code`).

    A number does not match where it may be a word of the sentence or an index.
    """
    patterns: list[str] = []
    for sign in signs:
        if sign.startswith("[^"):
            patterns.append(rf"[ \t]?{re.escape(sign)}(?![\w(`])")
        else:
            before = rf"(?:[ \t]|(?<![\[\]\w`{NOTE_DIGITS}]))"
            patterns.append(rf"{before}{re.escape(sign)}(?![\w\[(`{NOTE_DIGITS}]| [a-z])")
    return re.compile(rf"(?P<code>{_INLINE_CODE})|{'|'.join(patterns)}")
