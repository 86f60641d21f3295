"""The operator's own answers from the audit store: those that were delivered unchanged, with nothing flagged.

Heads are not trained on them, because some may violate the new objective and nobody has checked. They show the
operator, before a taught head is active, which answers it would flag.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from aligner_proxy.audit import writer
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy.resolver import tenant_matches
from aligner_proxy.policy.schema import PolicyFile, Tenant
from aligner_proxy.types import Status, Turn

_MAX_CHARS = 6_000
"""Maximum characters of an answer; longer ones are skipped."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One answer, its conversation, and its id in the audit store."""

    call_id: str
    choice: int
    """Index of the answer among the choices of its call."""
    turns: tuple[Turn, ...]
    answer: str


def own_answers(file: PolicyFile, tenant: Tenant | None, most: int) -> list[RecordedAnswer]:
    """The newest unflagged answers, at most `most`, of one tenant or of all (None); empty without a store.

    If the store cannot be read, raises `ConfigError`, `AuditError`, `sqlite3.Error` or `OSError`.
    """
    if not writer.has_store(file):
        return []
    store = writer.open_for_reading(file)
    try:
        entries = (entry for entry in store.entries() if belongs_to(entry, file, tenant))
        return list(islice(_unflagged_answers(entries), most))
    finally:
        store.close()


def belongs_to(entry: Entry, file: PolicyFile, tenant: Tenant | None) -> bool:
    """Whether `tenant` (None: any) is the first tenant of the file that matches the entry's request.

    False for an entry without content.
    """
    if entry.content is None:
        return False
    facts = entry.content.facts
    matching = (other for other in file.tenants if tenant_matches(other, facts, file.trust.aliases))
    return tenant is None or next(matching, None) == tenant


def _unflagged_answers(entries: Iterator[Entry]) -> Iterator[RecordedAnswer]:
    """Yield the answers that were delivered unchanged with nothing flagged; long ones and repetitions are skipped."""
    earlier = set[str]()
    for entry in entries:
        content = entry.content
        answer = content.exchange.answer if content else None
        if content is None or not answer or entry.status != Status.UNCHANGED or content.segments:
            continue
        if answer not in earlier and len(answer) <= _MAX_CHARS:
            earlier.add(answer)
            yield RecordedAnswer(entry.call_id, entry.choice, content.exchange.turns, answer)
