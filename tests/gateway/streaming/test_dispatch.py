"""Which way a stream takes, by its policy: what metrics and comments call it is the way that it took."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from aligner_proxy.gateway.streaming.dispatch import choose_stream_mode
from aligner_proxy.types import Mode, Policy, StreamMode


@pytest.mark.parametrize("pieces", [True, False])
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("asked", StreamMode)
def test_the_way_is_the_policys_where_it_can_be_taken(mode: Mode, asked: StreamMode, pieces: bool) -> None:
    pipeline: Any = SimpleNamespace(can_release_segments=lambda _: pieces)
    way = choose_stream_mode(Policy(name="p", mode=mode, stream=asked), pipeline)
    if mode is Mode.SHADOW:
        assert way is StreamMode.PASSTHROUGH
    elif mode is Mode.ENFORCE and (asked is not StreamMode.SENTENCE or pieces):
        assert way is asked
    else:
        assert way is StreamMode.HOLD
