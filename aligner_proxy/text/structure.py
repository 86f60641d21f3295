"""Structure of a text: segments, lists and their items, lines of a dialogue, words in quotation marks.

A segment is what the detector head judges and what an edit replaces: a sentence, a list item, a heading, or a whole
code block. Segments and the white space between them add up to the text exactly. A boundary depends only on the text
before it and on the word after it (sentence_ends.py), so a growing text keeps the boundaries it already had.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

from aligner_proxy.text import chat_style, sentence_ends
from aligner_proxy.text.abbreviations import ABBREVIATIONS, LONGEST_ABBREVIATION, ends_in_abbreviation
from aligner_proxy.text.sentence_ends import CLOSING, JOINERS, MARKS, NOTES, PICTURES, WIDE, WIDE_OPENING

FENCES = ("```", "~~~")
"""What a line that opens or closes a block of code begins with."""
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)", re.MULTILINE)
_LINE = re.compile(r"[^\n]*\n?")
_CLASS = re.escape(CLOSING)
_MARK_CLASS = re.escape(MARKS)
# A run of marks or pictures is examined only from its first one; starting at each of twenty thousand took minutes. One
# class stands at the beginning, because the search for it is ten times as fast as one for several.
_SENTENCE_END = re.compile(
    rf"[{_MARK_CLASS}{PICTURES}](?:(?<=[{_MARK_CLASS}])(?<![{_MARK_CLASS}]{{2}})[{_MARK_CLASS}]*[{_CLASS}]*"
    rf"(?:(?<![{WIDE}])(?:{NOTES}[{_CLASS}]*)+)?(?=\s)"
    rf"|(?<=[{WIDE}])(?<![{WIDE}]{{2}})[{WIDE}]*(?:(?=[^\s{_MARK_CLASS}{_CLASS}])|[{_CLASS}]+(?=[{WIDE_OPENING}]))"
    rf"|(?P<picture>(?<=[{PICTURES}])(?<![{PICTURES}{JOINERS}][{PICTURES}])[{PICTURES}{JOINERS}]*))"
)
_LIST_NUMBER = re.compile(r"\s*(?:[-*+]\s+)?\d+\.")
_TOKEN = re.compile(r"\S+")
_SIGNS = re.escape(MARKS + CLOSING)
_WIDE_END = re.compile(rf"(?<![{WIDE}])[{WIDE}]+[{re.escape(CLOSING)}]*(?=[^{_SIGNS}])")
_MARK = re.compile(r"[ \t]*(?:([-*+\u2022])|(\d{1,3}|[a-zA-Z])[.)])(?=[ \t]+\S)")
BULLET = "-"


def speaker_pattern(colons: str, before_name: str = "") -> str:
    """A pattern of the signs before a speaker, `before_name`, and the name up to its colon, one of `colons`.

    The name may be emphasised or in brackets, with a remark behind it: "> **Ada** (laughs)".
    """
    name = rf"(?P<name>[^\W_][^\n{colons}*_\"?!;\[\]()]{{0,39}}?)"
    return rf"[ \t>*_#-]{{0,12}}{before_name}\[?{name}[ \t]{{0,3}}(?:\([^()\n]{{1,40}}\))?[\]*_ \t]{{0,6}}"


_SPEAKER_LINE = re.compile(speaker_pattern(":") + r":[*_]{0,4}[ \t]{1,9}\S")
_BARE_NAME = re.compile(r".{1,60}:[*_\]]{0,4}")
_SPEECH = "x"
"""Put in place of what a speaker says."""
_WORDS = 4
"""Most words in the name of a speaker."""
_SPEAKERS = 2
"""Fewest speakers of a dialogue."""
_TURNS = 2
"""Fewest lines of one of the speakers."""
# Roles that models write when they run on; each must speak at least twice before the text counts as a dialogue.
_ROLES = frozenset({"human", "user", "assistant", "system"})
TURN = re.compile(r"^[ \t>*#]*(?:Human|User|Assistant|System)[ \t]*\**[ \t]*:", re.MULTILINE | re.IGNORECASE)
"""The beginning of a line with a chat role and a colon, perhaps quoted, in a heading or in bold."""
_TITLE_LINES = 4
"""Most lines of titles before the first speaker."""
_TITLE_CHARS = 80
"""Longest title; a longer line is a sentence."""
_SENTENCE = re.compile(r"\w[.!?][\"'\u201d]?$")
_STAGE = tuple("([*_#")
"""Signs with which a stage direction, an emphasised title or a heading begins."""
_KNOWN_CHARS = 2**20
"""Longest text whose segments are cached."""
MIN_DICTATED_CHARS = 12
"""Minimum length of a dictated text; shorter quotations are words that the objective mentions."""
_QUOTED = re.compile(r"(?:^|(?<=[\s:(]))[\"'\u2018\u201c](\S.*\S)[\"'\u2019\u201d](?=[\s.,;:!?)]|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: `text` is judged and may be replaced; `gap` is the white space that follows it."""

    start: int
    text: str
    gap: str

    @property
    def end(self) -> int:
        """Offset of the first character after `text` in the answer."""
        return self.start + len(self.text)


