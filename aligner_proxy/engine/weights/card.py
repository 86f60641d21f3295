"""Model card of an aligner folder: reads the languages from its YAML header, in Hugging Face's format."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

CARD = "README.md"
_YAML_HEADER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
"""The YAML header of a card, between two lines of dashes."""
_LANGUAGE_CODE = re.compile(r"([a-z]{2,3})(?:[-_][A-Za-z0-9]+)*")
"""A language code, and perhaps script or region, which are ignored."""
_MAX_BYTES = 1 << 20
"""Bytes of the largest card that is read."""


def read_languages(folder: Path) -> tuple[str, ...]:
    """The codes of the languages that the aligner knows (`language: en`); empty if its card does not say."""
    try:
        path = folder / CARD
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= _MAX_BYTES else ""
        head = _YAML_HEADER.match(text)
        fields = yaml.safe_load(head.group(1)) if head else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ()  # a card is prose for people, so an unreadable one is no error
    field = fields.get("language") if isinstance(fields, dict) else None
    entries = field if isinstance(field, list) else [field]
    codes: list[str] = []
    for entry in entries:
        match = _LANGUAGE_CODE.fullmatch(str(entry))
        # An entry that is no code ("multilingual") means that there are more languages than listed.
        if match is None:
            return ()
        codes.append(match.group(1))
    return tuple(dict.fromkeys(codes))
