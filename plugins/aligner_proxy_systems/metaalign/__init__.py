"""MetaAlign plugin: preferences of the request, its persona and its system prompt (README.md)."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.plugins.api import Extension, hookimpl
from aligner_proxy_systems.metaalign.extension import Preferences


@hookimpl
def extensions() -> Sequence[Extension]:
    """Return the extension that fulfils preferences."""
    return [Preferences()]
