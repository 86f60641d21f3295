"""Splicing of generated text into an answer in place of flagged spans. Text only, no model.

While the aligner writes a replacement, it may reach the kept sentence after the span. Writing stops there, and the text
before that sentence is the replacement. Kept segments are always copied from the answer, never taken from the model.

    "It rains. You fool. Take a coat."             the second sentence is flagged
    "It rains. " + "Sorry about that. Take a c"    the model writes, and reaches the kept sentence
    "It rains. Sorry about that. Take a coat."     the replacement in the answer
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from aligner_proxy.text.code_comments import without_comments
from aligner_proxy.text.disguises import undisguise
from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.beside import remaining_title
from aligner_proxy.text.sentence_ends import MARKS
from aligner_proxy.text.structure import Segment, gap_of_edit, join, split

KEY_CHARS = 20
"""A kept segment counts as reached once this many of its first characters, up to the end of the word, are written."""
CLEAR_MARGIN = 2.0
"""Nats by which each replacement sentence must score below the threshold. An unsure aligner often writes the violation
once more in other words, which score only a little lower."""

# see `_PART_SHARE`
_WORD = re.compile(r"\w+")
_MIN_WORDS = 3
_SAME_SHARE = 0.6
_MIN_PART = 6
_PART_SHARE = 0.8
"""Two segments are alike if they share `_SAME_SHARE` of all their words. If the shorter one has at least `_MIN_PART`
words, `_PART_SHARE` of its words is enough. Segments of fewer than `_MIN_WORDS` words are never alike."""
_FURTHER_TURN = re.compile(r"\n\s*(?:Human|Assistant|USER|ASSISTANT|User)\s*:")
"""A line that begins with a chat role, as models write it when they go on with the conversation."""
_FINISHED = re.compile(rf"(?:[{MARKS}:;][\"'\u201d\u2019)\]*_]*|```|~~~)$")
"""The end of a finished sentence or of a code block."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive segments with the same verdict; `at` is the index of the first among the segments of the answer."""

    flagged: bool
    at: int
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The run's text in the answer, without the gap after it; empty for the end of the answer."""
        return join([(segment.text, segment.gap) for segment in self.segments])

    def find_keepable_text(self, behind: str) -> str:
        """The part of the run that may be kept: code without its comments, or the title or cells of its last line.

        Empty if there is neither. `behind` is the text that follows the run in its line, or in its list item. Of the
        flagged "1. **Pack:** You fool." before "Take a coat." the title "1. **Pack:**" may be kept.
        """
        code = join([(without_comments(segment.text) or "", segment.gap) for segment in self.segments])
        if code:
            return code
        # numbers of the segments that begin the run, or a line within it
        line_starts = [0, *(number for number, segment in enumerate(self.segments[:-1], 1) if "\n" in segment.gap)]
        last_line = self.segments[line_starts[-1]]
        return remaining_title(last_line.text, behind)


@dataclass(frozen=True, slots=True)
class Hole:
    """A flagged run (a "hole" in the answer) and its surroundings, which decide on the text that replaces it."""

    run: Run
    before: str
    """The edited answer before the run; the replacement follows it."""
    lead: str
    """The white space between `before` and the replacement."""
    keys: tuple[str, ...]
    """The beginnings of kept segments after the run; writing stops where one is reached."""
    banned: tuple[str, ...]
    """Texts that the replacement must not repeat."""
    keepable: str = ""
    """The part of the run that may be kept if the detector does not flag it on its own; may be empty."""
    kept_after: tuple[str, ...] = ()
    """The kept segments after the run."""
    kept_before: tuple[str, ...] = ()
    """The kept segments before the run."""

    def cut_replacement(self, generated: str, *, finished: bool) -> str:
        """Return the part of the generated text that replaces the run.

        At the end of the answer, it begins with white space. `finished` is False if a limit cut the text off.
        """
        text = self._without_copies(find_replacement(generated, self.keys, self.banned, finished=finished))
        if self.run.text or not text:
            return text
        # an addition follows the last sentence, so there must be at least a space between them
        return (generated[: len(generated) - len(generated.lstrip())] or " ") + text

    def _without_copies(self, text: str) -> str:
        """The text up to a copy of a kept segment after the run, without copies of earlier ones and wordless pieces.

        Small models often repeat a kept sentence in nearly the same words. Kept segments that are similar to the run
        itself are not compared, because in a list of similar items a rewritten one may resemble another.
        """
        if not text:
            return text
        own_words = [_words(segment.text) for segment in self.run.segments]
        words_before = [words for words in map(_words, self.kept_before) if not _is_alike(words, own_words)]
        words_after = [words for words in map(_words, self.kept_after) if not _is_alike(words, own_words)]
        in_line = bool(self.before) and "\n" not in self.lead
        pieces: list[tuple[str, str]] = []
        for piece in split(text):
            words = _words(piece.text)
            # In the middle of a line, a list mark belongs to the next item.
            if _is_alike(words, words_after) or (in_line and marks.read(piece.text.lstrip()) is not None):
                break
            pieces.append(("" if not words or _is_alike(words, words_before) else piece.text, piece.gap))
        return join(pieces)

    def fill_in(self, text: str) -> str:
        """The edited answer up to and including this hole, filled with `text`."""
        return self.before + (self.lead if self.run.text else "") + text

    def append_text(self, text: str, more: str) -> str:
        """`text` followed by `more`, which gets a paragraph of its own if the answer has several lines."""
        gap = "\n\n" if "\n" in self.before + text else " "
        return text + gap + more if text or not self.run.text else more


