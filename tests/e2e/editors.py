"""Routes on which a strong model writes in place of what is flagged."""

from __future__ import annotations

from tests.e2e.deployment import CLAUDE, Deployment

_STRONG = {"model": "strong"}
EDITORS = (
    Deployment()
    # With our guardrail on itself, which must make no difference to whoever edits by it.
    .model("strong", model="openai/strong", guardrails=["aligner"])
    .case("edited", editor=_STRONG, deadline_s=4)
    .case("edited-sentence", editor=_STRONG, deadline_s=4, stream="sentence")
    # A group of its own for what fails: the others must not find it left alone.
    .model("shaky", model="openai/strong")
    .case("shaky-edited", editor={"model": "shaky"}, deadline_s=4)
    .case("shaky-block", editor={"model": "shaky"}, deadline_s=4, on_error="block")
    .case("shaky-sentence", editor={"model": "shaky"}, deadline_s=4, stream="sentence")
    .case("edited-upstream", editor="upstream")
    .case("facts-edited", objectives=[], references=["system"], editor=_STRONG, deadline_s=4)
    .case("facts-sentence", objectives=[], references=["system"], editor=_STRONG, deadline_s=4, stream="sentence")
    .case("edited-again", editor=_STRONG, if_nothing_remains="second_try", stream="sentence")
    .model("edited-claude", CLAUDE)
    .route("edited-claude", editor=_STRONG)
)
