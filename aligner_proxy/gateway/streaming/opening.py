"""The opening of a held stream (one that waits until its whole answer is corrected): the events before the first text
of its answer, which may go out before the rest. Side texts are texts beside the answer, such as reasoning.

Clients measure silence by events, and comments are no events. So once a heartbeat is due, the opening is delivered, and
from then on as it arrives: roles, the beginnings of a response and of its parts, and reasoning that the policy lets
pass. Before the heartbeat nothing goes out, so that an early failure is a plain HTTP error.
"""

from __future__ import annotations

from typing import Any

from aligner_proxy.formats.side_text import side_strings
from aligner_proxy.gateway.streaming.delivery import StreamRequest
from aligner_proxy.gateway.streaming.event_queue import QueuedEvent
from aligner_proxy.types import Mode, SideKind


class Opening:
    """Decides which of the first events of one held stream may go out before its answer is decided. The stream appends
    each item that it delivers to `delivered`.
    """

    def __init__(self, request: StreamRequest) -> None:
        self._request = request
        self._read_count = 0
        self._cleared_count = 0
        """How many of the first events are cleared to go out: no side text in them may still block the answer."""
        self.delivered: list[object] = []
        """The items that the stream has delivered, which it appends."""
        self.is_over = False
        """Whether the next event is part of the answer, or the answer is decided."""

    @property
    def is_cleared(self) -> bool:
        """Whether no side text in the next event, or before it, may still block the answer."""
        return len(self.delivered) < self._cleared_count

    async def note_event(self, *, is_due: bool) -> None:
        """Count an event that was queued, and clear all events so far unless a side text may still block the answer.

        `is_due` says whether the opening is to go out now; only then are the side texts that have ended judged. Raises
        `Blocked` if one of these side texts may not be delivered.
        """
        self._read_count += 1
        side = self._request.side
        if side is not None and side.has_pending:
            side.release_echoes()
            if is_due:
                await side.judge_pending((), ended_only=True)
        if side is None or not (side.has_pending or side.is_growing):
            self._cleared_count = self._read_count

    def admit_next(self, queued: QueuedEvent[Any]) -> bool:
        """Whether the next event is part of the opening; the first event that is not ends the opening."""
        event = queued.event
        # The event that begins a text's block has to wait: the block is left out if nothing remains of the text.
        begins_text = event.block is not None and event.block.is_text
        has_text = bool(queued.piece_spans or queued.repeated_texts or event.ended_texts)
        if begins_text or has_text or not self._opens_answer(event.original):
            self.is_over = True
        return not self.is_over

    def _opens_answer(self, item: object) -> bool:
        """Whether an event without text may go out before the answer is decided."""
        policy = self._request.state.policy
        # If the answer must be in the audit store before it is delivered, its reasoning must wait for that, too.
        if policy.mode is Mode.ENFORCE and self._request.corrector.records_first and _holds_reasoning(item):
            return False
        return self._request.wire.opens_answer(item)


def _holds_reasoning(item: object) -> bool:
    return any(kind is SideKind.REASONING and text for kind, _, text in side_strings(item))
