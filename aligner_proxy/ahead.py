"""What does the engine read while the upstream still writes? One object per stream, which never disturbs the stream.

The verdicts are then there when the answer ends, and only its last words remain to be read. What is not used is let go
of: an answer that turns out to be cached, skipped or cut off was read for nothing, at the price of a prefill.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from aligner_proxy.engine.protocol import Reading
from aligner_proxy.errors import AlignerProxyError
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.rewrite import Wire
from aligner_proxy.types import Policy
from aligner_proxy.waiting import to_the_end

log = logging.getLogger(__name__)


class ReadAhead:
    """The readings of one stream, by choice. None where an answer is not read: it may not be, or it failed once."""

    def __init__(self, pipeline: Pipeline, wire: Wire, data: Mapping[str, Any], policy: Policy) -> None:
        self._pipeline, self._wire, self._data, self._policy = pipeline, wire, data, policy
        self._speech = wire.speech()
        self._readings: dict[int, Reading | None] = {}

    async def hear(self, item: object) -> bool:
        """Pass on what an item of the stream says; whether it says anything."""
        index = None
        try:
            for index, text in self._speech(item):
                if index not in self._readings:
                    opening = self._wire.opening(self._data, index)
                    self._readings[index] = await self._pipeline.read(opening, self._policy)
                reading = self._readings[index]
                if reading is not None:
                    await reading.feed(text)
        except Exception as error:  # noqa: BLE001 - part of the pipeline's boundary: reading ahead may cost no stream
            number = index if isinstance(index, int) else None  # an upstream may put a text there, or a list
            log.warning("choice %s is not read ahead (%s)", number, type(error).__name__)
            if number is not None:
                await self._give_up(number)
        return index is not None

    def of(self, index: int) -> Reading | None:
        """The reading of one choice; whoever takes it ends it."""
        return self._readings.pop(index, None)

    async def aclose(self) -> None:
        """Let go of what nobody took."""
        await to_the_end(self._let_go())

    async def _let_go(self) -> None:
        while self._readings:
            _, reading = self._readings.popitem()
            if reading is not None:
                await reading.aclose()

    async def _give_up(self, index: int) -> None:
        """Read this choice no more, and let the engine go."""
        reading, self._readings[index] = self._readings.get(index), None
        if reading is not None:
            with contextlib.suppress(AlignerProxyError):
                await reading.aclose()
