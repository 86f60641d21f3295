"""Splicing of generated text into an answer in place of flagged runs (consecutive segments). This module runs no model.

While the aligner writes a replacement, it may reach the kept sentence after the run. Writing stops there, and the text
before that sentence is the replacement. Kept segments are always copied from the answer, never taken from the model.

    "It rains. You fool. Take a coat."             the second sentence is flagged
    "It rains. " + "Sorry about that. Take a c"    the model writes, and reaches the kept sentence
    "It rains. Sorry about that. Take a coat."     the replacement in the answer
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from aligner_proxy.text.code_comments import without_comments
from aligner_proxy.text.disguises import undisguise
from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.beside import remaining_title
from aligner_proxy.text.sentence_ends import MARKS, PICTURES_BEHIND
from aligner_proxy.text.structure import Segment, gap_of_edit, join, split

KEY_CHARS = 20
"""A kept segment counts as reached once its beginning is written: so many characters, up to the end of the word."""
CLEAR_MARGIN = 2.0
"""Nats by which each replacement sentence must score below the threshold. An unsure aligner often writes the violation
once more in other words, which score only a little lower."""

_WORD = re.compile(r"\w+")
_MIN_WORDS = 3
"""Segments of fewer words are never alike."""
_MIN_SHARE_OF_ALL = 0.6
"""Two segments are alike if this share of all their words is in both."""
_MIN_WORDS_OF_SHORTER = 6
_MIN_SHARE_OF_SHORTER = 0.8
"""They are also alike if the shorter one has so many words, and this share of them is in the longer one."""
_FURTHER_TURN = re.compile(r"\n\s*(?:Human|Assistant|USER|ASSISTANT|User)\s*:")
"""A line that begins with a chat role, as models write it when they go on with the conversation."""
_SENTENCE_END = re.compile(rf"(?:[{MARKS}:;][\"'\u201d\u2019)\]*_]*{PICTURES_BEHIND}|```|~~~)$")
"""The end of a finished sentence or of a code block."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive segments, all flagged or all kept; `first` is the index of the first one in the answer."""

    flagged: bool
    first: int
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The run's text in the answer, without the gap after it; empty for the end of the answer."""
        return join([(segment.text, segment.gap) for segment in self.segments])

    def find_keepable_text(self, text_behind: str) -> str:
        """Return the part that may be kept: code without its comments, or the title or cells of the run's last line.

        `text_behind` is the text that follows the run in its line, or in its list item. Of the flagged "1. **Pack:**
        You fool." before "Take a coat." the title "1. **Pack:**" may be kept.
        """
        code = join([(without_comments(segment.text) or "", segment.gap) for segment in self.segments])
        if code:
            return code
        line_start = self.segments[0]
        for segment, next_segment in pairwise(self.segments):
            if "\n" in segment.gap:
                line_start = next_segment
        return remaining_title(line_start.text, text_behind)


@dataclass(frozen=True, slots=True)
class Hole:
    """A flagged run (a "hole" in the answer) and its surroundings, which decide on the text that replaces the run."""

    run: Run
    """The flagged segments; its text is empty if only the end of the answer is flagged, where text is missing."""
    text_before: str
    """The edited answer before the run; the replacement follows it."""
    gap_before: str
    """The white space between `text_before` and the replacement."""
    kept_beginnings: tuple[str, ...]
    """The beginnings of kept segments after the run; writing stops where one is reached."""
    banned_texts: tuple[str, ...]
    """Texts that the replacement must not repeat."""
    keepable_text: str = ""
    """The part of the run that may be kept if the detector does not flag it on its own; may be empty."""
    kept_after: tuple[str, ...] = ()
    """The kept segments after the run."""
    kept_before: tuple[str, ...] = ()
    """The kept segments before the run."""

    def cut_replacement(self, generated: str, *, finished: bool) -> str:
        """Return the part of the generated text that replaces the run; a limit cut the text off unless `finished`."""
        replacement = find_replacement(generated, self.kept_beginnings, self.banned_texts, finished=finished)
        text = self._drop_copies(replacement)
        is_addition = not self.run.text
        if not text or not is_addition:
            return text
        # an addition follows the last sentence, so there must be at least a space between them
        leading_space = generated[: len(generated) - len(generated.lstrip())]
        return (leading_space or " ") + text

    def _drop_copies(self, text: str) -> str:
        """Return `text` up to a copy of a kept segment after the run, without copies of kept segments before the run.

        Small models often repeat a kept sentence in nearly the same words. Kept segments that are similar to the run
        itself are not compared, because in a list of similar items a rewritten one may resemble another. Pieces without
        words are left out, too.
        """
        own_words = [_find_words(segment.text) for segment in self.run.segments]
        words_before = [words for words in map(_find_words, self.kept_before) if not _is_like_any(words, own_words)]
        words_after = [words for words in map(_find_words, self.kept_after) if not _is_like_any(words, own_words)]
        begins_in_line = bool(self.text_before) and "\n" not in self.gap_before
        new_pieces: list[tuple[str, str]] = []
        for segment in split(text):
            words = _find_words(segment.text)
            # in the middle of a line, a list mark belongs to the next item, which is kept
            begins_item = begins_in_line and marks.read(segment.text.lstrip()) is not None
            if begins_item or _is_like_any(words, words_after):
                break
            is_dropped = not words or _is_like_any(words, words_before)
            new_pieces.append(("" if is_dropped else segment.text, segment.gap))
        return join(new_pieces)

    def fill_in(self, text: str) -> str:
        """Return the edited answer up to the end of this hole, with `text` in the hole."""
        # an addition at the end of the answer brings its own white space
        return self.text_before + (self.gap_before if self.run.text else "") + text

    def append_text(self, text: str, addition: str) -> str:
        """Return `text` followed by `addition`, which gets its own paragraph if the answer has several lines."""
        gap = "\n\n" if "\n" in self.text_before + text else " "
        return text + gap + addition if text or not self.run.text else addition


