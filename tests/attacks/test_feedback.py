"""A client that speaks of answers: of others', of invented ones, too much, and too often."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.store import AuditStore, Seal
from aligner_proxy.errors import AuditError
from aligner_proxy.gateway import auth, client_keys
from aligner_proxy_review import feedback
from aligner_proxy_review.evidence import compute_evidence
from aligner_proxy_review.feedback import Feedback
from aligner_proxy_review.review_queue import ReviewQueue
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from tests.attacks.attack import Attack, rows
from tests.audit.conftest import noted, record
from tests.gateway.endpoints.application import Api
from tests.gateway.endpoints.application import api as api
from tests.gateway.endpoints.plugin_endpoints import route_of
from tests.gateway.test_auth import refused, request, serve, write
from tests.plugins.review.conftest import reviews_in, serve_feedback

ID = "0" * 32
SECRET = "Zanzibar"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one answer of the team acme; ids that are not there are looked for again without a pause."""
    monkeypatch.setattr(feedback, "PAUSES_S", (0.0,))
    path = tmp_path / "audit.db"
    record(path, ID)
    return path


OTHERS = rows(
    (
        "feedback-other-tenant",
        "tenant",
        "speaks of another tenant's answer, whose id it has",
        "404, the very answer that an invented id gets; nothing is kept",
        ("free", {"id": ID}),
    ),
    (
        "feedback-forged-id",
        "tenant",
        "speaks of an id that it made up, or of the call id that it chose itself",
        "404; ids of answers are random",
        ("acme", {"id": "call-0"}),
    ),
    (
        "feedback-pattern-id",
        "tenant",
        "sends a pattern or a piece of SQL in place of an id",
        "404",
        ("acme", {"id": "%' OR '1'='1"}),
    ),
    ("feedback-empty-id", "tenant", "an empty id, which entries of earlier versions have", "400", ("acme", {"id": ""})),
    (
        "feedback-oversized",
        "tenant",
        "a text of a megabyte as what should stand there",
        "400 that does not quote it",
        ("acme", {"id": ID, "edit": SECRET * 125_000}),
    ),
    (
        "feedback-poses",
        "tenant",
        "says in the body who it is, or that a reviewer chose the answer",
        "400: tenant and person come from the key",
        ("free", {"id": ID, "tenant": "team:acme", "who": "reviewer:anna", "chosen": "random"}),
    ),
)


@pytest.mark.parametrize("attack", OTHERS)
async def test_no_word_on_what_is_not_ones_own(attack: Attack, api: Api, path: Path) -> None:
    serve_feedback(api, Feedback(lambda: AuditStore(path), 100))
    team, said = attack.payload
    got = await api.post("/v1/feedback", {"verdict": "right", **said}, team)
    assert str(got.status_code) == attack.holds[:3]
    if got.status_code == 404:
        invented = await api.post("/v1/feedback", {"id": "f" * 32, "verdict": "right"}, team)
        assert got.content == invented.content
    assert SECRET not in got.text
    assert reviews_in(path) == []


REVIEWERS = rows(
    (
        "feedback-other-reviewer",
        "reviewer",
        "speaks of another tenant's answer with its key, by the API",
        "404; no other endpoint takes its key",
        "globex",
    ),
)


