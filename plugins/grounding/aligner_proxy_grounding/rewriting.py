"""Acceptance of an editor's sentence: it is used only if every change is a fact that a reference states.

An editor can therefore choose among the facts of the references but cannot add any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aligner_proxy_grounding.facts import Fact
from aligner_proxy_grounding.forms.reader import read_facts
from aligner_proxy_grounding.matching import Matcher
from aligner_proxy_grounding.sentences import FactEdit, UnsettledFact


def accept_rewriting(old: str, new: str, matcher: Matcher, start: int) -> list[FactEdit] | None:
    """Return the edits that turn the sentence `old` into `new`; empty if both have the same facts.

    None if more than facts differ, or a new fact is in no reference. `start` is the position of `old` in its answer.
    """
    before = read_facts(old, matcher.conventions)
    after = read_facts(new, matcher.conventions)
    # this also compares the numbers of facts
    if _words_around(old, before) != _words_around(new, after):
        return None
    edits: list[FactEdit] = []
    for one, other in zip(before, after, strict=True):
        if one.text == other.text:
            continue
        # a fact of another kind would change what the sentence says
        statement = matcher.find_statement(other) if one.same_form(other) else None
        if statement is None:
            return None
        edits.append(FactEdit(start + one.start, start + one.end, other.text, one.kind.value, statement.place))
    return edits


def words_edits(doubtful: Iterable[UnsettledFact], start: int) -> list[FactEdit]:
    """The edits of which the comparison of words is certain, in the sentence that begins at `start`.

    They are made if the editor has written the sentence unchanged.
    """
    return [part.words_edit for part in doubtful if part.start == start and part.words_edit is not None]


def merge_edits(edits: Sequence[FactEdit], further: Sequence[FactEdit]) -> list[FactEdit]:
    """Merge both lists in text order; an edit of the second that overlaps one of the first is dropped."""
    added = [one for one in further if not any(one.start < other.end and other.start < one.end for other in edits)]
    return sorted([*edits, *added], key=lambda edit: edit.start)


def _words_around(text: str, facts: Sequence[Fact]) -> list[list[str]]:
    """The words before, between and after the facts of a sentence: one list more than there are facts."""
    pieces: list[list[str]] = []
    at = 0
    for fact in facts:
        pieces.append(text[at : fact.start].split())
        at = fact.end
    return [*pieces, text[at:].split()]
