"""What holds for all tests of plugins: nobody else in the process loads plugins while they run."""

from __future__ import annotations

import sys
import threading
import time
from types import FrameType

import pytest

from aligner_proxy.gateway import reload


@pytest.fixture(autouse=True)
def _rest_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the threads that watch the policies files of earlier tests read none.

    They read each file once more a second after it was made, and a refused one every second, and load what is installed
    then: what a test of plugins has installed, or the plugins from before that into the memory of `load_plugins`.
    """
    monkeypatch.setattr(reload.Policies, "look", lambda _: None)
    while any(_is_reading(frame) for frame in sys._current_frames().values()):
        time.sleep(0.001)


def _is_reading(frame: FrameType | None) -> bool:
    """Whether this is the stack of such a thread, at another place than in its pause."""
    called = None
    while frame is not None:
        if frame.f_code is reload._look_repeatedly.__code__:
            return called is not threading.Event.wait.__code__
        called = frame.f_code
        frame = frame.f_back
    return False