def split(text: str) -> list[Segment]:
    """Cut `text` into segments; leading spaces belong to the first one, and leading empty lines form one of their own.

    `"".join(s.text + s.gap for s in split(text)) == text` for every text. The empty text has no segment; a text of
    white space alone is one segment without a gap.
    """
    return list(_split_known(text) if len(text) <= _KNOWN_CHARS else _split(text))


def _split(text: str) -> tuple[Segment, ...]:
    """`split`, not cached."""
    spans: list[tuple[int, int]] = []
    start = 0
    for end in (*_boundaries(text), len(text)):
        visible_length = len(text[start:end].rstrip())
        if visible_length:
            spans.append((start, start + visible_length))
        # white space at the beginning of a text is a segment of its own, because no gap can hold it
        elif end > start and not spans:
            spans.append((start, end))
        start = end
    # what is between a segment and the next is its gap
    starts = [*(start for start, _ in spans), len(text)]
    return tuple(
        Segment(start, text[start:end], text[end:next_start])
        for (start, end), next_start in zip(spans, starts[1:], strict=True)
    )


_split_known = lru_cache(maxsize=4)(_split)
"""Cached, because driver, gate and several of its rules cut the same answer and its edited form one after the other."""


def join(pieces: Sequence[tuple[str, str]]) -> str:
    """Join (text, gap) pieces, leaving out pieces whose text is empty.

    If a removed piece had the larger break after it, the piece before gets that break. Otherwise removing the last
    sentence of a paragraph would join the next paragraph to it. The last remaining piece loses its gap.
    """
    remaining: list[tuple[str, str]] = []
    for text, gap in pieces:
        if text:
            remaining.append((text, gap))
        elif remaining and gap.count("\n") > remaining[-1][1].count("\n"):
            remaining[-1] = (remaining[-1][0], gap)
    return "".join(text + gap for text, gap in remaining[:-1]) + "".join(text for text, _ in remaining[-1:])


def gap_of_edit(run: Sequence[Segment], text: str, lead: str) -> str:
    """The white space after the segments of `run`, for which `text` stands now; `lead` is the white space before them.

    A removed run leaves one of the two breaks around it, the larger one, of equal ones that before it (as `join` does).
    """
    behind = run[-1].gap
    if text:
        return behind
    # what stood in two paragraphs would come into one
    is_in_line = "\n" not in behind or "\n" not in lead
    breaks = [lead, behind, *(segment.gap for segment in run if is_in_line)]
    return max(breaks, key=lambda gap: gap.count("\n"))


