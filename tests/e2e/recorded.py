"""The deployment of the tests of what is said of answers: one with an audit store."""

from __future__ import annotations

from typing import Any

from tests.e2e.deployment import CLAUDE, Deployment

FOLDER = "recorded"


class Recorded(Deployment):
    """A deployment with an audit store in `FOLDER`."""

    def policies(self) -> dict[str, Any]:
        """The policies file."""
        return {**super().policies(), "audit": {"enabled": True, "file": f"{{folder}}/{FOLDER}/audit.db"}}


RECORDED = (
    Recorded()
    .model("gpt")
    .model("claude", CLAUDE)
    .case("sentences", stream="sentence")
    .case("shown", mode="shadow")
    .case("brief", max_answer_chars=1000)
)
