"""Answers held to the operator's own facts, as a plugin: what a reference says, and where an answer says otherwise.

`sentences.py` (read it first) replaces a fact of an answer by that of the reference; `facts.py` reads facts by their
form, `page.py` takes a reference apart, `matching.py` finds what speaks of the same. `extension.py` is what the gateway
asks, `stage.py` what an answer goes through.
"""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.plugins.api import Extension, hookimpl
from aligner_proxy_grounding.extension import Grounding


@hookimpl
def extensions() -> Sequence[Extension]:
    """The extension that holds answers to references."""
    return [Grounding()]