def append_end(pieces: Sequence[Segment]) -> list[Segment]:
    """The segments plus an empty one at the end of the text, as a position for additions."""
    return [*pieces, Segment(pieces[-1].end if pieces else 0, "", pieces[-1].gap if pieces else "")]


def shift_segment(piece: Segment, by: int) -> Segment:
    """A copy of the segment with its start shifted by `by` characters."""
    return Segment(piece.start + by, piece.text, piece.gap)


def match_segments(pieces: Sequence[Segment], texts: Sequence[str]) -> list[Segment]:
    """The segments that verdicts with these `texts` are about; an empty one is added if the last text is empty."""
    return append_end(pieces) if texts and not texts[-1] else list(pieces)


def join_so_far(pieces: Iterable[tuple[str, str]]) -> str:
    """The text of (text, gap) pieces, up to the start of the next piece."""
    return "".join(text + gap for text, gap in pieces if text)


def firm_length(text: str) -> int:
    """Number of leading characters whose tokens cannot change as the text grows: those before the last word.

    A full-width sentence mark also ends a word. A finished segment cannot change.
    """
    body = text.rstrip()
    words = body.rsplit(None, 1)
    if not words:
        return 0
    start = len(body) - len(words[-1])
    marks = [start + mark.end() for mark in _WIDE_END.finditer(words[-1])]
    return marks[-1] if marks else len(text[:start].rstrip())


def _boundaries(text: str) -> Iterator[int]:
    """Yield the offsets where a new segment starts, in order; each follows the white space behind a segment."""
    fence = ""
    for line in _LINE.finditer(text):
        # the pattern also matches the empty rest after the last line
        if not line.group():
            return
        mark = _FENCE.match(line.group())
        if mark and not fence:
            fence = mark.group(1)
            yield line.start()
        elif fence:
            # the closing fence is as long as the opening one, or longer, and alone in its line
            if mark and mark.group(1).startswith(fence) and line.group().strip() == mark.group(1):
                fence = ""
                yield line.end()
        else:
            yield from (line.start() + start for start in sentence_starts(line.group()))
            yield line.end()


