"""Structure of a text: segments, lists and their items, lines of a dialogue, words in quotation marks.

A segment is what the detector head judges and what an edit replaces: a sentence, a list item, a heading, or a whole
code block. Segments and the white space between them (gaps) add up to the text exactly. A boundary depends only on the
text before it and on the word after it (line_sentences.py), so a growing text keeps the boundaries it already had.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile, zip_longest

from aligner_proxy.text.line_sentences import LineSentences
from aligner_proxy.text.sentence_ends import CLOSING, MARKS, WIDE

FENCES = ("```", "~~~")
"""What a line that opens or closes a block of code begins with."""
_FENCE = re.compile(r"[ \t]*+(?:(```+|~~~+)|`{0,2}\Z|~{0,2}\Z)")
"""Matches a fence at the beginning of a line, or what may become one where the text ends."""
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_SENTENCE_SIGNS = re.escape(MARKS + CLOSING)
_WIDE_SENTENCE_END = re.compile(rf"(?<![{WIDE}])[{WIDE}]+[{re.escape(CLOSING)}]*(?=[^{_SENTENCE_SIGNS}])")


def speaker_pattern(colons: str, before_name: str = "") -> str:
    """Return a pattern of the beginning of a speaker's line, up to the colon behind the name.

    `colons` are the characters that count as a colon, and `before_name` is a pattern of what may precede the name. The
    name (group `name`) may be emphasised or in brackets, with a remark behind it: "> **Ada** (laughs)".
    """
    name = rf"(?P<name>[^\W_][^\n{colons}*_\"?!;\[\]()]{{0,39}}?)"
    return rf"[ \t>*_#-]{{0,12}}{before_name}\[?{name}[ \t]{{0,3}}(?:\([^()\n]{{1,40}}\))?[\]*_ \t]{{0,6}}"


_SPEAKER_LINE = re.compile(speaker_pattern(":") + r":[*_]{0,4}[ \t]{1,9}\S")
_BARE_NAME = re.compile(r".{1,60}:[*_\]]{0,4}")
_ANY_SPEECH = "x"
"""Stands for what a speaker says."""
_MAX_NAME_WORDS = 4
"""Most words in the name of a speaker."""
_MIN_SPEAKERS = 2
"""Fewest speakers of a dialogue."""
_MIN_TURNS = 2
"""Fewest lines that one of the speakers must have in a dialogue."""
# Roles that models write when they run on; each must speak at least twice before the text counts as a dialogue.
_ROLES = frozenset({"human", "user", "assistant", "system"})
TURN = re.compile(r"^[ \t>*#]*(?:Human|User|Assistant|System)[ \t]*\**[ \t]*:", re.MULTILINE | re.IGNORECASE)
"""The beginning of a line with a chat role and a colon, perhaps quoted, in a heading or in bold."""
_MAX_TITLE_LINES = 4
"""Most lines of titles before the first speaker."""
_MAX_TITLE_CHARS = 80
"""Longest title; a longer line is a sentence."""
_SENTENCE_LINE_END = re.compile(r"\w[.!?][\"'\u201d]?$")
_TITLE_SIGNS = re.compile(
    r"[ \t]*(?:#|(?:\d{1,2}[.)][ \t]+)?(?P<sign>\*\*|__)(?:(?!(?P=sign))[^\n])+(?P=sign):?[ \t]*$)"
)
"""Matches a line that is a heading or stands in emphasis."""
_STAGE_SIGNS = tuple("([*_#")
"""Signs at the beginning of a stage direction, an emphasised title or a heading."""
_MAX_CACHED_CHARS = 2**20
"""Longest text whose segments are cached."""
MIN_DICTATED_CHARS = 12
"""Minimum length of a dictated text; shorter quotations are words that the objective mentions."""
_QUOTED_TEXT = re.compile(r"(?:^|(?<=[\s:(]))[\"'\u2018\u201c](\S.*\S)[\"'\u2019\u201d](?=[\s.,;:!?)]|$)", re.DOTALL)


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
    return list(_split_cached(text) if len(text) <= _MAX_CACHED_CHARS else _split(text))


def _split(text: str) -> tuple[Segment, ...]:
    """Do the work of `split`, not cached."""
    return tuple(cut(text, BoundaryFinder().read(text)))


def cut(text: str, boundaries: Iterable[int], offset: int = 0) -> list[Segment]:
    """Cut a text, which begins at `offset` of the answer, into the segments between these boundaries of the answer."""
    spans: list[tuple[int, int]] = []
    start = 0
    for boundary in (*boundaries, offset + len(text)):
        end = boundary - offset
        visible_length = len(text[start:end].rstrip())
        if visible_length:
            spans.append((start, start + visible_length))
        # white space at the beginning of a text is a segment of its own, because no gap can hold it
        elif end > start and not spans:
            spans.append((start, end))
        start = end
    # what is between a segment and the next is its gap
    starts = [*(start for start, _ in spans), len(text)]
    return [
        Segment(offset + start, text[start:end], text[end:next_start])
        for (start, end), next_start in zip(spans, starts[1:], strict=True)
    ]


_split_cached = lru_cache(maxsize=4)(_split)
"""Cached, because engine, gate and rules of the gate split the same answer and its edited form one after the other."""


def join(pieces: Sequence[tuple[str, str]]) -> str:
    """Join pieces, each (text, gap behind it), without those whose text is empty because it was removed.

    If a removed piece had more line breaks after it than the piece before, the piece before gets them. Otherwise
    removing the last sentence of a paragraph would join the next paragraph to it. The last remaining piece loses its
    gap.
    """
    remaining: list[tuple[str, str]] = []
    for text, gap in pieces:
        if text:
            remaining.append((text, gap))
        elif remaining and gap.count("\n") > remaining[-1][1].count("\n"):
            last_text, _ = remaining[-1]
            remaining[-1] = (last_text, gap)
    if not remaining:
        return ""
    last_text, _ = remaining.pop()
    return "".join(text + gap for text, gap in remaining) + last_text


def replace_segments(text: str, replacements: Iterable[tuple[str, str]]) -> tuple[str, int]:
    """Replace segments in an edited text: (the new text, number of segments that became others).

    `replacements` has (segment as it was, new segment), in the order of the text. Those that the text lacks, because
    they were edited otherwise, are skipped; those that become themselves show where the later ones stand.
    """
    position = 0
    changed_count = 0
    for old_text, new_text in replacements:
        start = text.find(old_text, position)
        if start < 0:
            continue
        changed_count += new_text != old_text
        text = text[:start] + new_text + text[start + len(old_text) :]
        position = start + len(new_text)
    return text, changed_count


def gap_of_edit(run: Sequence[Segment], text: str, lead: str) -> str:
    """The white space behind an edit that replaces the segments of `run` by `text`; `lead` is the white space before.

    A removed run (`text` is empty) leaves only one of the gaps around it: that with more line breaks, the one before it
    if both have as many, as `join` does.
    """
    behind = run[-1].gap
    if text:
        return behind
    gaps = [lead, behind]
    # where the run begins or ends within a line, gaps inside it count, too, or two paragraphs would become one
    if "\n" not in behind or "\n" not in lead:
        gaps += [segment.gap for segment in run]
    return max(gaps, key=lambda gap: gap.count("\n"))


def append_end(pieces: Sequence[Segment]) -> list[Segment]:
    """The segments plus an empty one at the end of the text, which stands for the place of additions."""
    if not pieces:
        return [Segment(0, "", "")]
    last = pieces[-1]
    return [*pieces, Segment(last.end, "", last.gap)]


def shift_segment(segment: Segment, offset: int) -> Segment:
    """A copy of the segment that begins `offset` characters later."""
    return Segment(segment.start + offset, segment.text, segment.gap)


def match_segments(pieces: Sequence[Segment], texts: Sequence[str]) -> list[Segment]:
    """The segments that an engine's verdicts are about; `texts` are the texts that the verdicts name.

    An empty last text is a verdict about the end of the answer, so an empty segment is added for it.
    """
    return append_end(pieces) if texts and not texts[-1] else list(pieces)


def join_so_far(pieces: Iterable[tuple[str, str]]) -> str:
    """Join pieces, each (text, gap behind it), without empty ones; the last piece keeps its gap."""
    return "".join(text + gap for text, gap in pieces if text)


def firm_length(text: str) -> int:
    """Number of characters at the beginning of a text whose tokens cannot change as the text grows.

    These are the characters before the last word. A full-width sentence mark also ends a word.
    """
    visible_text = text.rstrip()
    words = visible_text.rsplit(None, 1)
    if not words:
        return 0
    last_word = words[-1]
    word_start = len(visible_text) - len(last_word)
    mark_ends = [word_start + mark.end() for mark in _WIDE_SENTENCE_END.finditer(last_word)]
    return mark_ends[-1] if mark_ends else len(text[:word_start].rstrip())


class CodeLines:
    """Tells which lines of a text are in a block of code."""

    def __init__(self) -> None:
        self._fence = ""
        """The fence that opened the present block; empty outside of code."""

    @property
    def is_open(self) -> bool:
        """Whether the last line that was read is in a block, or opens one."""
        return bool(self._fence)

    def read(self, line: str) -> None:
        """Read the next line."""
        match = _FENCE.match(line)
        fence = match[1] if match else None
        if not fence:
            return
        if not self._fence:
            self._fence = fence
        # the closing fence is as long as the opening one, or longer, and alone in its line
        elif fence.startswith(self._fence) and line.strip() == fence:
            self._fence = ""


class BoundaryFinder:
    """Finds the boundaries of a text, which may come piece by piece: the offsets where a new segment starts.

    Each boundary follows the white space behind a segment.
    """

    def __init__(self) -> None:
        self._line_start = 0
        """Offset of the present line in the text."""
        self._code = CodeLines()
        """The lines of code before the present line."""
        self._begin_line()

    def _begin_line(self) -> None:
        self._line = LineSentences()
        """The present line."""
        self._is_indentation = True
        """Whether the present line has only spaces and tabs so far."""
        self._has_fence = False
        """Whether the present line begins with a fence."""
        self._may_be_fence = True
        """Whether the present line begins with a fence, or with what may become one."""

    def read(self, text: str) -> Iterator[int]:
        """Read the next text; yield the boundaries that are certain now, in order."""
        for line_piece in _LINE.findall(text):
            line = self._line
            line.text += line_piece
            self._is_indentation = self._is_indentation and not line_piece.strip(" \t")
            # a line may come in very many pieces, so it is not matched again once its beginning is known
            if self._may_be_fence and not (self._is_indentation or self._has_fence):
                fence = _FENCE.match(line.text)
                self._may_be_fence = fence is not None
                self._has_fence = fence is not None and fence[1] is not None
            if not (self._may_be_fence or self._code.is_open):
                for start in line.find_starts():
                    yield self._line_start + start
            if not line_piece.endswith("\n"):
                return
            if self._may_be_fence:
                self._code.read(line.text)
            self._line_start += len(line.text)
            self._begin_line()
            if not self._code.is_open:
                yield self._line_start


def occurs_in_order(required: Iterable[str], present: Iterable[str]) -> bool:
    """Whether all of `required` occur in `present`, in this order."""
    unread = iter(present)
    # `in` reads the iterator up to the match, so the next one is looked for behind it
    return all(mark in unread for mark in required)


def speaker_turns(text: str) -> Counter[str]:
    """Number of lines of each speaker of a dialogue; empty if the text is not a dialogue.

    It is enough that one speaker has two lines, because an answer that is still being written is judged, too.
    """
    line_counts = speaker_lines(text)
    # a model that runs on writes chat roles, so in a dialogue of roles each speaker needs several lines
    fewest_lines = _MIN_TURNS if _ROLES & line_counts.keys() else 1
    speakers = Counter({name: count for name, count in line_counts.items() if count >= fewest_lines})
    is_dialogue = _speaks_again(text) and len(speakers) >= _MIN_SPEAKERS and _begins_with_titles(text)
    return speakers if is_dialogue else Counter()


def _speaks_again(text: str) -> bool:
    """Whether somebody has several lines that no title divides.

    Under each title of a list or plan, the same labels occur once: "Day 1", "Morning: ...", "Day 2", "Morning: ...".
    """
    title_counts: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    lines = [line for line in text.splitlines() if line.strip()]
    for line, next_line in zip_longest(lines, lines[1:], fillvalue=""):
        name = _read_speaker(line.strip())
        has_title_signs = _TITLE_SIGNS.match(line) is not None
        if has_title_signs or (name is None and _heads_labels(line, next_line)):
            counts.clear()
        # a title may itself be a line of a speaker: "### Ada: Is it done?"
        line_counts = title_counts if has_title_signs else counts
        if name is not None:
            line_counts[name] += 1
            if line_counts[name] >= _MIN_TURNS:
                return True
    return False


def _heads_labels(line: str, next_line: str) -> bool:
    """Whether a line that is no speaker's ends in a colon, or has a label below it that is indented more."""
    is_less_indented = len(line) - len(line.lstrip()) < len(next_line) - len(next_line.lstrip())
    return line.rstrip("*_ \t").endswith(":") or (is_less_indented and _read_speaker(next_line.strip()) is not None)


