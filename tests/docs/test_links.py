"""Every page that code, configuration or another page names is there, under the address and heading that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MENTION = re.compile(r"(?<![\w./-])docs/[\w./-]+\.(?:md|svg|png|xz)\b")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
FENCE = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)
# Addresses of pages are part of what operators read: errors, configuration files and deployment files name them.
TEXTS = (".json", ".md", ".py", ".service", ".sh", ".toml", ".yaml", ".yml", "Containerfile", "Makefile", "run")
NOT_OURS = {"build", "dist", "git", "hypothesis", "mypy_cache", "peers", "pytest_cache", "ruff_cache", "venv"}


@cache
def texts() -> dict[str, str]:
    """What stands in every text file of the repository, by its path."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name.strip(".") not in NOT_OURS]
    files = [*ROOT.iterdir(), *(file for folder in folders for file in folder.rglob("*"))]
    paths = (file for file in files if file.name.endswith(TEXTS) and file.is_file())
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as readers of Markdown make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    plain = (re.sub(r"[`*]|\]\([^)]*\)", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading)) for heading in plain}


def dead_links(name: str, text: str) -> Iterator[str]:
    """The links of a page that lead nowhere in the repository."""
    for target, anchor in LINK.findall(FENCE.sub("", text)):
        if ":" in target or not target + anchor:
            continue
        page = (ROOT / name).parent / target if target else ROOT / name
        if not page.exists():
            yield f"{name}: {target}"
        elif anchor and page.suffix == ".md" and anchor not in anchors(page):
            yield f"{name}: {target}#{anchor}"


def test_every_page_that_is_named_exists() -> None:
    dead = [
        f"{name}: {mention}"
        for name, text in texts().items()
        for mention in MENTION.findall(text)
        if not (ROOT / mention).exists()
    ]
    assert dead == []


def test_every_link_between_pages_leads_to_a_page_and_its_heading() -> None:
    pages = {name: text for name, text in texts().items() if name.endswith(".md")}
    assert len(pages) > 100
    assert [link for name, text in pages.items() for link in dead_links(name, text)] == []
