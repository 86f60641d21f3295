"""Tables of references for `check`: which facts each reference yields, and on which line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from aligner_proxy.plugins.api import CheckTable
from aligner_proxy_grounding.page import MAX_CHARS, ReferencePage, read_page
from aligner_proxy_grounding.procedures import ORDER
from aligner_proxy_grounding.references import Reference

MAX_SHOWN = 200
"""Limit on the facts listed one by one."""


def reference_tables(references: Sequence[Reference]) -> list[CheckTable]:
    """Two tables: number and kinds of facts of each reference, and the list of facts; none without references."""
    if not references:
        return []
    return [
        CheckTable(("reference", "facts", "of these kinds"), [_make_row(reference) for reference in references]),
        CheckTable(("line", "kind", "fact"), list(fact_rows(references))),
    ]


def _make_row(reference: Reference) -> tuple[str, str, str]:
    """Name, number of facts, and number of each kind, as the first table shows them."""
    if len(reference.text) > MAX_CHARS:
        return reference.label, "0", f"longer than {MAX_CHARS:,} characters: nothing of it is used"
    kinds = Counter(statement.fact.kind.value for statement in _page(reference).statements)
    # a procedure counts as one fact, the order of its steps
    if steps := len(_page(reference).procedures):
        kinds[ORDER] = steps
    kinds_text = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
    return reference.label, str(kinds.total()), kinds_text or "no recognisable facts, so it changes no answer"


def fact_rows(references: Sequence[Reference]) -> Iterator[tuple[str, str, str]]:
    """Yield (name:line, kind, fact) of each fact and each procedure; ends after `MAX_SHOWN` facts."""
    count = 0
    for reference in references:
        for statement in _page(reference).statements:
            if count == MAX_SHOWN:
                return
            count += 1
            yield statement.place, statement.fact.kind.value, statement.fact.text
        for procedure in _page(reference).procedures:
            yield f"{procedure.source}:{procedure.steps[0].line}", ORDER, f"{len(procedure.steps)} steps"


def as_json(references: Sequence[Reference]) -> list[dict[str, Any]]:
    """The references with their facts, for JSON output; at most `MAX_SHOWN` facts of each."""
    return [
        {
            "reference": reference.label,
            "facts": [{"source": place, "kind": kind, "fact": fact} for place, kind, fact in fact_rows([reference])],
        }
        for reference in references
    ]


def _page(reference: Reference) -> ReferencePage:
    return read_page(reference.label, reference.text)
