"""Plugin that checks answers against the operator's own references and replaces facts that differ.

Read `sentences.py` first: it replaces a fact of an answer by the fact of the reference. `facts.py` and `forms.py`
recognise facts by their format. `page.py` splits a reference into statements. `matching.py` finds the statement about
the same matter. `extension.py` is the interface to the gateway, `stage.py` the step that an answer passes through.
"""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.plugins.api import Extension, hookimpl
from aligner_proxy_grounding.extension import Grounding


@hookimpl
def extensions() -> Sequence[Extension]:
    """The extension that checks answers against references."""
    return [Grounding()]
