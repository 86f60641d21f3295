"""What `check` says of the references of a policy: which facts each yields, and on which line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from aligner_proxy.grounding.page import MOST_CHARS, ReferencePage, read_page
from aligner_proxy.grounding.procedures import ORDER
from aligner_proxy.types import Policy, Reference

HEAD = ("reference", "facts", "of these kinds")
FACTS_HEAD = ("line", "kind", "fact")
MOST_SHOWN = 200
"""Facts that are listed one by one."""


def rows(policy: Policy) -> list[tuple[str, str, str]]:
    """(reference, how many facts it yields, of which kinds) of each reference that a request like this one has."""
    return [_row(reference) for reference in policy.references]


def _row(reference: Reference) -> tuple[str, str, str]:
    if len(reference.text) > MOST_CHARS:
        return reference.label, "0", f"longer than {MOST_CHARS:,} characters: nothing of it is used"
    kinds = Counter(statement.fact.kind.value for statement in _page(reference).statements)
    if steps := len(_page(reference).procedures):
        kinds[ORDER] = steps
    listed = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
    return reference.label, str(kinds.total()), listed or "none that a form can tell: it changes no answer"


def facts(references: Sequence[Reference]) -> Iterator[tuple[str, str, str]]:
    """(name:line, kind, fact) of every fact of these references, as far as they are shown."""
    shown = 0
    for reference in references:
        for statement in _page(reference).statements:
            if shown == MOST_SHOWN:
                return
            shown += 1
            yield statement.place, statement.fact.kind.value, statement.fact.text
        for procedure in _page(reference).procedures:
            yield f"{procedure.source}:{procedure.steps[0].line}", ORDER, f"{len(procedure.steps)} steps"


def as_json(policy: Policy) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [
        {
            "reference": reference.label,
            "facts": [{"source": place, "kind": kind, "fact": fact} for place, kind, fact in facts([reference])],
        }
        for reference in policy.references
    ]


def _page(reference: Reference) -> ReferencePage:
    return read_page(reference.label, reference.text)
