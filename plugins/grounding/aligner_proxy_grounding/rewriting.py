"""Acceptance of a sentence that an editor rewrote: it is used only if every change is a fact that a reference states.

An editor can therefore choose among the facts of the references but cannot add any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aligner_proxy_grounding.facts import Fact
from aligner_proxy_grounding.forms.reader import read_facts
from aligner_proxy_grounding.matching import Matcher
from aligner_proxy_grounding.sentences import FactEdit, UnsettledFact


def accept_rewriting(old: str, new: str, matcher: Matcher, start: int) -> list[FactEdit] | None:
    """Return the edits that turn the answer's sentence `old` into the editor's sentence `new`; empty if they are alike.

    None, which means that the editor's sentence must not be used, if more than facts differ or a new fact is in no
    reference. `start` is the position of `old` in its answer; the edits have positions in the answer.
    """
    old_facts = read_facts(old, matcher.conventions)
    new_facts = read_facts(new, matcher.conventions)
    # if the words are equal, there are equally many facts, too
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


def words_edits(unsettled_facts: Iterable[UnsettledFact], start: int) -> list[FactEdit]:
    """The edits of which the comparison of words is certain, in the sentence that begins at `start`.

    These edits are made even if an editor returned the sentence unchanged, because the editor does not overrule them.
    """
    return [fact.words_edit for fact in unsettled_facts if fact.start == start and fact.words_edit is not None]


def merge_edits(edits: Sequence[FactEdit], further_edits: Sequence[FactEdit]) -> list[FactEdit]:
    """Merge two lists of edits in text order, without edits of `further_edits` that overlap one of `edits`."""
    added_edits = [
        further_edit
        for further_edit in further_edits
        if not any(further_edit.start < edit.end and edit.start < further_edit.end for edit in edits)
    ]
    return sorted([*edits, *added_edits], key=lambda edit: edit.start)


def _words_around(text: str, facts: Sequence[Fact]) -> list[list[str]]:
    """The words before, between and after the facts of a sentence: one list more than there are facts."""
    word_lists: list[list[str]] = []
    last_end = 0
    for fact in facts:
        word_lists.append(text[last_end : fact.start].split())
        last_end = fact.end
    return [*word_lists, text[last_end:].split()]
