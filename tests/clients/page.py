"""Settings of docs/guides/recipes.md, as a reader copies them: the page's blocks for one gateway and model."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "recipes.md"
PLACE = "http://127.0.0.1:4000"
"""The gateway's address on the page."""
MODELS = ("gpt-4o-mini", "claude-sonnet")


def read_block(section: str, language: str, address: str, model: str) -> str:
    """The first block of a section in this language, for another address and model."""
    text = re.search(rf"^## {section}\n((?:(?!^## ).*\n)*)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert text is not None, section
    block = re.search(rf"^```{language}\n(.*?)^```", text[1], flags=re.MULTILINE | re.DOTALL)
    assert block is not None, f"{section}: {language}"
    settings = block[1].replace(PLACE, address)
    for name in MODELS:
        settings = settings.replace(name, model)
    return settings
