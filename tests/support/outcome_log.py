"""What the outcome log says of corrections that were withdrawn after they had been recorded."""

from __future__ import annotations

import json

import pytest


def withdrawals(caplog: pytest.LogCaptureFixture) -> list[tuple[list[int], str, str]]:
    """Choices, status and reason of each withdrawal in the captured log."""
    lines = [json.loads(record.message) for record in caplog.records if record.name == "aligner_proxy.outcome"]
    withdrawn = [line for line in lines if line["event"] == "aligner_withdrawn"]
    return [(line["choices"], line["status"], line["reason"]) for line in withdrawn]
