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
    old_facts = read_facts(old, matcher.conventions)
    new_facts = read_facts(new, matcher.conventions)
    # this also compares the numbers of facts
    if _words_around(old, old_facts) != _words_around(new, new_facts):
        return None
    edits: list[FactEdit] = []
    for old_fact, new_fact in zip(old_facts, new_facts, strict=True):
        if old_fact.text == new_fact.text:
            continue
        # a fact of another kind would change what the sentence says
        statement = matcher.find_statement(new_fact) if old_fact.same_form(new_fact) else None
        if statement is None:
            return None
        fact_start = start + old_fact.start
        fact_end = start + old_fact.end
        edits.append(FactEdit(fact_start, fact_end, new_fact.text, old_fact.kind.value, statement.place))
    return edits


def words_edits(doubtful: Iterable[UnsettledFact], start: int) -> list[FactEdit]:
    """The edits of which the comparison of words is certain, in the sentence that begins at `start`.

    An editor that returns this sentence unchanged does not overrule them, so they are made then.
    """
    return [doubt.words_edit for doubt in doubtful if doubt.start == start and doubt.words_edit is not None]


def merge_edits(edits: Sequence[FactEdit], further: Sequence[FactEdit]) -> list[FactEdit]:
    """Merge both lists in text order; an edit of the second that overlaps one of the first is dropped."""
    added = [edit for edit in further if not any(edit.start < other.end and other.start < edit.end for other in edits)]
    return sorted([*edits, *added], key=lambda edit: edit.start)


def _words_around(text: str, facts: Sequence[Fact]) -> list[list[str]]:
    """The words before, between and after the facts of a sentence: one list more than there are facts."""
    pieces: list[list[str]] = []
    at = 0
    for fact in facts:
        pieces.append(text[at : fact.start].split())
        at = fact.end
    return [*pieces, text[at:].split()]
