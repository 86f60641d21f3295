"""Whether Triton interprets the kernels on the CPU, as in tests."""

from __future__ import annotations

import triton


def is_interpreted() -> bool:
    return bool(triton.knobs.runtime.interpret)
