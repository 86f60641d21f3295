"""`python -m bench.worst_texts [--sizes 10000 100000] [--kinds tags marks] [--out FILE.md]`: texts designed to be slow.

Each kind of text is corrected whole and as a stream, by the real pipeline with a scripted engine that finds an insult
at the start and the end. It measures CPU seconds at each size, the slope of their logarithms (1.0 is linear), and the
longest time for which the event loop was blocked. The limits are a slope of 1.1, one second for 100,000 characters, and
a stall of 0.2 s. The last line is JSON; with `--out` the table is also written.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text import disguises
from aligner_proxy.types import Correction, Exchange, Objective, Policy, SegmentScore, StreamMode, Turn
from tests.support.scripted import ScriptedSession, SegmentEngine, played

SIZES = (10_000, 100_000, 1_000_000)
SLOPE = 1.1
AT = 100_000
LONGEST_S = 1.0
STALL_S = 0.2
"""The limits: the slope, and at `AT` characters the CPU seconds and the longest stall."""
FOOL = "You fool."
_ENOUGH_S = 30.0
"""A kind that took this long at one size is not measured at a larger one."""
_PIECE = 40
"""Characters in one piece of a stream."""
_BEAT_S = 0.005
_ASKED = Exchange("worst", 0, (Turn("user", "When does the tide come in?"),), None)
_POLICY = Policy(
    "bench",
    (Objective("kind", "Kindness: the response should never insult the reader"),),
    stream=StreamMode.SENTENCE,
    max_answer_chars=10_000_000,
    deadline_s=600,
)


@dataclass(frozen=True, slots=True)
class TextKind:
    """A kind of text: `unit` repeated after `head`."""

    name: str
    what: str
    unit: str
    head: str = ""

    def text(self, size: int) -> str:
        """A text of about this many characters."""
        count = max(1, (size - len(self.head)) // len(self.unit))
        return self.head + self.unit * count


KINDS = (
    TextKind(
        "prose", "ordinary sentences", "The tide comes in twice a day, and the boats rise with it. Bring Anna a coat. "
    ),
    TextKind("joiners", "zero-width joiners", "\u200d"),
    TextKind("joiners-in-words", "words with a joiner behind each letter", "f\u200do\u200do\u200dl "),
    TextKind("joined-emoji", "emoji joined without end", "\U0001f468\u200d"),
    TextKind("emoji", "emoji", "\U0001f600"),
    TextKind("emoji-skins", "emoji of all skins, and signs as emoji", "\U0001f44d\U0001f3ff#\ufe0f\u20e3"),
    TextKind("tags", "tag characters", "\U000e0061"),
    TextKind("tags-in-words", "tag characters inside words", "f\U000e0061oo\U000e006cl "),
    TextKind("flags", "flags of regions that never end", "\U0001f3f4\U000e0067"),
    TextKind("regional", "letters of flags", "\U0001f1e6 "),
    TextKind("marks", "letters with a mark each", "a\u0301"),
    TextKind("marks-heaped", "one letter under heaps of two marks by turns", "\u0301\u0316", "a"),
    TextKind("marks-three", "letters with three marks, one of which crosses them out", "a\u0301\u0316\u0334"),
    TextKind("marks-alone", "marks without a letter", "\u0301"),
    TextKind("marks-hebrew", "one Hebrew letter under points without end", "\u05b0", "\u05d0"),
    TextKind("marks-hebrew-joined", "Hebrew points with grapheme joiners", "\u05d0\u05b0\u034f"),
    TextKind("variations", "variation selectors", "1\ufe0f"),
    TextKind("bidi", "changes of direction", "\u202ea\u202c"),
    TextKind("bidi-hebrew", "changes of direction among Hebrew letters", "\u05d0\u202e"),
    TextKind("blanks", "letters that look like white space", "a\u3164"),
    TextKind("jamo", "fillers of Hangul", "\u115f\u1160"),
    TextKind("wide", "letters and signs of full width", "\uff41\uff01"),
    TextKind("mathematical", "mathematical letters", "\U0001d41a\U0001d41b "),
    TextKind("cyrillic", "words of Latin and Cyrillic letters", "\u0443\u043eu \u0430re "),
    TextKind("accents", "accents among English words", "\u00fc\u00f6 the and is of "),
    TextKind("apart", "letters one by one", "y.o.u."),
    TextKind("numbers-in-words", "digits in place of letters", "1d10t "),
    TextKind("entities", "letters as HTML entities", "&#102;"),
    TextKind("capitals", "capitals alone", "STUPID "),
    TextKind("emphasis", "marks of emphasis that never end", "a**b"),
    TextKind("ticks", "marks of code", "`a b c "),
    TextKind("quotations", "signs of a quotation", "> "),
    TextKind("quotations-tight", "signs of a quotation and line breaks", ">>\t>\n"),
    TextKind("items", "items of a list", "- a\n"),
    TextKind("announced", "lines that end in a colon", "a:\n"),
    TextKind("headings", "headings with nothing under them", "# a\n"),
    TextKind("cells", "rows of a table", "|a|b|\n"),
    TextKind("cells-in-a-line", "cells of one row", "|a"),
    TextKind("names", "names with hyphens", "Anna-Maria-"),
    TextKind("names-cited", "names as in citations", "Anna and "),
    TextKind("quotation-marks", "quotation marks", 'a "b" '),
    TextKind("brackets", "brackets and braces of JSON", '{"a":['),
    TextKind("links", "links that never end", "[a](b "),
    TextKind("html", "tags that never end", "a<b "),
    TextKind("commands", "commands of LaTeX", "\\text{a} "),
    TextKind("comments", "comments in code that never ends", "# a b c\n", "```\n"),
    TextKind("lines", "words in lines of their own", "a\r\n"),
    TextKind("openers", "opening brackets that never close", "(a "),
    TextKind("openers-alone", "opening brackets, and no words", "("),
    TextKind("openers-of-kinds", "opening brackets of all kinds", "([{\uff08\u300a\u300c "),
    TextKind("closers", "closing brackets that nothing opened", "a) "),
    TextKind("quotes-low", "quotation marks that never end", "\u201ea "),
    TextKind("emphasis-opened", "emphasis that is opened again and again", "**a _b ~~c "),
    TextKind("stars", "stars alone", "*"),
    TextKind("tags-nested", "tags inside tags", "<div><b>"),
    TextKind("tags-odd", "tags of ever other names", "<a-b c=d>x "),
    TextKind("html-comments", "comments of HTML that never end", "<!-- a "),
    TextKind("formulas", "formulas that never end", "$$a "),
    TextKind("think", "tags of reasoning that never come about", "<think "),
    TextKind("think-blocks", "reasoning without end, in blocks of its own", "<think></think>"),
    TextKind("think-closers", "closing tags of reasoning", "</thin", "<think>"),
    TextKind("search", "blocks that replace what they quote", "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n"),
    TextKind("search-begun", "such blocks that only begin", "<<<<<<< SEARC\n"),
    TextKind("actions", "actions of agents that never come about", "Action: a\n"),
    TextKind("invokes", "calls that only begin", "<invoke \n"),
    TextKind("braces", "calls as JSON that only begin", '{ "name" : "a",\n'),
    TextKind("yaml", "pairs of YAML", "a_b: c d\n"),
    TextKind("yaml-nested", "lists in lists of YAML", "- - - - a: b\n"),
    TextKind("yaml-line", "one line that may be YAML", "key: ", "- a: "),
    TextKind("rows", "rows of separated values", "a,b,1\n"),
    TextKind("rows-quoted", "quoted values that never end", '"a,b,"\n'),
    TextKind("row", "one row of separated values", "a,b,"),
    TextKind("blank-beginning", "white space before the answer", " \n"),
    TextKind("insults", "an insult in every other sentence", "You fool at the harbour. Bring Anna a warm coat now. "),
    TextKind(
        "insults-in-pairs", "insults that begin a pair", "**You fool, take (this coat. Bring Anna** a coat) now. "
    ),
    TextKind("insult-openers", "an insult among brackets that never close", "(", "You fool "),
    TextKind("insult-tags", "an insult among tags that never close", "<b>", "You fool "),
)


@dataclass(slots=True)
class TextRow:
    """Results of one kind: seconds by size, whole and streamed."""

    kind: str
    whole: dict[int, float] = field(default_factory=dict)
    streamed: dict[int, float] = field(default_factory=dict)
    stall: float = 0.0
    """The longest stall at `AT` characters."""

    @property
    def slopes(self) -> tuple[float, float]:
        """The slopes of both ways, whole and streamed."""
        return slope(self.whole), slope(self.streamed)


def slope(seconds: dict[int, float]) -> float:
    """Slope of log time over log size, between the two largest sizes; NaN with only one."""
    sizes = sorted(seconds)[-2:]
    if len(sizes) < 2:
        return math.nan
    (small, large) = sizes
    return math.log(seconds[large] / max(seconds[small], 1e-4)) / math.log(large / small)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m bench.worst_texts", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kinds", nargs="+", default=[kind.name for kind in KINDS])
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    options = parser.parse_args(arguments)
    rows = list[TextRow]()
    for kind in (kind for kind in KINDS if kind.name in options.kinds):
        rows.append(measure_kind(kind, options.sizes))
        print(format_row(rows[-1], options.sizes), flush=True)
    missed = {row.kind: reasons for row in rows if (reasons := list_misses(row))}
    if options.out:
        options.out.write_text(format_page(rows, options.sizes, missed), encoding="utf-8")
    print(json.dumps({"rows": [asdict(row) for row in rows], "missed": missed}))
    return int(bool(missed))


def measure_kind(kind: TextKind, sizes: Sequence[int]) -> TextRow:
    """Measure one kind at these sizes; skips larger ones after a size that took too long."""
    row = TextRow(kind.name)
    for way, seconds in ((_correct_whole, row.whole), (_correct_stream, row.streamed)):
        for size in sorted(sizes):
            disguises._undisguise_cached.cache_clear()
            seconds[size], stall = asyncio.run(_time_way(way, f"{FOOL} {kind.text(size)}\n{FOOL} Bye."))
            if size == AT:
                row.stall = max(row.stall, stall)
            if seconds[size] > _ENOUGH_S:
                break
    return row


async def _time_way(way: Callable[[str, _TimedEngine], Awaitable[object]], text: str) -> tuple[float, float]:
    """CPU seconds without the engine's, and the longest stall."""
    engine = _TimedEngine()
    gc.collect()  # what other kinds left behind is none of this one's
    async with _record_stalls() as stalls:
        began = time.process_time()
        await way(text, engine)
        took = time.process_time() - began - engine.spent_s
    return took, max(stalls, default=0.0)


