"""The command `aligner-proxy` on the path of a shell that types what a page says."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def put_command_on_path(folder: Path) -> dict[str, str]:
    """Write the command into the folder; return the variables of a shell that finds it, with a home in the folder."""
    (folder / "bin").mkdir()
    command = folder / "bin" / "aligner-proxy"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m aligner_proxy "$@"\n')
    command.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "ALIGNER_PROXY_HOME": str(folder / "home")}
