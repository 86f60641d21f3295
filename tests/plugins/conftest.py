"""What holds for all tests of plugins: nobody else in the process loads plugins while they run."""

from __future__ import annotations

import sys
import time
from types import FrameType

import pytest

from aligner_proxy.gateway import reload

_LOOK = reload.Policies.check_files.__code__


@pytest.fixture(autouse=True)
def _rest_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the threads that watch the policies files of earlier tests read none.

    They read each file once more a second after it was made, and a refused one every second, and load what is installed
    then: what a test of plugins has installed, or the plugins from before that into the memory of `load_plugins`.
    """
    monkeypatch.setattr(reload.Policies, "check_files", lambda _: None)
    while any(_is_reading(frame) for frame in sys._current_frames().values()):
        time.sleep(0.001)


def _is_reading(frame: FrameType | None) -> bool:
    """Whether this is the stack of a thread that began to look at files before that was replaced.

    Those that wake up later look at nothing, and of hundreds of threads some are always awake.
    """
    while frame is not None:
        if frame.f_code is _LOOK:
            return True
        frame = frame.f_back
    return False
