"""Is this request one of those that its policy looks at? Drawn once a request, and by nothing that a client says.

A hash of LiteLLM's call id would not do: a client may send that id itself, and whoever has found one that is left alone
could use it again for every request.
"""

from __future__ import annotations

import secrets

_LOTS = 2**53


def drawn(share: float) -> bool:
    """Whether one more request is within `share`; every call is a new draw."""
    return secrets.randbelow(_LOTS) < share * _LOTS
