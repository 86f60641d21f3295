"""Tables for `aligner-proxy check`: which facts each reference yields, and on which line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from aligner_proxy.plugins.api import CheckTable
from aligner_proxy_grounding.page import MAX_CHARS, ReferencePage, read_page
from aligner_proxy_grounding.procedures import ORDER
from aligner_proxy_grounding.references import Reference

MAX_SHOWN = 200
"""At most this many facts are listed one by one."""


def reference_tables(references: Sequence[Reference]) -> list[CheckTable]:
    """Two tables: number and kinds of facts of each reference, and the list of facts; empty without references."""
    if not references:
        return []
    return [
        CheckTable(("reference", "facts", "of these kinds"), [_count_facts(reference) for reference in references]),
        CheckTable(("line", "kind", "fact"), list(_fact_rows(references))),
    ]


def _count_facts(reference: Reference) -> tuple[str, str, str]:
    """Return a reference's row of the first table: (name, number of facts, number of facts of each kind)."""
    if len(reference.text) > MAX_CHARS:
        return reference.label, "0", f"longer than {MAX_CHARS:,} characters: nothing of it is used"
    page = _page_of(reference)
    kind_counts = Counter(statement.fact.kind.value for statement in page.statements)
    # a procedure counts as one fact, the order of its steps
    if page.procedures:
        kind_counts[ORDER] = len(page.procedures)
    kinds_text = ", ".join(f"{count} x {kind}" for kind, count in kind_counts.most_common())
    return reference.label, str(kind_counts.total()), kinds_text or "no recognisable facts, so it changes no answer"


def _fact_rows(references: Sequence[Reference]) -> Iterator[tuple[str, str, str]]:
    """Yield rows (name:line, kind, text) of each fact and each procedure; stop after `MAX_SHOWN` facts."""
    fact_count = 0
    for reference in references:
        page = _page_of(reference)
        for statement in page.statements:
            if fact_count == MAX_SHOWN:
                return
            fact_count += 1
            yield statement.place, statement.fact.kind.value, statement.fact.text
        for procedure in page.procedures:
            yield f"{procedure.source}:{procedure.steps[0].line}", ORDER, f"{len(procedure.steps)} steps"


def as_json(references: Sequence[Reference]) -> list[dict[str, Any]]:
    """The references with their facts, for JSON output; at most `MAX_SHOWN` facts of each."""
    return [
        {
            "reference": reference.label,
            "facts": [{"source": place, "kind": kind, "fact": fact} for place, kind, fact in _fact_rows([reference])],
        }
        for reference in references
    ]


def _page_of(reference: Reference) -> ReferencePage:
    return read_page(reference.label, reference.text)
