"""LiteLLM worker that holds much memory: the first one that starts, and no other one."""

from __future__ import annotations

import os
from pathlib import Path

MARK = "HUNGRY_WORKER_MARK"
"""Environment variable with the file that says that there has been one."""
_BYTES = 600 << 20
_held: list[bytearray] = []


async def hold() -> None:
    """Run by LiteLLM when a worker starts."""
    mark = Path(os.environ[MARK])
    if not mark.exists():
        mark.touch()
        _held.append(bytearray(b"x") * _BYTES)
