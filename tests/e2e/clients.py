"""Clients of a proxy: whole answers and streams of each endpoint."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.comments import drop_comments, id_in, without_id

MASTER_KEY = "sk-e2e-7f3Qm2Vx9LtB4wZkR8sYpD6n"
KEYS = {
    "acme": "key-acme-1",
    "other": "key-other-1",
    "vip": "key-vip-1",
    "metered": "key-metered-1",
    "strict": "key-strict-1",
}
"""The keys of the keys file by their alias."""


@dataclass
class Streamed:
    """A stream as a client sees it."""

    status_code: int
    headers: httpx.Headers
    raw: str

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The data frames, without [DONE]."""
        lines = [line.removeprefix("data: ") for line in self.raw.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    @property
    def comments(self) -> list[str]:
        """Our SSE comments, without the id of the answer."""
        return [without_id(line) for line in self.raw.splitlines() if line.startswith(": aligner")]

    @property
    def aligner_id(self) -> str | None:
        """The id of the answer in our last comment; None where it has none."""
        return next(filter(None, map(id_in, self.raw.splitlines())), None)

    def text(self, index: int = 0) -> str:
        """The text of one choice of chat and text completions."""
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", ()) if choice["index"] == index]
        return "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in choices)

    def parts(self, kind: str, place: str, delta: str) -> list[str]:
        """The texts of all parts of a typed stream, joined from their deltas."""
        parts: dict[Any, list[str]] = {}
        for event in self.chunks:
            if event["type"] == kind:
                text = event["delta"] if delta == "delta" else event["delta"].get(delta)
                if text is not None:
                    parts.setdefault((event[place], event.get("content_index")), []).append(text)
        return ["".join(pieces) for _, pieces in sorted(parts.items())]

    def untouched(self) -> str:
        """The stream without our comment and without what LiteLLM makes up anew for each response."""
        return made_up(drop_comments(self.raw))


def made_up(raw: str) -> str:
    """Without the times and ids that LiteLLM stamps on what it translates."""
    raw = re.sub(r'"(created|created_at)":\s?\d+', r'"\1":0', raw)
    return re.sub(r'"(resp|msg|rs|chatcmpl|cmpl)[-_][^"]{30,}"', r'"\1"', raw)


class Gateway:
    """A proxy as its clients use it, with one key; `log` is the file that it writes to, where a test reads that."""

    def __init__(self, address: str, key: str = MASTER_KEY, log: Path | None = None) -> None:
        self.address = address
        self.log = log
        headers = {"authorization": f"Bearer {key}"}
        # `verify` is off here and in all tests: httpx reads the certificates of all authorities for each client.
        self.http = httpx.Client(base_url=address, headers=headers, timeout=60, trust_env=False, verify=False)

    def close(self) -> None:
        """Close its connections."""
        self.http.close()

    def chat(
        self, script: str, model: str = "gpt", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """A whole chat completion."""
        messages = [{"role": "user", "content": script}]
        # As ASCII, because a client may send what UTF-8 cannot hold.
        body = {"model": model, "messages": messages, **body}
        headers = {"content-type": "application/json", **(headers or {})}
        return self.http.post("/v1/chat/completions", content=json.dumps(body), headers=headers)

    def chat_stream(self, script: str, **more: Any) -> Streamed:
        """A streamed chat completion."""
        got = self.chat(script, stream=True, **more)
        return Streamed(got.status_code, got.headers, got.text)

    def respond(
        self, script: Any, model: str = "gpt", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """A whole answer of the Responses API."""
        return self.http.post("/v1/responses", json={"model": model, "input": script, **body}, headers=headers)

    def respond_stream(self, script: Any, **more: Any) -> Streamed:
        """A streamed answer of the Responses API."""
        got = self.respond(script, stream=True, **more)
        return Streamed(got.status_code, got.headers, got.text)

    def message(
        self, script: str, model: str = "claude", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """A whole answer of the Messages API."""
        messages = [{"role": "user", "content": script}]
        body = {"model": model, "max_tokens": 99, "messages": messages, **body}
        return self.http.post("/v1/messages", json=body, headers=headers)

    def message_stream(self, script: str, **more: Any) -> Streamed:
        """A streamed answer of the Messages API."""
        got = self.message(script, stream=True, **more)
        return Streamed(got.status_code, got.headers, got.text)

    def complete(self, prompt: Any, **body: Any) -> httpx.Response:
        """A whole text completion."""
        return self.http.post("/v1/completions", json={"model": "instruct", "prompt": prompt, **body})

    def complete_stream(self, prompt: Any, **body: Any) -> Streamed:
        """A streamed text completion."""
        got = self.complete(prompt, stream=True, **body)
        return Streamed(got.status_code, got.headers, got.text)