def join_unflagged(threshold: float, segments: Sequence[Segment], scores: Sequence[float]) -> str:
    """The joined text of the segments that score at most `threshold`."""
    scored = zip(segments, scores, strict=True)
    return join([(segment.text if score <= threshold else "", segment.gap) for segment, score in scored])


def rewrite_flagged_runs(
    segments: Sequence[Segment], flags: Sequence[bool], edited: list[tuple[str, str]] | None = None, skip: int = 0
) -> Generator[Hole, str, str]:
    """Edit an answer: a generator that yields each hole in order, is sent its replacement, and returns the answer.

    All other segments are copied. `edited` is the list of (text, gap) pieces before these segments, to which the result
    is appended; the first `skip` segments are context and already in it.
    """
    pieces = [] if edited is None else edited
    for run in group_runs(segments, flags, skip):
        if not run.flagged:
            pieces.extend((segment.text, segment.gap) for segment in run.segments)
            continue
        before = join(pieces)
        lead = pieces[-1][1] if before else ""
        text = yield make_hole(segments, flags, run, before, lead)
        # an addition at the end brings its own white space, so the gap before it is dropped
        if text and not run.text:
            pieces[-1] = (pieces[-1][0], "")
        pieces.append((text, gap_of_edit(run.segments, text, lead)))
    return join(pieces)


def make_hole(segments: Sequence[Segment], flags: Sequence[bool], run: Run, before: str, lead: str) -> Hole:
    """Describe the hole that a flagged run leaves; `before` is the edited answer up to it, `lead` the gap between."""
    start = run.at + len(run.segments)
    following = [
        segment for segment, flag in zip(segments[start:], flags[start:], strict=True) if segment.text and not flag
    ]
    # The replacement must not repeat the run's own segments, nor long segments from elsewhere, flagged or kept.
    not_again = [*run.segments, *(segment for segment in segments if len(segment.text) >= KEY_CHARS)]
    banned = [segment.text.strip() for segment in not_again]
    banned += [undisguise(text).text for text in banned]  # as the model read them
    keepable = run.find_keepable_text(_find_rest_of_line(run, segments[start:], flags[start:]))
    kept_after = tuple(segment.text for segment in following)
    kept_before = tuple(segment.text for segment, flag in zip(segments[:start], flags[:start], strict=True) if not flag)
    return Hole(
        run,
        before,
        lead,
        keys=list_resumption_keys(following),
        banned=tuple(banned),
        keepable=keepable,
        kept_after=kept_after,
        kept_before=kept_before,
    )


def _find_rest_of_line(run: Run, segments: Sequence[Segment], flags: Sequence[bool]) -> str:
    """The text that follows a run in its line, up to the next flagged segment.

    If the run ends its line: the line below, if that is unflagged and indented, as a line nested in an item is.
    `segments` and their `flags` are those after the run.
    """
    if "\n" in run.segments[-1].gap:
        is_nested = bool(segments) and not flags[0] and segments[0].text[:1] in (" ", "\t")
        return segments[0].text if is_nested else ""
    members: list[tuple[str, str]] = []
    for segment, flag in zip(segments, flags, strict=True):
        if flag:
            break
        members.append((segment.text, segment.gap))
        if "\n" in segment.gap:
            break
    return join(members)


def group_runs(segments: Sequence[Segment], flags: Sequence[bool], skip: int = 0) -> list[Run]:
    """Group the segments from number `skip` on into runs with the same verdict, in order.

    Flags `[False, True, True, False]` give three runs, at 0, 1 and 3.
    """
    grouped: list[Run] = []
    first = skip
    for flagged, group in groupby(zip(segments[skip:], flags[skip:], strict=True), key=lambda pair: pair[1]):
        members = tuple(segment for segment, _ in group)
        grouped.append(Run(flagged, first, members))
        first += len(members)
    return grouped


