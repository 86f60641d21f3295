"""The embedded aligner, prepared with one reading of its base's file where the libraries read it three times."""

from __future__ import annotations

import functools
from pathlib import Path

import gguf
import pytest

from aligner_proxy.engine.decoding.correct import Aligner
from aligner_proxy.engine.loader import EngineSettings, open_aligner


def open_embedded(home: Path, settings: EngineSettings | None = None) -> Aligner:
    """Open it with weights that lie in `home`, where the first who asks prepares them: fifteen seconds, else 23."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GGUFReader", "get_tensor_name_map"):
            patch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
        return open_aligner(settings or EngineSettings(), home)