def join_unflagged(threshold: float, segments: Sequence[Segment], scores: Sequence[float]) -> str:
    """Return the joined text of the segments that score at most `threshold`."""
    scored_segments = zip(segments, scores, strict=True)
    return join([(segment.text if score <= threshold else "", segment.gap) for segment, score in scored_segments])


def rewrite_flagged_runs(
    segments: Sequence[Segment], flags: Sequence[bool], edited: list[tuple[str, str]] | None = None, skip: int = 0
) -> Generator[Hole, str, str]:
    """Edit an answer. A generator that yields each hole in order, is sent its replacement, and returns the new answer.

    `edited` is the list of the (text, gap) pieces before these segments, to which the pieces of the result are
    appended; the first `skip` segments are context and already in this list.
    """
    pieces = [] if edited is None else edited
    for run in group_runs(segments, flags, skip):
        if not run.flagged:
            pieces.extend((segment.text, segment.gap) for segment in run.segments)
            continue
        text_before = join(pieces)
        gap_before = pieces[-1][1] if text_before else ""
        text = yield make_hole(segments, flags, run, text_before, gap_before)
        # an addition at the end brings its own white space, so the gap before it is dropped
        if text and not run.text:
            pieces[-1] = (pieces[-1][0], "")
        pieces.append((text, gap_of_edit(run.segments, text, gap_before)))
    return join(pieces)


def make_hole(segments: Sequence[Segment], flags: Sequence[bool], run: Run, text_before: str, gap_before: str) -> Hole:
    """Return the hole that a flagged run leaves among `segments`; `flags` say which of the segments are flagged."""
    stop = run.first + len(run.segments)
    kept_before = [segment for segment, flag in zip(segments[:stop], flags[:stop], strict=True) if not flag]
    kept_after = [
        segment for segment, flag in zip(segments[stop:], flags[stop:], strict=True) if segment.text and not flag
    ]
    # the replacement must not repeat the run's own segments, nor long segments from elsewhere, flagged or kept
    banned_segments = [*run.segments, *(segment for segment in segments if len(segment.text) >= KEY_CHARS)]
    banned_texts = [segment.text.strip() for segment in banned_segments]
    banned_texts += [undisguise(text).text for text in banned_texts]  # the model read and may repeat this form
    text_behind = _find_rest_of_line(run, segments[stop:], flags[stop:])
    return Hole(
        run,
        text_before,
        gap_before,
        kept_beginnings=list_kept_beginnings(kept_after),
        banned_texts=tuple(banned_texts),
        keepable_text=run.find_keepable_text(text_behind),
        kept_after=tuple(segment.text for segment in kept_after),
        kept_before=tuple(segment.text for segment in kept_before),
    )


def _find_rest_of_line(run: Run, segments: Sequence[Segment], flags: Sequence[bool]) -> str:
    """Return the text that follows a run in its line, up to the next flagged segment.

    If the run ends its line, this is the line below, provided that it is unflagged and indented, as a line nested in a
    list item is. `segments` and their `flags` are those after the run.
    """
    if "\n" in run.segments[-1].gap:
        is_nested = bool(segments) and not flags[0] and segments[0].text[:1] in (" ", "\t")
        return segments[0].text if is_nested else ""
    rest_pieces: list[tuple[str, str]] = []
    for segment, flag in zip(segments, flags, strict=True):
        if flag:
            break
        rest_pieces.append((segment.text, segment.gap))
        if "\n" in segment.gap:
            break
    return join(rest_pieces)


def group_runs(segments: Sequence[Segment], flags: Sequence[bool], skip: int = 0) -> list[Run]:
    """Group the segments from index `skip` on into runs of flagged and of kept segments, in order."""
    runs: list[Run] = []
    first = skip
    for flagged, group in groupby(flags[skip:]):
        stop = first + len(list(group))
        runs.append(Run(flagged, first, tuple(segments[first:stop])))
        first = stop
    return runs


