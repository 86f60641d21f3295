"""Mistakes of clients: each gets the message and the status of docs/reference/errors.md from the real proxy."""

from __future__ import annotations

import httpx

from tests.e2e.clients import Gateway
from tests.e2e.deployment import Deployment
from tests.support.error_page import read_errors

DEPLOYMENT = Deployment().model("gpt")


def test_each_mistake_of_a_client_gets_the_message_and_status_of_the_page(gateway: Gateway) -> None:
    address = f"{gateway.http.base_url}/v1/chat/completions"
    key = gateway.http.headers["authorization"]
    requests = {
        "no key": ({}, "gpt"),
        "a wrong key": ({"authorization": "Bearer sk-of-somebody-else"}, "gpt"),
        "an unknown model": ({"authorization": key}, "no-such-model"),
    }
    page = read_errors("Clients of the gateway")
    assert set(page) == set(requests)
    wrong = []
    for mistake, (headers, model) in requests.items():
        for is_stream in (False, True):
            body = {"model": model, "messages": [{"role": "user", "content": "good"}], "stream": is_stream}
            got = httpx.post(address, json=body, headers=headers, timeout=30, verify=False)
            if got.status_code != page[mistake].status or not page[mistake].fits(got.json()["error"]["message"]):
                wrong.append(f"{mistake}, stream {is_stream}: {got.status_code} {got.text}")
    assert wrong == [], "\n".join(wrong)