@pytest.mark.parametrize("attack", REVIEWERS)
async def test_a_reviewers_key_reaches_its_own_tenant_alone(
    attack: Attack, api: Api, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key as our log-in knows it, and then the endpoint with the team that it has by that."""
    serve_feedback(api, Feedback(lambda: AuditStore(path), 100))
    monkeypatch.setenv("ALIGNER_PROXY_KEYS", str(tmp_path / "keys.yaml"))
    client_keys.policies_path.cache_clear()
    write(tmp_path / "keys.yaml", team=attack.payload, role="reviewer")
    route = await route_of(feedback.ENDPOINT)
    with monkeypatch.context() as patch:  # the endpoint asks LiteLLM's own module
        serve(patch)
        for other in ("/v1/chat/completions", "/v1/align", "/v1/models"):
            assert (await refused(request(other)))[0] == "403"
        team = (await auth.user_api_key_auth(request(feedback.PATH, route=route), "k1")).team_id
    assert team == attack.payload
    assert (await api.post("/v1/feedback", {"id": ID, "verdict": "harm"}, team)).status_code == 404
    assert reviews_in(path) == []


FLOODS = rows(
    (
        "feedback-flood",
        "tenant",
        "sends hundreds of verdicts on one answer",
        "beyond `audit.feedback_rpm` 429; those before are one review, and other tenants may go on",
        {"id": ID},
    ),
    (
        "feedback-flood-ids",
        "tenant",
        "sends hundreds of invented ids, each of which is looked for again",
        "beyond `audit.feedback_rpm` 429; nothing is kept",
        {"id": "f" * 32},
    ),
)


@pytest.mark.parametrize("attack", FLOODS)
async def test_a_flood_ends_at_the_limit(attack: Attack, api: Api, path: Path) -> None:
    opened = 0

    def store() -> AuditStore:
        nonlocal opened
        opened += 1
        return AuditStore(path)

    serve_feedback(api, Feedback(store, 50))
    body: dict[str, Any] = {"verdict": "right", **attack.payload}
    got = await asyncio.gather(*(api.post("/v1/feedback", body, "acme") for _ in range(200)))
    limited = [one for one in got if one.status_code == 429]
    assert len(limited) == 150
    assert opened <= 100
    assert len(reviews_in(path)) == (1 if attack.id == "feedback-flood" else 0)
    assert (await api.post("/v1/feedback", body, "free")).status_code == 404


SWAYED = rows(
    (
        "feedback-sways-figures",
        "tenant",
        "calls its own answers right, so that reviewers never see them and figures look well",
        "it takes no answer out of the queue and counts in no figure; where it contradicts reviewers it is listed",
    ),
)


@pytest.mark.parametrize("attack", SWAYED)
async def test_feedback_hides_nothing_from_reviewers(attack: Attack, api: Api, path: Path) -> None:
    serve_feedback(api, Feedback(lambda: AuditStore(path), 50))
    assert (await api.post("/v1/feedback", {"id": ID, "verdict": "right"}, "acme")).status_code == 202
    store = AuditStore(path)
    assert ReviewQueue(store, "reviewer:anna").count_waiting() == 1
    Reviews(store).save(Review(ID, 0, ReviewVerdict.HARM, "reviewer:anna", 1.0, ReviewOrigin.NEAREST), str)
    found = compute_evidence(list(store.entries()), list(Reviews(store).all()))
    store.close()
    assert found.disputed == ((ID, 0),)
    assert (found.right.count, found.wrong.count) == (0, 1)


CHANGED = rows(
    (
        "review-rewritten",
        "neighbour on the machine",
        "turns a verdict round in the file of the audit store",
        "with a key, the review does not open",
        "UPDATE reviews SET verdict = 'right'",
    ),
    (
        "review-moved",
        "neighbour on the machine",
        "gives somebody's verdict to another person",
        "with a key, the review does not open",
        "UPDATE reviews SET who = 'reviewer:ben'",
    ),
)


@pytest.mark.parametrize("attack", CHANGED)
def test_a_verdict_that_was_changed_does_not_open(attack: Attack, tmp_path: Path) -> None:
    store = AuditStore(tmp_path / "sealed.db", Seal(bytes(32)))
    store.add(make_entry(replace(noted(), aligner_id=ID)))
    Reviews(store).save(Review(ID, 0, ReviewVerdict.HARM, "reviewer:anna", 1.0, ReviewOrigin.NEAREST), str)
    store.fetch_rows(attack.payload)
    with pytest.raises(AuditError, match="changed, moved or cut off"):
        list(Reviews(store).all())
    store.close()
