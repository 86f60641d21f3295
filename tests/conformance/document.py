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

What a client gets, for every endpoint, upstream and feature: seen by `tests/conformance` on the real LiteLLM proxy
(litellm {version}) with scripted upstreams and a scripted engine that takes one insult out of an answer. Each cell is
asked twice, of LiteLLM with the guardrail and of the same LiteLLM without it. `make conformance` writes this file; the
ordinary tests fail when it is not what they see.

- **only the text differs**: the texts are the corrected ones and nothing else in the response, or in any event of the
  stream, is another (ids and times that LiteLLM makes up anew are left out of the comparison). The defect stands in no
  event of a stream.
- **byte for byte LiteLLM's**: what came is what LiteLLM alone sends (of a stream: without our closing comment, which
  stands directly before an event; with `mode: off` there is none). No event of any stream is without data.
- **stream**: one that is held, the default; **stream, released**: segment by segment (`stream: sentence`), tried on one
  upstream of each endpoint. What shows itself behind an edit that went out is told in docs/guides/streams.md.
- **became** is what `x-aligner-status` and `x-aligner-reason`, or the comment that ends a stream, tell the client; `-`:
  LiteLLM asks no guardrail for the headers of this error; `pending`: the headers were made before the stream failed.

{cells} cells, none failing: {counts}.
"""
CLIENTS = """
## Clients

Official clients are also tried in `hold`, `sentence`, `passthrough` and `off`, with heartbeats and refusals
(`tests/clients`): `openai` and `anthropic` for Python, `openai`, `@anthropic-ai/sdk` and Vercel's `ai` for Node, and
openai-go where there is Go. They read every answer to its end, with finish reason and usage, and repeat no refusal.
Two things are LiteLLM's own, with the guardrail and without:

- The last events of a streamed `/v1/completions` have no `text`. `ai` fails on them; the others do not.
- The event with the usage of a chat stream has a choice without a finish reason. The accumulator of openai-go has none
  then.

A stream of `/v1/responses` that is refused before its first event begins with `response.created` all the same: alone,
LiteLLM's `response.failed` makes what accumulates events in openai for Python and Node fail with an error of its own.

The table: each through the real gateway with nothing but a base URL and a key. `text` is what the client's own reader
made of the answer; `call` is the tool call that it parsed, beside which the text stays the upstream's.

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
    told = ", ".join(f"{count} {what}" for what, count in counts.most_common())
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
