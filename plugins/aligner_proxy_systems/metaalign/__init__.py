"""MetaAlign: preferences of a request, persona and system prompt, as a plugin of the gateway (README.md)."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.plugins.api import Extension, hookimpl
from aligner_proxy_systems.metaalign.extension import Preferences


@hookimpl
def extensions() -> Sequence[Extension]:
    """The extension that meets preferences."""
    return [Preferences()]