class _LineSentences:
    """The sentences of one line, in one pass."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._is_row = line.lstrip()[:1] == "|"
        """Whether this is the row of a table, which is not divided."""
        self._run_on: sentence_ends.RunOn | None = None
        """The words of the present sentence; None unless the sentence is long."""
        self._read = 0
        """Offset of the first word that `_run_on` does not have."""
        self.start = 0
        """Offset at which the present sentence begins."""
        self.begins_small = line.lstrip()[:1].islower()
        """Whether the present sentence begins with a small letter; False for a part of a divided one."""

    def begin(self, start: int) -> int:
        """Begin a sentence at this offset, and return the offset."""
        self.start = start
        self.begins_small = self._line[start].islower()
        self._read = start
        self._run_on = None
        return start

    def divide(self, stop: int) -> Iterator[int]:
        """Read the words before offset `stop`; yield where each further part of a divided sentence begins."""
        if self._is_row or stop - self.start <= sentence_ends.MAX_CHARS:
            return
        if self._run_on is None:
            self._run_on = sentence_ends.RunOn()
        run_on = self._run_on
        for match in _TOKEN.finditer(self._line, self._read):
            if match.start() >= stop:
                return
            boundary = run_on.divide(match.start())
            if boundary is not None:
                _, self.start = boundary
                self.begins_small = False
                yield self.start
            run_on.add(match.start(), match.end(), match.group())
            self._read = match.end()

    def read_back(self, end: int) -> str:
        """The last characters of the present sentence before `end`, as many as abbreviations have."""
        return self._line[max(self.start, end - LONGEST_ABBREVIATION) : end]


def sentence_starts(line: str) -> Iterator[int]:
    """Yield where the sentences of a line begin, except the first. Looks back only over a bounded window.

    A very long sentence is divided (`_LineSentences.divide`), and its further parts count as sentences, too.
    """
    number = _LIST_NUMBER.match(line)
    sentences = _LineSentences(line)
    for match in _SENTENCE_END.finditer(line):
        end = match.end()
        following = end
        while following < len(line) and line[following].isspace():
            following += 1
        if following == len(line):
            break
        yield from sentences.divide(end)
        is_number = number is not None and end == number.end()
        ends = _ends_sentence(sentences, match, line, following, is_number=is_number)
        # the line is too short so far to know
        if ends is None:
            return
        if ends:
            yield sentences.begin(following)
    yield from sentences.divide(len(line))


def _ends_sentence(
    sentences: _LineSentences, match: re.Match[str], line: str, following: int, *, is_number: bool
) -> bool | None:
    """Whether a sentence ends with this match; None if the text that follows is too short to know.

    `following` is the offset of the next text behind white space. `is_number`: the match ends the number of an item.
    """
    if is_number:
        return False
    end = match.end()
    behind = line[following]
    is_spaced = following > end
    if match["picture"] is not None:
        return sentence_ends.ends_with_picture(sentences.read_back(match.start()), behind, spaced=is_spaced)
    before = sentence_ends.NOTES_AT_END.sub("", sentences.read_back(end))
    if before[-1:] == "." and is_abbreviated(before):
        return sentence_ends.ends_abbreviated(before, line[following : following + sentence_ends.LONGEST_WORD + 1])
    # a dash may also begin the sign that ends a comment
    if behind == "-" and is_spaced:
        return sentence_ends.begins_without_comment_end(line[following : following + 3])
    if not behind.islower():
        return True
    # before a small letter a sentence ends only as people write in chats ("hi! how are you")
    if not is_spaced or not before.endswith(chat_style.MARKS):
        return False
    next_chars = line[following : following + chat_style.LONGEST_WORD + 1]
    return chat_style.begins_sentence(before, next_chars, begins_small=sentences.begins_small)


def is_abbreviated(sentence: str) -> bool:
    """Whether the full stop at the end of `sentence` may belong to an abbreviation, an initial or a number."""
    if sentence[-1:] != ".":
        return False
    word = sentence[:-1].rpartition(" ")[2]
    # an ordinary word, as nearly always, saves the longer test
    is_ordinary = word.isalpha() and len(word) > 1 and word not in ABBREVIATIONS
    return not is_ordinary and ends_in_abbreviation(sentence)


def item_marks(text: str) -> list[str]:
    """The markers of the list items in a text: their numbers or letters, or `BULLET`."""
    return [mark for _, mark in _find_items(split(text))]


def _find_items(pieces: Sequence[Segment]) -> Iterator[tuple[int, str]]:
    """Yield (index of the segment that begins an item, its marker)."""
    for i, piece in enumerate(pieces):
        match = _MARK.match(piece.text)
        if match is None:
            continue
        begins_line = i == 0 or _ends_its_line(pieces[i - 1])
        if begins_line:
            yield i, BULLET if match.group(1) else match.group(2)


def _ends_its_line(piece: Segment) -> bool:
    """Whether a line ends with this segment. One of white space alone holds the empty lines at a text's start."""
    return "\n" in piece.gap or not piece.text.strip()


def occurs_in_order(required: Iterable[str], present: Iterable[str]) -> bool:
    """Whether all of `required` occur in `present`, in this order."""
    unread = iter(present)
    # `in` reads the iterator up to the match, so the next one is looked for behind it
    return all(mark in unread for mark in required)


def speaker_turns(text: str) -> Counter[str]:
    """Number of lines of each speaker of a dialogue; empty if the text is not a dialogue.

    One speaker with two lines is enough, because a growing stream is judged by what has arrived.
    """
    line_counts = speaker_lines(text)
    # chat roles are what a model writes that runs on, so a dialogue of roles needs more evidence
    fewest_lines = _TURNS if _ROLES & line_counts.keys() else 1
    speakers = Counter({name: count for name, count in line_counts.items() if count >= fewest_lines})
    speaks_again = max(line_counts.values(), default=0) >= _TURNS
    is_dialogue = speaks_again and len(speakers) >= _SPEAKERS and _begins_with_titles(text)
    return speakers if is_dialogue else Counter()