def cut_kept_beginning(text: str) -> str:
    """Return the beginning by which a kept segment is recognised in text that the model writes, or the whole segment.

    "The harbour opens at six every morning." -> "The harbour opens at"
    """
    text = undisguise(text.strip()).text
    if len(text) <= KEY_CHARS:
        return text
    return text[:KEY_CHARS] + re.split(r"\s", text[KEY_CHARS:], maxsplit=1)[0]


def list_kept_beginnings(kept_after: Sequence[Segment]) -> tuple[str, ...]:
    """Return the beginnings of the kept segments after a run; of later segments than the next, only the long ones.

    A later "Yes." could also stand anywhere in the replacement.
    """
    beginnings = [cut_kept_beginning(segment.text) for segment in kept_after]
    return (*beginnings[:1], *(beginning for beginning in beginnings[1:] if len(beginning) >= KEY_CHARS))


def cut_before_resumption(generated: str, kept_beginnings: Sequence[str]) -> str | None:
    """Return `generated` up to its first segment that begins like a kept one; None if no segment does.

    Item numbers are ignored, because a model that leaves an item out renumbers the next ones: "2. Take a coat." repeats
    the kept "3. Take a coat.". List marks of generated segments are ignored, too, because a model that leaves out the
    first sentence of an item gives its mark to the next sentence.
    """
    if not kept_beginnings:
        return None
    unnumbered_beginnings = tuple(map(_hide_number, kept_beginnings))
    for segment in split(generated):
        text = segment.text.lstrip()
        if _hide_number(text).startswith(unnumbered_beginnings) or _strip_mark(text).startswith(unnumbered_beginnings):
            return generated[: segment.start]
    return None


def _strip_mark(text: str) -> str:
    """Return the text without the mark of a list item at its beginning."""
    mark = marks.read(text)
    return text if mark is None else text[mark.stop :]


def _find_words(text: str) -> frozenset[str]:
    """Return the words of a segment in lower case, without the mark of its list item."""
    return frozenset(_WORD.findall(_strip_mark(text.strip()).casefold()))


def _is_like_any(words: frozenset[str], segments_words: Sequence[frozenset[str]]) -> bool:
    """Whether these `words` are nearly those of a segment, or one of both contains nearly all words of the other."""
    if len(words) < _MIN_WORDS:
        return False
    for other_words in segments_words:
        common_count = len(words & other_words)
        shorter_count = min(len(words), len(other_words))
        has_same_words = common_count >= _MIN_SHARE_OF_ALL * len(words | other_words)
        contains_shorter = shorter_count >= _MIN_WORDS_OF_SHORTER and (
            common_count >= _MIN_SHARE_OF_SHORTER * shorter_count
        )
        if has_same_words or contains_shorter:
            return True
    return False


def _hide_number(text: str) -> str:
    """Return the text with "#" in place of a list item's number: "3. Take a coat." -> "#. Take a coat."."""
    mark = marks.read(text)
    return text if mark is None or mark.is_bullet else f"{text[: mark.start]}#{text[mark.end :]}"


def find_replacement(
    generated: str, kept_beginnings: Sequence[str], banned_texts: Sequence[str], *, finished: bool
) -> str:
    """Return the part of `generated` that replaces a run, up to the first of `kept_beginnings`; may be empty.

    Segments among `banned_texts` are dropped: those that were flagged (the detector has rejected them, so they stay
    out), and kept ones that the model repeats. A sentence that equals the one before it is dropped, too, because small
    models get into loops. If a limit cut the text off (`finished` is False), its unfinished last sentence is dropped.
    """
    text_before_kept = cut_before_resumption(generated, kept_beginnings)
    if text_before_kept is not None:
        text = text_before_kept
    else:
        text = generated if finished else drop_unfinished_end(generated)
    # a repeated item may have another number
    banned = set(map(_hide_number, banned_texts))
    new_pieces: list[tuple[str, str]] = []
    for segment in split(text):
        new_text = segment.text.strip()
        repeats_last = bool(new_pieces) and new_pieces[-1][0] == new_text
        if not repeats_last and _hide_number(new_text) not in banned:
            new_pieces.append((new_text, segment.gap))
    return join(new_pieces)


def drop_unfinished_end(text: str) -> str:
    """Return `text` without a last segment that does not end like a sentence: "It rains. Take a" -> "It rains."."""
    segments = split(text)
    # a gap after the last segment shows that the model had finished it
    if segments and not segments[-1].gap and not _SENTENCE_END.search(segments[-1].text):
        segments.pop()
    return join([(segment.text, segment.gap) for segment in segments])


def clean_answer(text: str, answer: str, *, finished: bool) -> str:
    """Return `text`, the model's new version of the whole `answer`, without what the model should not have written.

    This is an unfinished last sentence, where `finished` is False because a limit cut the text off, and any further
    turn of the conversation. `answer` itself is returned if only outer white space differs.
    """
    if not finished:
        text = drop_unfinished_end(text)
    further_turn = _FURTHER_TURN.search(text)
    # in an answer that is a dialogue itself, further turns are wanted
    if further_turn and not _FURTHER_TURN.search(answer):
        text = text[: further_turn.start()]
    return answer if text.strip() == answer.strip() else text.strip()