def speaker_lines(text: str) -> Counter[str]:
    """Number of lines that begin with a name and a colon, by name."""
    return Counter(name for line in text.splitlines() if (name := _read_speaker(line.strip())))


def speaker_segments(pieces: Sequence[Segment], *, begins_line: bool = True) -> list[tuple[str, range]]:
    """Find the turns of a dialogue: (name of the speaker, indexes of the turn's segments).

    A turn ends before the next speaker's line or a stage direction. `begins_line` says whether the first segment begins
    a line.
    """
    turns: list[tuple[str, range]] = []
    start = 0
    speaker: str | None = None  # None outside of turns
    for index, segment in enumerate(pieces):
        if index > 0:
            begins_line = "\n" in pieces[index - 1].gap
        if not begins_line:
            continue
        line = segment.text.strip()
        name = _read_speaker(line)
        if name is None and not line.startswith(_STAGE_SIGNS):
            continue
        if speaker is not None:
            turns.append((speaker, range(start, index)))
        start = index
        speaker = name
    if speaker is not None:
        turns.append((speaker, range(start, len(pieces))))
    return turns


def _begins_with_titles(text: str) -> bool:
    """Whether only titles precede the first speaker's line."""
    lines = (line.strip() for line in text.splitlines())
    titles = [line for line in takewhile(lambda line: not _read_speaker(line), lines) if line]
    return len(titles) <= _MAX_TITLE_LINES and all(map(_is_title, titles))


