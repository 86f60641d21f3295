"""Why an answer was corrected, in words: from its entry in the gateway's own audit store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from aligner_proxy.audit.writer import has_store, open_for_reading
from aligner_proxy.plugins.api import Content, Entry
from aligner_proxy.policy.config import objectives
from aligner_proxy.policy.schema import PolicyFile

WAIT_S = 10.0
"""Entries are written behind the response, so they are waited for."""
_SKIPS = {"tool_calls": "the model calls a tool and says nothing to the customer, so there is no sentence to check"}
"""Why an answer was not examined, by the reason in the response's header."""


def find_entry(policies: PolicyFile, aligner_id: str) -> Entry | None:
    """The audit entry of an answer; None for an answer that was not examined."""
    until = time.monotonic() + WAIT_S
    while aligner_id and time.monotonic() < until:
        if has_store(policies):
            store = open_for_reading(policies)
            try:
                entries = list(store.select("aligner_id = ?", (aligner_id,)))
            finally:
                store.close()
            if entries:
                return entries[0]
        time.sleep(0.05)
    return None


def find_reasons(policies: PolicyFile, entry: Entry | None) -> list[str]:
    """What was found in an answer, one reason a line; none for an answer that was not examined."""
    if entry is None or entry.content is None:
        return []
    reasons = [*_broken_rules(policies, entry.content), *_page_lines(policies, entry.content)]
    return reasons or [
        f"no sentence breaks {', '.join(entry.objectives)}",
        "no fact in it differs from the shop's page",
    ]


def explain_skip(reason: str) -> list[str]:
    """Why an answer was not examined, as a list of one line; empty for a reason that the demo does not show."""
    return [_SKIPS[reason]] if reason in _SKIPS else []


def _broken_rules(policies: PolicyFile, content: Content) -> Iterator[str]:
    """The objectives that sentences of the answer violate, each once."""
    texts = {name: objective.text for name, objective in objectives(policies).items()}
    for name in dict.fromkeys(segment.objective or "" for segment in content.segments):
        yield f"breaks {name}: {texts[name].partition(': ')[2]}"


def _page_lines(policies: PolicyFile, content: Content) -> Iterator[str]:
    """The lines of the pages that gave a fact."""
    for replaced in content.reports.get("grounded", {}).get("replaced", ()):
        file, _, number = replaced["source"].rpartition(":")
        line = Path(policies.source.resolve(file)).read_text(encoding="utf-8").splitlines()[int(number) - 1]
        yield f"{file}, line {number}: {line.removeprefix('- ')}"
