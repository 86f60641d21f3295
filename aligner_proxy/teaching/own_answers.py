"""The operator's own answers: those in the audit store that were delivered unchanged, with nothing flagged.

Heads are not trained on them, because some may violate the new objective and nobody has checked. They show the
operator, before a taught head is active, which answers it would flag.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from aligner_proxy.audit import writer
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy.resolver import tenant_matches
from aligner_proxy.policy.schema import PolicyFile, Tenant
from aligner_proxy.types import Status, Turn

_MAX_CHARS = 6_000
"""Most characters of an answer; longer answers are skipped."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One answer, its conversation, and what identifies it in the audit store: `call_id` and `choice`."""

    call_id: str
    choice: int
    """Index of the answer among the choices of its call."""
    turns: tuple[Turn, ...]
    answer: str


def own_answers(file: PolicyFile, tenant: Tenant | None, limit: int) -> list[RecordedAnswer]:
    """Return the newest unflagged answers, at most `limit`, of one tenant, or of all if `tenant` is None.

    The result is empty if the policies file configures no store.

    If the store cannot be read, raises `ConfigError`, `AuditError`, `sqlite3.Error` or `OSError`.
    """
    if not writer.has_store(file):
        return []
    with closing(writer.open_for_reading(file)) as store:
        entries = (entry for entry in store.entries() if belongs_to(entry, file, tenant))
        return list(islice(_select_unflagged(entries), limit))


def belongs_to(entry: Entry, file: PolicyFile, tenant: Tenant | None) -> bool:
    """Whether an entry has content and its request belongs to `tenant`; with None, to any tenant.

    A request belongs to the first tenant of the file that matches it.
    """
    if entry.content is None:
        return False
    facts = entry.content.facts
    matching_tenants = (other for other in file.tenants if tenant_matches(other, facts, file.trust.aliases))
    return tenant is None or next(matching_tenants, None) == tenant


def _select_unflagged(entries: Iterator[Entry]) -> Iterator[RecordedAnswer]:
    """Yield the answers that were delivered unchanged with nothing flagged, without long answers and repetitions."""
    earlier_answers = set[str]()
    for entry in entries:
        content = entry.content
        answer = content.exchange.answer if content else None
        # only flagged segments are recorded
        if content is None or not answer or entry.status != Status.UNCHANGED or content.segments:
            continue
        if answer not in earlier_answers and len(answer) <= _MAX_CHARS:
            earlier_answers.add(answer)
            yield RecordedAnswer(entry.call_id, entry.choice, content.exchange.turns, answer)
