"""Runs a command that ends when its parent ends: `python -m ...process.die_with_parent PARENT COMMAND...`.

On Linux the kernel sends SIGTERM to the command when the parent ends, even if the parent is killed by SIGKILL. The
runner becomes the command by exec, so there is no additional process. On other systems the command keeps running if its
parent is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
"""Number of the `prctl` option, from Linux's headers."""


def tether_command(command: Iterable[str]) -> list[str]:
    """The command line by which this process runs a command that ends with it."""
    return [sys.executable, "-m", "aligner_proxy.gateway.process.die_with_parent", str(os.getpid()), *command]


def tether(parent: int) -> None:
    """Let this process end with SIGTERM when the process `parent` ends, or at once if it has ended; Linux only."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before `prctl`, which then has no effect
        raise SystemExit(128 + signal.SIGTERM)


def main(arguments: list[str]) -> None:
    """Tether this process to its parent, then replace it with the command."""
    parent, *command = arguments
    tether(int(parent))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