def speaker_lines(text: str) -> Counter[str]:
    """Number of lines that begin with a name and a colon, by name."""
    return Counter(name for line in text.splitlines() if (name := _read_speaker(line.strip())))


def speaker_segments(pieces: Sequence[Segment], *, begins_line: bool = True) -> list[tuple[str, range]]:
    """The name and the segments of each turn of a dialogue, up to the next speaker's line or a stage direction.

    `begins_line` says whether the first segment begins a line.
    """
    turns: list[tuple[str, range]] = []
    start = 0
    speaker: str | None = None
    for i, piece in enumerate(pieces):
        if "\n" not in pieces[i - 1].gap if i else not begins_line:
            continue
        line = piece.text.strip()
        name = _read_speaker(line)
        if name is None and not line.startswith(_STAGE):
            continue
        if speaker is not None:
            turns.append((speaker, range(start, i)))
        start = i
        speaker = name
    if speaker is not None:
        turns.append((speaker, range(start, len(pieces))))
    return turns


def _begins_with_titles(text: str) -> bool:
    """Whether only titles precede the first speaker's line."""
    before = list(takewhile(lambda line: not _read_speaker(line), (line.strip() for line in text.splitlines())))
    titles = [line for line in before if line]
    return len(titles) <= _TITLE_LINES and all(map(_is_title, titles))


def _read_speaker(line: str) -> str | None:
    """The speaker of a line; None for other lines, including sentences that end in a colon."""
    match = _SPEAKER_LINE.match(line)
    name = match["name"].strip().casefold() if match else ""
    return name if name and len(name.split()) <= _WORDS else None


def begins_turn(text: str) -> bool:
    """Whether a text begins with a chat role and a colon, such as "Human:"."""
    return TURN.match(text) is not None


def bare_name(line: str) -> str | None:
    """The speaker of a line that has nothing but a name and a colon; None for other lines."""
    return _read_speaker(f"{line.strip()} {_SPEECH}") if _BARE_NAME.fullmatch(line.strip()) else None


def _is_title(line: str) -> bool:
    """Whether a line is a title, an announcement or a stage direction."""
    return line.startswith(_STAGE) or (len(line) <= _TITLE_CHARS and not _SENTENCE.search(line))


def dictated_text(objective: str) -> str | None:
    """The text between the first and the last quotation mark of an objective, in one line; None if missing or short."""
    match = _QUOTED.search(objective)
    quoted = one_line(match.group(1)) if match else ""
    return quoted if len(quoted) >= MIN_DICTATED_CHARS else None


def dictated_texts(objectives: Iterable[str]) -> list[str]:
    """The text that each objective dictates, of those that dictate one (`dictated_text`)."""
    return [quoted for objective in objectives if (quoted := dictated_text(objective))]


def is_dictated(sentence: str, dictated: Iterable[str]) -> bool:
    """Whether a sentence of some length is part of a dictated text."""
    line = one_line(sentence)
    return len(line) >= MIN_DICTATED_CHARS and any(line in text for text in dictated)


def repeats_objective(sentence: str, objectives: Sequence[str]) -> bool:
    """Whether a sentence is copied from an objective.

    Words that an objective tells the model to say literally, in quotation marks, do not count.
    """
    line = one_line(sentence).rstrip(".!").lower()
    if len(line) < MIN_DICTATED_CHARS or is_dictated(sentence, dictated_texts(objectives)):
        return False
    return any(line in one_line(objective).lower() for objective in objectives)


def one_line(text: str) -> str:
    """The text with every run of white space replaced by one space."""
    return " ".join(text.split())
