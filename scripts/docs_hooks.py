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

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
REDIRECT = '<!doctype html><meta http-equiv="refresh" content="0; url={address}"><a href="{address}">moved</a>'
FENCE = re.compile(r"(^```.*?^```)", flags=re.MULTILINE | re.DOTALL)
TOP = ("ARCHITECTURE.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md", "THREATS.md")


def project_pages() -> dict[str, str]:
    """For every page outside of docs/: path in the repository -> path in the site."""
    pages = {"README.md": "index.md"} | {name: f"project/{name.lower()}" for name in TOP}
    for readme in (*ROOT.glob("models/README.md"), *ROOT.glob("plugins/**/README.md")):
        folder = readme.parent.relative_to(ROOT)
        pages[f"{folder}/README.md"] = f"project/{'-'.join(folder.parts)}.md"
    return pages


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
        shown = site_path(path)
        if shown is None:
            return text
        return f"{image}[{text}]({os.path.relpath(shown, os.path.dirname(here) or '.')}{anchor})"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(rewrite, part) for part in parts)


def on_post_build(config: Any) -> None:
    """Add redirects from the pages' addresses before 0.2.0 (directly in docs/), which errors of 0.1.0 mention."""
    site = Path(config["site_dir"])
    for page in sorted((ROOT / "docs").glob("*/*.md")):
        before = site / page.stem
        if page.parent.name != "lab" and not before.exists():
            before.mkdir()
            address = f"../{page.parent.name}/{page.stem}/"
            (before / "index.html").write_text(REDIRECT.format(address=address), encoding="utf-8")
