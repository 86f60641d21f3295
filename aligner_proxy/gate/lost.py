"""Did something go that had to stay? Code, citations, numbers, addresses, quotations, names, items, lines of speakers.

- A segment that was not flagged keeps everything: nobody asked for a change there.
- A segment that was flagged and is gone takes its facts with it. The detector flagged it because an objective asked for
  a change (an insult, an advertisement with a price), and removing it is the change.
- A segment that was flagged and is *rewritten* keeps all but its names: new words may change the tone, not the facts.
  Names may go, since an objective can ask just that ("never mention competitors").

So a correction can never repair a wrong number: a small aligner is far likelier to spoil a right one.
"""

from __future__ import annotations

import re

from aligner_proxy.facts import addresses, citations, code, code_spans, names, numbers, quotations
from aligner_proxy.fate import Fate
from aligner_proxy.gate.candidate import Candidate
from aligner_proxy.gate.lists import kept_in_order, marks, standing
from aligner_proxy.gate.speakers import lines, turns

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)


def lost_code(candidate: Candidate) -> bool:
    """Blocks and spans of code stand in the text letter for letter, and nothing else becomes code."""
    parts = candidate.parts(Fate.STAYS, Fate.REWRITTEN)
    pieces = (piece for part in parts for piece in code(part.text) | code_spans(part.text))
    return any(piece not in candidate.after.text for piece in pieces) or _left_open(candidate)


def _left_open(candidate: Candidate) -> bool:
    """An odd number of fences: what follows the last one would be shown as code."""
    return candidate.after.of(_fences) % 2 == 1 and candidate.before.of(_fences) % 2 == 0


def _fences(text: str) -> int:
    return len(_FENCE.findall(text))


def lost_citation(candidate: Candidate) -> bool:
    """A note or work of what had to stay is cited nowhere any more."""
    return bool(candidate.lost(citations))


def lost_number(candidate: Candidate) -> bool:
    """A number of what had to stay stands nowhere any more."""
    return bool(candidate.lost(numbers))


def lost_address(candidate: Candidate) -> bool:
    """A web or mail address of what had to stay stands nowhere any more."""
    return bool(candidate.lost(addresses))


def lost_quote(candidate: Candidate) -> bool:
    """The words of a quotation stand nowhere any more, with or without the marks."""
    lost = candidate.lost(quotations)
    return bool(lost) and any(words not in candidate.after.of(one_line) for words in lost)


def lost_name(candidate: Candidate) -> bool:
    """A name of what had to stay as it was stands nowhere any more, not even without its capital."""
    owed = {name for part in candidate.parts(Fate.STAYS) for name in names(part.text)}
    return bool(owed and owed - candidate.after.of(words))


def lost_item(candidate: Candidate) -> bool:
    """An item of which something is left has no mark any more, or another number."""
    if not candidate.before.of(marks):
        return False
    gone = {part.index for part in candidate.parts(Fate.REMOVED)}
    return not kept_in_order(standing(candidate.pieces, gone), candidate.after.of(marks))


def lost_turn(candidate: Candidate) -> bool:
    """A speaker has fewer lines in a dialogue that somebody asked for, as far as form can tell.

    Flagged or not: a line of a dialogue looks to a detector like an invented turn, and without it the next one answers
    nothing. It may be rewritten.
    """
    spoken = candidate.before.of(turns)
    return bool(spoken) and bool(spoken - candidate.after.of(lines))


def one_line(text: str) -> str:
    """The text with every white space as one space."""
    return " ".join(text.split())


def words(text: str) -> set[str]:
    """All words, in lower case."""
    return set(re.findall(r"\w+", text.casefold()))
