"""Hand-written texts for the generated pages, for what code cannot say about headers, labels and endpoints."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def load_texts() -> dict[str, Any]:
    """Load words.yaml."""
    loaded: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
    return loaded
