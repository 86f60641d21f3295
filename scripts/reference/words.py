"""What is written by hand for the generated pages: what code cannot say of a header, a label or an endpoint."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def written() -> dict[str, Any]:
    """words.yaml."""
    loaded: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
    return loaded
