"""Objectives that a net chooses, through the real proxy: whole answers, each way of a stream, and a net that fails."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.shared import SHARED
from tests.support.comments import without_id

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED


@pytest.fixture(scope="module", autouse=True)
def warm(gateway: Any) -> None:
    """The first request of a busy machine may take longer than weights are waited for."""
    body = {"model": "hold-weighed", "messages": [{"role": "user", "content": "rude and first"}]}
    gateway.http.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize("said", ["rude", "rude and unweighed"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["hold", "sentence", "passthrough"])
def test_headers_tell_the_weights(gateway: Any, mode: str, stream: bool, said: str) -> None:
    body = {"model": f"{mode}-weighed", "messages": [{"role": "user", "content": said}], "stream": stream}
    got = gateway.http.post("/v1/chat/completions", json=body)
    assert got.status_code == 200
    assert got.headers["x-aligner-objectives"] == "humour"
    assert got.headers["x-aligner-weights"] == "humour=1.000"
    assert got.headers.get("x-aligner-weights-reason") == ("engine_error" if said != "rude" else None)
    if not stream:
        assert got.headers["x-aligner-status"] == "corrected"
        assert "idiot" not in got.text
    else:
        status = "shadow" if mode == "passthrough" else "corrected"
        assert f": aligner status={status}\n" in without_id(got.text)
