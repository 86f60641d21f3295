"""Runner of a command that ends with its parent: `python -m ...process.die_with_parent PARENT COMMAND...`.

On Linux the kernel sends SIGTERM when the parent ends, even by SIGKILL. The runner becomes the command by exec, so
there is no further process. On other systems a killed parent leaves the command running.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tether(parent: int) -> None:
    """End this process with SIGTERM when `parent` ends; at once when it has ended already."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(128 + signal.SIGTERM)


def main(arguments: list[str]) -> None:
    """Tether this process, then replace it by the command."""
    parent, *command = arguments
    tether(int(parent))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
