"""Page of the headers: what a request may contain, and what a response contains."""

from __future__ import annotations

import inspect
import re

from aligner_proxy.gateway.request_policy import BYPASS_HEADER, OBJECTIVES_HEADER
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.plugins import registry
from scripts.reference.markdown import code, page, table
from scripts.reference.words import load_texts

INTRODUCTION = """
```sh
curl -si localhost:4000/v1/chat/completions -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
  -H "x-aligner-objectives: concise" \\
  -d '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}' | grep x-aligner
```
"""
RESPONSES = """
A stream gives its final status in a comment before its last event (`: aligner status=...`), which every client
ignores. A stream that breaks off inside an event ends without this comment, and so does every stream under `mode:
off`. A response may have several choices or text parts, each with its own status. The status of the response is then
the first of `corrected`, `failed`, `shadow`, `not_judged`, `unchanged` and `skipped` that occurs among them. The reason
is that of the first choice or part with this status. The comment lists the status of each of them (`choices=`), and so
does LiteLLM's record. When a call fails on `/v1/completions` or `/v1/messages`, LiteLLM does not ask guardrails for
headers, so the error response has no `x-aligner` headers. For example, a request with `response_format` to
`/v1/completions` of an OpenAI-compatible upstream fails in this way, with HTTP 500.
"""
REQUESTS = """
Instead of a header, the body can name objectives, and it can state preferences: `metadata: {"aligner": {"objectives":
["humour"], "preference": "no lists", "persona": "..."}}`. If a request asks for something that its tenant denies or
does not allow, it gets 403 before any model is called. Objectives that the operator enforces always apply, and keep
their position before requested objectives. A request may send its own reference text in a header that
[`references`](policy.md#settings) in the policy names.
"""
KEY = re.compile(r'"([a-z][a-z-]*)"(?::|\] = )')


def sent_headers() -> set[str]:
    """The headers that the code puts on responses, read from the keys in the methods that create them."""
    makers = [RequestState.headers]
    makers += [
        type(extension).headers
        for plugin in registry.load_plugins(False).plugins
        for extension in plugin.extensions
        if "headers" in vars(type(extension))
    ]
    return {f"x-aligner-{name}" for maker in makers for name in KEY.findall(inspect.getsource(maker))}


def read_headers() -> set[str]:
    """Our own headers that a request may have."""
    return {OBJECTIVES_HEADER, BYPASS_HEADER}


def headers_page() -> str:
    """The whole page."""
    return page(
        "Headers",
        INTRODUCTION,
        f"## Of a response\n\n{_table('response_headers')}\n{RESPONSES}",
        f"## Of a request\n\n{_table('request_headers')}\n{REQUESTS}",
    )


def _table(part: str) -> str:
    rows = [
        (code(name), entry["values"], entry["meaning"], code(f"{name}: {entry['example']}"))
        for name, entry in load_texts()[part].items()
    ]
    return table(("header", "values", "meaning", "example"), rows)
