"""Choices as the pipeline leaves them, and a store to keep them in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.audit.entry import AuditEvent, make_entry
from aligner_proxy.audit.location import StoreLocation
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import (
    Correction,
    DecodeCounts,
    Exchange,
    Objective,
    Outcome,
    Policy,
    SegmentScore,
    Status,
    Turn,
)
from tests.support.postgres_server import PostgresProcess, needs_postgres, postgres_process

RUDE = "It is so. You fool."
KIND = "It is so."
POLICY = Policy("all+acme", (Objective("kind", "Kindness: be kind"),), tenant="team:acme")
FACTS = RequestFacts("gpt", ("support",), "acme", "acme", "a" * 64, asked=("kind",), team_settings={"caution": 1.0})


def noted(
    number: int = 0, *, at: float = 1000.0, no_store: bool = False, status: Status = Status.CORRECTED
) -> AuditEvent:
    """One corrected choice, in which everything has a value."""
    exchange = Exchange(f"call-{number}", 0, (Turn("user", "Is it so?"),), RUDE, no_store=no_store)
    scores = (SegmentScore("It is so.", -2.0, False), SegmentScore("You fool.", 3.5, True, 0))
    found = Correction(KIND, scores, DecodeCounts(forwards=4), ms=12.5, aligner="abc")
    outcome = Outcome(status, None, KIND, POLICY, 0, False, found, 15.0, edited=KIND)
    return AuditEvent(at, "/v1/chat/completions", FACTS, exchange, outcome)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "audit" / "audit.db"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    """A PostgreSQL for all tests of a process."""
    with postgres_process() as made:
        yield made


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def place(request: pytest.FixtureRequest, path: Path) -> StoreLocation:
    """Where a store may be made, of each kind."""
    if request.param == "sqlite":
        return path
    server: PostgresProcess = request.getfixturevalue("postgres")
    server.run("DROP SCHEMA IF EXISTS aligner_audit CASCADE")
    return server.database


def counted(result: str) -> float:
    """Entries that came to this so far, as the operator sees it."""
    return REGISTRY.get_sample_value("aligner_audit_entries_total", {"result": result}) or 0.0


def record(path: Path, aligner_id: str) -> None:
    """Put an answer of the team acme with this id into a store."""
    store = AuditStore(path)
    store.add(make_entry(replace(noted(), aligner_id=aligner_id)))
    store.close()
