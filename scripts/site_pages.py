"""Which page of the site is which file of the repository, and `llms.txt`, the site's contents for language models.

The hooks of mkdocs import this module as a neighbour, so it knows nothing of mkdocs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOP = ("ARCHITECTURE.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md", "THREATS.md")
_FENCE = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")
_MIN_WORDS = 5


def project_pages() -> dict[str, str]:
    """For every page outside of docs/: path in the repository -> path in the site."""
    pages = {"README.md": "index.md"} | {name: f"project/{name.lower()}" for name in TOP}
    for readme in (*ROOT.glob("models/README.md"), *ROOT.glob("plugins/**/README.md")):
        folder = readme.parent.relative_to(ROOT)
        pages[f"{folder}/README.md"] = f"project/{'-'.join(folder.parts)}.md"
    return pages


def list_contents(settings: dict[str, Any]) -> str:
    """The text of llms.txt: name, purpose, and every page of the navigation with its first sentence.

    `settings` are those of mkdocs.yml. Links are relative, because the site has no fixed address.
    """
    sources = {site: ROOT / source for source, site in project_pages().items()}
    lines = [f"# {settings['site_name']}", "", f"> {settings['site_description']}"]
    for section in settings["nav"]:
        [(title, entries)] = section.items()
        lines += ["", f"## {title}", ""]
        for name, page in _named_pages(entries):
            text = sources.get(page, ROOT / "docs" / page).read_text(encoding="utf-8")
            lines.append(f"- [{name or title_of(text)}]({_address(page)}): {first_sentence(text)}")
    return "\n".join(lines) + "\n"


def _named_pages(entries: list[str | dict[str, str]]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        yield ("", entry) if isinstance(entry, str) else next(iter(entry.items()))


def _address(page: str) -> str:
    folder = re.sub(r"(^|/)(?:index|README)$", r"\1", page.removesuffix(".md"))
    return f"{folder.rstrip('/')}/" if folder else "./"


def title_of(text: str) -> str:
    """The heading of a page."""
    return text.partition("\n")[0].removeprefix("# ").strip()


def first_sentence(text: str) -> str:
    """The first sentence of a page, of five words or more, that is neither heading, list, table, code nor figure."""
    blocks = (block.strip() for block in _FENCE.sub("", text).split("\n\n"))
    prose = (re.sub(r"[`*]", "", _LINK.sub(r"\1", block)) for block in blocks if re.match(r"[A-Z`*\[]", block))
    sentences = (" ".join(sentence.split()) for block in prose for sentence in _SENTENCE_END.split(block))
    whole = (sentence for sentence in sentences if sentence.endswith(".") and len(sentence.split()) >= _MIN_WORDS)
    return next(whole, "")
