"""The editor of one request for questions from stages, such as which of two facts an answer means."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from aligner_proxy.correctors.editor import EDITING_SHARE
from aligner_proxy.correctors.model_group import ModelGroup, Payer, Question, cost_of_failure
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import CorrectionError
from aligner_proxy.plugins.extensions import Boundary
from aligner_proxy.types import EditorUse

log = logging.getLogger(__name__)
_Read = TypeVar("_Read")


class StageEditor:
    """A model group that answers questions of stages, charged to a request. Satisfies `PolicyEditor`."""

    def __init__(self, group: ModelGroup, request: AlignRequest, payer: Payer) -> None:
        self._group = group
        self._request = request
        self._payer = payer
        self._until = time.monotonic() + request.deadline_s

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        read: Callable[[str], _Read],
        *,
        tokens: int,
        form: Mapping[str, Any] | None = None,
    ) -> tuple[_Read | None, EditorUse]:
        """Ask the editor; return what `read` makes of the reply (None if the call fails; logged), and the cost."""
        seconds = max(0.001, (self._until - time.monotonic()) * EDITING_SHARE)
        try:
            return await self._group.ask(
                self._request,
                Question(messages, tokens, form),
                lambda reply: _read_guarded(read, reply.text),
                self._payer,
                seconds,
            )
        except CorrectionError as error:
            log.warning(
                "call %s: the editor failed (%s); going on without its answer",
                self._request.request_id,
                type(error).__name__,
            )
            return None, cost_of_failure(error)


def _read_guarded(read: Callable[[str], _Read], text: str) -> _Read:
    """What a stage's `read` makes of a reply; an error in it counts as the plugin's (`Boundary`)."""
    with Boundary():
        return read(text)
