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
insult from an answer. Each row stands for a
request that is sent twice: once to LiteLLM with the guardrail, and once to the same LiteLLM without it. `make
conformance` writes this page. The ordinary tests fail if their results differ from this page.

- **only the text differs**: the texts are corrected, and the rest of the response, or of every event of the stream, is
  equal to LiteLLM's. The comparison leaves out ids and times that LiteLLM generates for each request. No event of a
  stream contains the insult.
- **byte for byte LiteLLM's**: the client gets the bytes that LiteLLM alone sends. A stream
  additionally has our closing comment, directly before an event; with `mode: off` it has no comment. Every event of
  every stream has data.
- **stream** is a stream that is held until it is corrected, which is the default. **stream, released** is a stream that
  goes out segment by segment (`stream: sentence`); we tested it with one upstream of each endpoint.
  [Streams](../guides/streams.md) describes what happens if a reason to skip the answer appears only after an edit went
  out.
- **became** is what the client reads in `x-aligner-status` and `x-aligner-reason`, or in the comment that ends a
  stream. `-` means that LiteLLM does not ask guardrails for the headers of this error. `pending` means that the headers
  were sent before the stream failed.

The table has {cells} cells, and none fails. Counted by their result, they are: {counts}.
"""
CLIENTS = """
## Clients

The tests also run official clients with the modes `hold`, `sentence`, `passthrough` and `off`, with heartbeats and
refusals (`tests/clients`): `openai` and `anthropic` for Python, `openai`, `@anthropic-ai/sdk` and Vercel's `ai` for
Node, and openai-go where Go is installed. These clients read every answer to its end, with finish reason and usage, and
do not repeat a refused request. LiteLLM itself, even without the guardrail, causes two exceptions:

- The last events of a streamed `/v1/completions` have no `text`. `ai` fails on such events; the other clients do not.
- The event with the usage of a chat stream has a choice without a finish reason. So the answer that
  openai-go accumulates has no finish reason, either.

If a stream of `/v1/responses` is refused before its first event, it still begins with `response.created`. If the client
got only `response.failed`, the code of openai for Python and Node that accumulates events would fail with another
error.

Each row of the next table stands for a client that is set up with only a base URL and a key, and asks through the real
gateway. `text` is what the client itself read as the answer. `call` is the tool call that the client parsed; the text
beside a call stays as the upstream wrote it.

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
