"""One file per wire format: from LiteLLM's objects to exchanges and back, touching nothing but the text.

`wire(route)` says which format a proxy route speaks; None means that we leave it alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aligner_proxy.rewrite import chat, text
from aligner_proxy.types import Exchange, Outcome

_CHAT = re.compile(r"(?:/v1|/openai/deployments/.+|/engines/.+)?/chat/completions/?")
_TEXT = re.compile(r"(?:/v1|/openai/deployments/.+|/engines/.+)?/completions/?")


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

    def spoken(self, item: object) -> list[tuple[int, str]]:
        """(choice, text) of what one item of a stream adds to the answers."""
        ...

    def stream_apply(self, items: Sequence[object], outcomes: Sequence[Outcome]) -> list[object]:
        """The same items in the same order, the corrected texts spread over the chunks that carried the originals."""
        ...


def wire(route: str | None) -> Wire | None:
    """The wire format behind a request route of the proxy."""
    if route is None:
        return None
    if _CHAT.fullmatch(route):
        return chat
    return text if _TEXT.fullmatch(route) else None