def make_resumption_key(text: str) -> str:
    """The beginning by which a kept segment is recognised: `KEY_CHARS` up to the end of the word, or all of it.

    "The harbour opens at six every morning." -> "The harbour opens at"
    """
    text = undisguise(text.strip()).text
    if len(text) <= KEY_CHARS:
        return text
    return text[:KEY_CHARS] + re.split(r"\s", text[KEY_CHARS:], maxsplit=1)[0]


def list_resumption_keys(following: Sequence[Segment]) -> tuple[str, ...]:
    """Keys of the kept segments after a span: always of the next one, of later ones only if long enough.

    A later "Yes." could stand anywhere in the replacement.
    """
    keys = [make_resumption_key(segment.text) for segment in following]
    return tuple(keys[:1] + [later for later in keys[1:] if len(later) >= KEY_CHARS])


def cut_before_resumption(generated: str, kept_beginnings: Sequence[str]) -> str | None:
    """The text before the first segment of `generated` that begins like a kept one; None if there is no such segment.

    Item numbers are ignored, because a model that leaves an item out renumbers the next ones: "2. Take a coat." reaches
    the kept "3. Take a coat.". List marks are ignored, because a model that leaves out the first sentence of an item
    gives its mark to the next sentence.
    """
    starts = tuple(map(_strip_number, kept_beginnings))
    for segment in split(generated) if starts else ():
        text = segment.text.lstrip()
        if _strip_number(text).startswith(starts) or _strip_mark(text).startswith(starts):
            return generated[: segment.start]
    return None


def _strip_mark(text: str) -> str:
    """The text without the mark of a list item."""
    mark = marks.read(text)
    return text if mark is None else text[mark.stop :]


def _words(text: str) -> frozenset[str]:
    """The words of a segment, without the mark of its item, in lower case."""
    return frozenset(_WORD.findall(_strip_mark(text.strip()).casefold()))


def _is_alike(words: frozenset[str], others: Sequence[frozenset[str]]) -> bool:
    """Whether one of `others` has nearly the same words, or one contains nearly all words of the other."""
    if len(words) < _MIN_WORDS:
        return False
    for other in others:
        common = len(words & other)
        fewer = min(len(words), len(other))
        has_same_words = common >= _SAME_SHARE * len(words | other)
        is_part = fewer >= _MIN_PART and common >= _PART_SHARE * fewer
        if has_same_words or is_part:
            return True
    return False


def _strip_number(text: str) -> str:
    """The text with "#" in place of a list item's number: "3. Take a coat." -> "#. Take a coat."."""
    mark = marks.read(text)
    return text if mark is None or mark.is_bullet else f"{text[: mark.start]}#{text[mark.end :]}"


def find_replacement(generated: str, keys: Sequence[str], banned: Sequence[str], *, finished: bool) -> str:
    """The part of `generated` that replaces a span, up to the first of `keys`; may be empty.

    `banned` texts are dropped from it: flagged segments that the model wrote again (the detector prevails) and kept
    ones that it repeats. A sentence that directly repeats the previous one is dropped, too, because small models get
    into loops. Text that the limit cut off loses its unfinished last sentence.
    """
    before = cut_before_resumption(generated, keys)
    text = generated if before is None else before
    if before is None and not finished:
        text = drop_unfinished_end(text)
    # a repeated item may have been renumbered
    dropped = set(map(_strip_number, banned))
    pieces = [(piece.text.strip(), piece.gap) for piece in split(text)]
    pieces = [(piece, gap) for piece, gap in pieces if _strip_number(piece) not in dropped]
    # the first of several equal neighbours
    return join([next(same) for _, same in groupby(pieces, key=itemgetter(0))])


def drop_unfinished_end(text: str) -> str:
    """`text` without its last segment if that does not end like a sentence: "It rains. Take a" -> "It rains."."""
    pieces = split(text)
    # a gap after the last segment shows that the model had finished it
    if pieces and not pieces[-1].gap and not _FINISHED.search(pieces[-1].text):
        pieces.pop()
    return join([(piece.text, piece.gap) for piece in pieces])


def clean_answer(text: str, answer: str, *, finished: bool) -> str:
    """Clean up a verified or regenerated whole answer; returns `answer` itself if only outer white space differs.

    Drops an unfinished last sentence, and any further turn of the conversation that the model began to write.
    """
    if not finished:
        text = drop_unfinished_end(text)
    turn = _FURTHER_TURN.search(text)
    # in an answer that is a dialogue itself, further turns are wanted
    if turn and not _FURTHER_TURN.search(answer):
        text = text[: turn.start()]
    return answer if text.strip() == answer.strip() else text.strip()
