"""One file per wire format: from LiteLLM's objects to exchanges and back, touching nothing but the text.

`wire(route)` says which format a proxy route speaks; None means that we leave it alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aligner_proxy.rewrite import chat, messages, responses, text
from aligner_proxy.rewrite.careful import Careful
from aligner_proxy.rewrite.choice import Speech
from aligner_proxy.rewrite.telling import Telling
from aligner_proxy.types import Exchange, Outcome

_CHAT = re.compile(r"(?:/v1|/openai/deployments/.+|/engines/.+)?/chat/completions/?")
_TEXT = re.compile(r"(?:/v1|/openai/deployments/.+|/engines/.+)?/completions/?")
_RESPONSES = re.compile(r"(?:/openai)?(?:/v1)?/responses/?")
_STORED = re.compile(r"(?:/openai)?(?:/v1)?/responses/\{response_id\}")
_MESSAGES = re.compile(r"/v1/messages/?")


class Wire(Protocol):
    """What a wire format module offers. `apply*` return the very same objects when no outcome is a correction."""

    def exchanges(self, data: Mapping[str, Any], response: Any) -> list[Exchange]:
        """One exchange per choice of a whole response; empty if it is no response of this format."""
        ...

    def apply(self, response: Any, outcomes: Sequence[Outcome]) -> Any:
        """The response with the corrected choices' texts put in."""
        ...

    def stream_exchanges(self, data: Mapping[str, Any], items: Sequence[object]) -> list[Exchange]:
        """The same from all items of a stream."""
        ...

    def opening(self, data: Mapping[str, Any], index: int) -> Exchange:
        """What is known of a choice before the upstream has said anything."""
        ...

    def speech(self) -> Speech:
        """A listener for one stream, told its items in order."""
        ...

    def telling(self, data: Mapping[str, Any]) -> Telling:
        """One stream taken apart as it comes, for whoever does not wait for its end."""
        ...

    def stream_apply(self, items: Sequence[object], outcomes: Sequence[Outcome]) -> list[object]:
        """The same events in the same order, the corrected texts spread over those that carried the originals."""
        ...


def wire(route: str | None) -> Wire | None:
    """The wire format behind a request route of the proxy."""
    return next((format_ for pattern, format_ in _WIRES if route and pattern.fullmatch(route)), None)


def stored(route: str | None) -> bool:
    """Whether the route fetches an answer that the upstream kept: which model gave it is known only with the answer."""
    return route is not None and _STORED.fullmatch(route) is not None


def choices(response: object) -> int:
    """How many answers a whole response holds, for whoever does not look at them; one where they are not listed."""
    listed = getattr(response, "choices", None)
    return len(listed) if isinstance(listed, list) and listed else 1


_WIRES: tuple[tuple[re.Pattern[str], Wire], ...] = (
    (_CHAT, Careful(chat)),
    (_TEXT, Careful(text)),
    (_RESPONSES, Careful(responses)),
    (_STORED, Careful(responses)),
    (_MESSAGES, Careful(messages)),
)