@contextlib.asynccontextmanager
async def _record_stalls() -> AsyncIterator[list[float]]:
    """Yield a list that collects the loop thread's CPU time between two beats; a busy machine does not add to it."""
    stalls = list[float]()

    async def beat() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(_BEAT_S)
            stalls.append(time.thread_time() - began)

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0)
    try:
        yield stalls
    finally:
        beating.cancel()


class _TimedEngine(SegmentEngine):
    """Flags the insult, and records its own CPU time, since a real engine is another process."""

    def __init__(self) -> None:
        super().__init__(lambda text: 2.0 if "fool" in text else -2.0, lambda text: text.replace("fool", "friend"))
        self.spent_s = 0.0

    async def align(self, request: AlignRequest) -> Correction:
        """Correct in a thread, so that the event loop continues."""
        return await asyncio.to_thread(self._align, request)

    def _align(self, request: AlignRequest) -> Correction:
        began = time.thread_time()
        try:
            return played(self.script(request), self.about)
        finally:
            self.spent_s += time.thread_time() - began

    async def read(self, request: AlignRequest) -> _TimedSession:
        """Start reading an answer while it is written."""
        return _TimedSession(self, request)


class _TimedSession(ScriptedSession):
    """A session of this engine."""

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Read more of the answer."""
        began = time.thread_time()
        try:
            return await super().feed(text)
        finally:
            assert isinstance(self._scripts, _TimedEngine)
            self._scripts.spent_s += time.thread_time() - began

    def _verdicts(self) -> tuple[SegmentScore, ...]:
        began = time.thread_time()
        try:
            return super()._verdicts()
        finally:
            assert isinstance(self._scripts, _TimedEngine)
            self._scripts.spent_s += (time.thread_time() - began) * self._ended


async def _correct_whole(text: str, engine: _TimedEngine) -> object:
    return await Pipeline(engine).align(replace(_ASKED, answer=text), _POLICY)


async def _correct_stream(text: str, engine: _TimedEngine) -> object:
    """Correct the text as a stream that arrives in small pieces."""
    decided = asyncio.Event()
    growing = GrowingAnswer(Pipeline(engine), _POLICY, lambda: _ASKED, decided.set)
    for at in range(0, len(text), _PIECE):
        await growing.feed(text[at : at + _PIECE])
        await asyncio.sleep(0)
    await growing.end()
    while not growing.done:
        await decided.wait()
        decided.clear()
    outcome = growing.outcome()
    await growing.aclose()
    return outcome


def list_misses(row: TextRow) -> list[str]:
    """The limits that a kind exceeds."""
    reasons = [f"slope {value:.2f}" for value in row.slopes if value > SLOPE]
    reasons += [f"{seconds[AT]:.2f} s" for seconds in (row.whole, row.streamed) if seconds.get(AT, 0) > LONGEST_S]
    return reasons + ([f"stall {row.stall:.2f} s"] if row.stall > STALL_S else [])


def format_row(row: TextRow, sizes: Sequence[int]) -> str:
    """One row of the table."""
    cells = [row.kind]
    for seconds in (row.whole, row.streamed):
        cells += [f"{seconds[size]:.3f}" if size in seconds else "" for size in sorted(sizes)]
        cells.append(f"{slope(seconds):.2f}")
    return f"| {' | '.join((*cells, f'{row.stall:.2f}'))} |"


def format_page(rows: Sequence[TextRow], sizes: Sequence[int], missed: dict[str, list[str]]) -> str:
    """The table as a page."""
    ways = [f"{way} {size:,}" for way in ("whole", "streamed") for size in sorted(sizes)]
    at = len(sizes)
    head = ["kind", *ways[:at], "slope", *ways[at:], "slope", "stall"]
    lines = [
        "# Texts that are made to cost time\n",
        "Written by `python -m bench.worst_texts --out`: seconds of processor time outside the model, by characters,",
        f"the slope between the largest two sizes, and the longest stall of the loop, in seconds, at {AT:,}.\n",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(format_row(row, sizes) for row in rows),
        "",
        *(f"Missed: {kind}: {', '.join(reasons)}." for kind, reasons in missed.items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
