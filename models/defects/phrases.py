"""Phrase tables: YAML files with the wordings that examples are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "phrases"


def table(name: str) -> dict[str, Any]:
    """`phrases/<name>.yaml`, lists as tuples."""
    read_table: dict[str, Any] = read(FOLDER / f"{name}.yaml")
    return read_table


def read(path: Path) -> Any:
    """A YAML file, lists as tuples."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time where libyaml is there
    return _frozen(yaml.load(path.read_text(encoding="utf-8"), loader))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
