"""Phrase tables: YAML files with the wordings that examples are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "phrases"


def read_table(name: str) -> dict[str, Any]:
    """`phrases/<name>.yaml`, lists as tuples."""
    document: dict[str, Any] = read_yaml(FOLDER / f"{name}.yaml")
    return document


def read_yaml(path: Path) -> Any:
    """A YAML file, lists as tuples."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time where libyaml is there
    return _freeze(yaml.load(path.read_text(encoding="utf-8"), loader))


def _freeze(value: Any) -> Any:
    """Lists as tuples, at every depth."""
    if isinstance(value, dict):
        return {key: _freeze(item) for key, item in value.items()}
    return tuple(map(_freeze, value)) if isinstance(value, list) else value
