"""The operator's own answers: which entries of the audit store count, and of whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.audit.entry import AuditEvent, make_entry
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching.own_answers import own_answers
from aligner_proxy.types import Correction, Exchange, Outcome, Policy, SegmentScore, Status, Turn

FILE = """
audit: {enabled: true, file: audit.db}
tenants:
  - {name: acme, match: {team: acme}}
  - {name: zeta, match: {team: zeta}}
"""


def event(
    number: int, answer: str, team: str, *, status: Status = Status.UNCHANGED, flagged: bool = False
) -> AuditEvent:
    exchange = Exchange(f"call-{number}", 0, (Turn("user", "Is it so?"),), answer)
    scores = (SegmentScore(answer, 1.0 if flagged else -2.0, flagged, 0),)
    outcome = Outcome(status, None, answer, Policy("p"), correction=Correction(answer, scores), edited=answer)
    return AuditEvent(1000.0 + number, "/v1/chat/completions", RequestFacts("gpt", team_id=team), exchange, outcome)


@pytest.fixture
def file(tmp_path: Path) -> PolicyFile:
    (tmp_path / "policies.yaml").write_text(FILE)
    return config.load(tmp_path / "policies.yaml")


def record(file: PolicyFile, *events: AuditEvent) -> None:
    store = AuditStore(config.audit_file(file))
    for one in events:
        store.add(make_entry(one))
    store.close()


def ids(file: PolicyFile, tenant: int | None = None, most: int = 10) -> list[str]:
    return [one.call_id for one in own_answers(file, None if tenant is None else file.tenants[tenant], most)]


def test_unchanged_answers_with_nothing_flagged_the_newest_first_each_once(file: PolicyFile) -> None:
    record(
        file,
        event(1, "It is so.", "acme"),
        event(2, "It is not.", "acme", status=Status.CORRECTED),
        event(3, "It may be.", "acme", flagged=True),
        event(4, "It was so.", "acme"),
        event(5, "It was so.", "acme"),
        event(6, "It will be.", "zeta", status=Status.FAILED),
        event(7, "Who knows.", "zeta"),
    )
    assert ids(file) == ["call-7", "call-5", "call-1"]
    assert ids(file, most=2) == ["call-7", "call-5"]
    [newest, *_] = own_answers(file, None, 1)
    assert (newest.answer, newest.turns) == ("Who knows.", (Turn("user", "Is it so?"),))


def test_of_a_tenant_only_its_own(file: PolicyFile) -> None:
    record(file, event(1, "It is so.", "acme"), event(2, "It may be.", "zeta"), event(3, "It was.", "other"))
    assert ids(file, tenant=0) == ["call-1"]
    assert ids(file, tenant=1) == ["call-2"]


def test_entries_without_texts_do_not_count(file: PolicyFile) -> None:
    one = event(1, "It is so.", "acme")
    record(file, replace(one, exchange=replace(one.exchange, no_store=True)))
    assert ids(file) == []


def test_without_a_store_there_are_none(file: PolicyFile, tmp_path: Path) -> None:
    assert ids(file) == []
    (tmp_path / "off.yaml").write_text("{}")
    assert own_answers(config.load(tmp_path / "off.yaml"), None, 5) == []
