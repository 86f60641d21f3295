"""`POST /v1/feedback` on the real proxy: right after an answer, by keys of the keys file, in the OpenAPI document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from aligner_proxy.audit.store import AuditStore
from aligner_proxy_review.reviews import Review, Reviews
from tests.e2e.clients import Gateway
from tests.e2e.recorded import FOLDER, RECORDED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


DEPLOYMENT = RECORDED


def say(client: Gateway, aligner_id: str | None, **said: Any) -> httpx.Response:
    return client.http.post("/v1/feedback", json={"id": aligner_id, "verdict": "right", **said})


def kept(folder: Path, aligner_id: str) -> list[Review]:
    store = AuditStore(folder / FOLDER / "audit.db")
    found = Reviews(store).reviews_of(aligner_id, 0)
    store.close()
    return found


@pytest.mark.parametrize("model", ["gpt", "sentences", "shown"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_word_right_after_the_answer_is_kept(
    tenants: dict[str, Gateway], folder: Path, model: str, stream: bool
) -> None:
    acme = tenants["acme"]
    answer = acme.chat_stream("rude", model=model) if stream else acme.chat("rude", model=model)
    aligner_id = answer.headers["x-aligner-id"]
    got = say(acme, aligner_id, verdict="harm", edit="It lies on the Seine.")
    assert (got.status_code, got.json()) == (202, {"id": aligner_id, "choice": 0, "verdict": "harm"})
    (review,) = kept(folder, aligner_id)
    assert (review.verdict.value, review.edit, review.chosen.value) == ("harm", "It lies on the Seine.", "feedback")


def test_another_tenants_answer_is_not_there(tenants: dict[str, Gateway], gateway: Gateway, folder: Path) -> None:
    aligner_id = tenants["acme"].chat("rude").headers["x-aligner-id"]
    assert say(tenants["acme"], aligner_id).status_code == 202
    others = [say(tenants["other"], aligner_id), say(gateway, aligner_id), say(tenants["other"], "f" * 32)]
    assert [got.status_code for got in others] == [404, 404, 404]
    assert len({got.text for got in others}) == 1
    assert len(kept(folder, aligner_id)) == 1


def test_errors_have_the_form_of_the_proxy(tenants: dict[str, Gateway]) -> None:
    aligner_id = tenants["acme"].chat("rude").headers["x-aligner-id"]
    got = say(tenants["acme"], aligner_id, verdict="fine")
    assert (got.status_code, got.json()["error"]["param"]) == (400, "verdict")
    got = say(tenants["acme"], aligner_id, segment=99)
    assert (got.status_code, got.json()["error"]["param"]) == (400, "segment")
    nobody = httpx.post(f"{tenants['acme'].address}/v1/feedback", json={}, trust_env=False, verify=False)
    assert nobody.status_code == 401


def test_it_stands_in_the_document(gateway: Gateway) -> None:
    operation = gateway.http.get("/openapi.json").json()["paths"]["/v1/feedback"]["post"]
    assert {"202", "404", "409"} <= set(operation["responses"])
