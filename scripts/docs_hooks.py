"""Hooks for mkdocs: pages outside of docs/, and links that leave docs/.

The site shows README files and the pages at the top of the repository under `project/`. A link to one of them, or to a
page of docs/, becomes a link of the site, which mkdocs then checks. A link to code or data becomes plain text, since
the site has no such page. A broken link stays unchanged, so that mkdocs warns about it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_pages import ROOT, list_contents, project_pages

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
REDIRECT = '<!doctype html><meta http-equiv="refresh" content="0; url={address}"><a href="{address}">moved</a>'
FENCE = re.compile(r"(^```.*?^```)", flags=re.MULTILINE | re.DOTALL)
PAGES = project_pages()
SOURCES = {site: source for source, site in PAGES.items()}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside of docs/."""
    for source, site in PAGES.items():
        files.append(File.generated(config, site, abs_src_path=str(ROOT / source)))
    return files


def site_path(target: str) -> str | None:
    """The site's path of a file or folder of the repository; None if the site does not show it."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return PAGES.get(target) or PAGES.get(f"{target}/README.md")


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links with paths of the repository into links of the site."""
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def rewrite(link: re.Match[str]) -> str:
        image, text, target, anchor = link[1], link[2], link[3], link[4] or ""
        if not target or ":" in target or not (ROOT / source).parent.joinpath(target).exists():
            return link[0]
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        site_page = site_path(path)
        if site_page is None:
            return text
        return f"{image}[{text}]({os.path.relpath(site_page, os.path.dirname(here) or '.')}{anchor})"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(rewrite, part) for part in parts)


def on_post_build(config: Any) -> None:
    """Add llms.txt, and redirects from the addresses before 0.2.0 (directly in docs/), which errors of 0.1.0 name."""
    site = Path(config["site_dir"])
    (site / "llms.txt").write_text(list_contents(config), encoding="utf-8")
    for page in sorted((ROOT / "docs").glob("*/*.md")):
        before = site / page.stem
        if page.parent.name != "lab" and not before.exists():
            before.mkdir()
            address = f"../{page.parent.name}/{page.stem}/"
            (before / "index.html").write_text(REDIRECT.format(address=address), encoding="utf-8")