def _read_speaker(line: str) -> str | None:
    """The speaker of a line, in lower case; None for other lines, such as a sentence that ends in a colon."""
    match = _SPEAKER_LINE.match(line)
    name = match["name"].strip().casefold() if match else ""
    return name if name and len(name.split()) <= _MAX_NAME_WORDS else None


def begins_turn(text: str) -> bool:
    """Whether a text begins with a chat role and a colon, such as "Human:"."""
    return TURN.match(text) is not None


def bare_name(line: str) -> str | None:
    """The speaker of a line that has nothing but a name and a colon; None for other lines."""
    line = line.strip()
    return _read_speaker(f"{line} {_ANY_SPEECH}") if _BARE_NAME.fullmatch(line) else None


def _is_title(line: str) -> bool:
    """Whether a line is a title, an announcement or a stage direction."""
    return line.startswith(_STAGE_SIGNS) or (len(line) <= _MAX_TITLE_CHARS and not _SENTENCE_LINE_END.search(line))


def dictated_text(objective: str) -> str | None:
    """The text between the first and the last quotation mark of an objective, in one line; None if missing or short."""
    match = _QUOTED_TEXT.search(objective)
    quoted = one_line(match.group(1)) if match else ""
    return quoted if len(quoted) >= MIN_DICTATED_CHARS else None


def dictated_texts(objectives: Iterable[str]) -> list[str]:
    """The dictated texts (`dictated_text`) of those objectives that have one."""
    return [quoted for objective in objectives if (quoted := dictated_text(objective))]


def is_dictated(sentence: str, dictated: Iterable[str]) -> bool:
    """Whether a sentence of at least `MIN_DICTATED_CHARS` is part of one of the `dictated` texts."""
    line = one_line(sentence)
    return len(line) >= MIN_DICTATED_CHARS and any(line in text for text in dictated)


def repeats_objective(sentence: str, objectives: Sequence[str]) -> bool:
    """Whether a sentence is copied from one of the `objectives`.

    It does not count if it is part of a text in quotation marks, which an objective tells the model to say literally.
    """
    line = one_line(sentence).rstrip(".!").lower()
    if len(line) < MIN_DICTATED_CHARS or is_dictated(sentence, dictated_texts(objectives)):
        return False
    return any(line in one_line(objective).lower() for objective in objectives)


def one_line(text: str) -> str:
    """The text with every run of white space replaced by one space."""
    return " ".join(text.split())
