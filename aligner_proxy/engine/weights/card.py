"""Model card of an aligner folder: reads the languages from its YAML header, in Hugging Face's format."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

CARD = "README.md"
"""The card's file in the folder."""
_YAML_HEADER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
"""The YAML header of a card, between two lines of dashes."""
_LANGUAGE_CODE = re.compile(r"([a-z]{2,3})(?:[-_][A-Za-z0-9]+)*")
"""A language code, and perhaps a script or region after it, which is ignored."""
_MAX_BYTES = 1 << 20
"""Bytes of the largest card that is read."""


def read_languages(folder: Path) -> tuple[str, ...]:
    """Return the codes of the languages that the aligner knows (`language: en`); empty if its card does not say."""
    try:
        path = folder / CARD
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= _MAX_BYTES else ""
        header = _YAML_HEADER.match(text)
        fields = yaml.safe_load(header.group(1)) if header else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ()  # a card is prose for people, so an unreadable card is no error
    language = fields.get("language") if isinstance(fields, dict) else None
    entries = language if isinstance(language, list) else [language]
    codes: list[str] = []
    for entry in entries:
        match = _LANGUAGE_CODE.fullmatch(str(entry))
        # an entry that is no code ("multilingual") means that the aligner knows more languages than are listed
        if match is None:
            return ()
        codes.append(match.group(1))
    return tuple(dict.fromkeys(codes))
