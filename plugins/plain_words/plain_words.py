"""A corrector and a gate rule in one small plugin: plain words in place of grand ones, and no new exclamation marks.

routes: [{match: {model: "*"}, objectives: [on-brand], corrector: plain_words, plugin_rules: [calm]}]
plugins: {correctors: {plain_words: {words: {utilise: use, commence: begin}}}}
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.plugins.api import Corrector, GateCheck, Kind, hookimpl
from aligner_proxy.types import Correction


class Settings(BaseModel):
    """What may stand under `plain_words` in the policies file; unknown keys are refused with their line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: dict[str, str] = Field(default={"utilise": "use"}, min_length=1)


class PlainWords:
    """A `Corrector`. It may block, raise or hang: the gateway then does what the policy's on_error says."""

    def __init__(self, settings: Settings) -> None:
        self._words = settings.words
        self._find = re.compile(r"\b(?:" + "|".join(map(re.escape, settings.words)) + r")\b")

    async def identity(self) -> str:
        """Settings and version are in every cache key already; what else decides a correction belongs here."""
        return "1"

    async def correct(self, request: AlignRequest) -> Correction:
        """The same answer in plain words."""
        return Correction(self._find.sub(lambda found: self._words[found[0]], request.answer))


class Calm:
    """A `GateCheck`."""

    def breaks(self, original: str, edited: str, objectives: Sequence[str]) -> bool:
        """Whether an edit shouts where nobody shouted."""
        return edited.count("!") > original.count("!")


@hookimpl
def correctors() -> Sequence[Kind[Corrector]]:
    """What `corrector:` may name."""
    return [Kind("plain_words", "plain words in place of grand ones", PlainWords, Settings)]


@hookimpl
def gate_rules() -> Sequence[Kind[GateCheck]]:
    """What `plugin_rules:` may name."""
    return [Kind("calm", "no exclamation marks that were not there", lambda _: Calm())]
