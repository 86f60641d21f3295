"""Clients of OpenAI's and Anthropic's APIs as applications use them, and what each holds when an answer has ended.

- `python_clients.py`: openai and anthropic, in the process of the tests.
- `node/`: one program each for the npm packages `openai`, `@anthropic-ai/sdk` and `ai`. `package-lock.json` pins the
  newest that run on Node 18 and 20.
- `go/`: one program for openai-go, the newest that Go 1.22 compiles. It is tried where there is such a Go and its
  modules can be had.

`programs.py` installs and runs what is not Python, in `.build/clients`; `test_official_clients.py` asks all of them
through one gateway. Where the npm packages cannot be installed, their tests skip with the reason, or fail with it under
`CLIENTS=required`, which `.ci/run` sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One request that a client is to make."""

    way: str
    """The endpoint, and whether the answer is to be whole or a stream: `chat stream`."""
    model: str
    prompt: str


@dataclass(frozen=True)
class Reading:
    """What a client holds in the end."""

    text: str = ""
    finish: str | None = None
    """Why the answer ended, in the client's own words."""
    usage: Sequence[int] | None = None
    """Tokens of the prompt and of the answer."""
    events: int = 0
    """Of a stream; 1 of a whole answer."""
    error: str | None = None
    """The class of the error that the client raised."""
    status: int | None = None
    """The HTTP status that this error names."""
    message: str = ""
    """What the error says."""


ReadBatch = Callable[[Sequence[Case]], list[Reading]]
"""Asks all cases at once."""
