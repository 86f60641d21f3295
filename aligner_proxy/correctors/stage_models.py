"""Editor and judge of one request for questions from stages, such as which of two facts an answer means."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from cachetools import LRUCache

from aligner_proxy.correctors.editor import EDITING_SHARE
from aligner_proxy.correctors.judge import RequestJudge
from aligner_proxy.correctors.model_group import ModelGroup, Payer, Question, Reply, cost_of_failure
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import CorrectionError
from aligner_proxy.plugins.extensions import Boundary
from aligner_proxy.types import EditorUse, JudgeKind

log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class StageEditor:
    """A model group that answers questions of stages, charged to a request. Satisfies `PolicyEditor`."""

    def __init__(self, group: ModelGroup, request: AlignRequest, payer: Payer) -> None:
        self._group = group
        self._request = request
        self._payer = payer
        self._until = time.monotonic() + request.deadline_s
        """Deadline of all questions together (`time.monotonic()`)."""

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        read_text: Callable[[str], _Result],
        *,
        max_tokens: int,
        response_format: Mapping[str, Any] | None = None,
    ) -> tuple[_Result | None, EditorUse]:
        """Ask the editor; return (the result of `read_text` for the reply, cost). The result is None if this fails."""
        seconds = max(0.001, (self._until - time.monotonic()) * EDITING_SHARE)
        question = Question(messages, max_tokens, response_format)
        try:
            return await self._group.ask(
                self._request, question, lambda reply: _read_guarded(read_text, reply.text), self._payer, seconds
            )
        except CorrectionError as error:
            log.warning(
                "call %s: the editor failed (%s); going on without its answer",
                self._request.request_id,
                type(error).__name__,
            )
            return None, cost_of_failure(error)


class StageJudge:
    """A judge that answers questions of stages, charged to a request. Satisfies `PolicyJudge`."""

    def __init__(self, judge: RequestJudge, request: AlignRequest, replies: LRUCache[str, str]) -> None:
        self._judge = judge
        self._request = request
        self._replies = replies
        """Replies that this worker keeps, by a hash of judge, tenant and question."""
        self._until = time.monotonic() + request.deadline_s
        """Deadline of all questions together (`time.monotonic()`)."""
        self.is_decision_model = judge.judge.kind is JudgeKind.DECISIONS
        self.may_clear = judge.judge.may_clear

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        read_text: Callable[[str], _Result],
        *,
        max_tokens: int,
        response_format: Mapping[str, Any] | None = None,
    ) -> tuple[_Result | None, EditorUse]:
        """Ask the judge; return (the result of `read_text` for the reply, cost). The result is None if the call fails.

        An equal question of the same tenant gets the earlier reply, free of cost. Raises `JudgeFailed` if the call
        fails and the policy blocks the answer then.
        """
        request = self._request
        parts = [self._judge.identity(), request.tenant, [dict(message) for message in messages], response_format]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        known_reply = self._replies.get(key)
        if known_reply is not None:
            return _read_guarded(read_text, known_reply), EditorUse()

        def read_and_keep(reply: Reply) -> _Result:
            """Read a reply, and keep it for equal questions."""
            result = _read_guarded(read_text, reply.text)
            # a reply that cannot be read raised an error, so it is not kept
            self._replies[key] = reply.text
            return result

        question = Question(messages, max_tokens, response_format, varies=False)
        ask = partial(self._judge.group.ask, request, question, read_and_keep, self._judge.payer)
        return await self._judge.ask_with_retries(request, ask, self._until)


def _read_guarded(read_text: Callable[[str], _Result], text: str) -> _Result:
    """Call a stage's `read_text` with the text of a reply; an error in it counts as the plugin's (`Boundary`)."""
    with Boundary():
        return read_text(text)
