"""How does what was seen become docs/reference/conformance.md? No row is written by hand."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.features import CELLS, FAMILIES

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docs" / "reference" / "conformance.md"
INTRO = """# Conformance

This page shows what a client gets, for every endpoint, upstream and feature. `tests/conformance` sends requests
through the real LiteLLM proxy (litellm {version}) with scripted upstreams and a scripted engine that removes one
insult from an answer. Each cell is one request, sent twice: once to LiteLLM with the guardrail, and once to the same
LiteLLM without it. `make conformance` writes this page; the ordinary tests fail if it differs from what they see.

- **only the text differs**: the texts are the corrected ones, and the rest of the response, or of every event of the
  stream, is equal to LiteLLM's. The comparison leaves out ids and times that LiteLLM generates for each request. No
  event of a stream contains the insult.
- **byte for byte LiteLLM's**: the client gets the bytes that LiteLLM alone sends. In a stream our closing comment
  comes on top, directly before an event; with `mode: off` there is none. Every event of every stream has data.
- **stream** is a held stream, the default. **stream, released** is a stream that goes out segment by segment
  (`stream: sentence`), tried on one upstream of each endpoint. [Streams](../guides/streams.md) describes what happens
  if a reason to skip the answer shows only after an edit went out.
- **became** is what the client reads in `x-aligner-status` and `x-aligner-reason`, or in the comment that ends a
  stream. `-` means that LiteLLM asks no guardrail for the headers of this error. `pending` means that the headers
  were sent before the stream failed.

The page has {cells} cells, and none fails. By result these are: {counts}.
"""
CLIENTS = """
## Clients

The tests also run official clients with the modes `hold`, `sentence`, `passthrough` and `off`, with heartbeats and
refusals (`tests/clients`): `openai` and `anthropic` for Python, `openai`, `@anthropic-ai/sdk` and Vercel's `ai` for
Node, and openai-go where Go is installed. These clients read every answer to its end, with finish reason and usage, and
do not repeat a refused request. LiteLLM itself, also without the guardrail, causes two differences:

- The last events of a streamed `/v1/completions` have no `text`. `ai` fails on such events; the other clients do not.
- The event with the usage of a chat stream has a choice without a finish reason. So the accumulator of openai-go has no
  finish reason, either.

If a stream of `/v1/responses` is refused before its first event, it still begins with `response.created`. If
`response.failed` came alone, the accumulators of openai for Python and Node would fail with an error of their own.

Each row of the table is one client with only a base URL and a key, through the real gateway. `text` is what the client
itself read as the answer. `call` is the tool call that the client parsed; the text beside a call stays the upstream's.

"""


@dataclass
class Seen:
    """Rows of this run."""

    cells: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By cell: what became of it, and how the response differed."""
    clients: dict[tuple[str, str, str, str], str] = field(default_factory=dict)
    """By client, endpoint, whole or stream, and tools: what it read."""


def pinned() -> str:
    """The version of LiteLLM that this table speaks of."""
    found = re.search(r'"litellm\[proxy\]==([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found is not None
    return found.group(1)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


def cells_section(seen: Seen) -> str:
    """The heading and the first table."""
    ordered = [cell for cell in CELLS if str(cell) in seen.cells]
    counts = Counter(seen.cells[str(cell)][1] for cell in ordered)
    told = "; ".join(f"{count} *{what}*" for what, count in counts.most_common())
    head = ["endpoint", "response", "upstream", "feature", "became", "the client got"]
    rows = [
        [
            f"`{one.endpoint}`",
            one.kind,
            FAMILIES[one.upstream],
            one.feature.name,
            *seen.cells[str(one)],
        ]
        for one in ordered
    ]
    return INTRO.format(version=pinned(), cells=len(rows), counts=told) + "\n" + table(head, rows)


def clients_section(seen: Seen) -> str:
    """The second table."""
    head = ["client", "endpoint", "response", "tools", "what it read"]
    return CLIENTS + table(head, [[*key, what] for key, what in sorted(seen.clients.items())])
