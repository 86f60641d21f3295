"""llms.txt: every page of the site's navigation once, with a first sentence that can be read by itself."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from scripts import site_pages

ROOT = Path(__file__).parents[2]
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
LINE = re.compile(r"- \[([^\]]+)\]\(([^)]+)\): (.*)")


def test_contents_name_every_page_of_the_navigation_with_a_sentence() -> None:
    text = site_pages.list_contents(SETTINGS)
    assert text.startswith("# aligner-proxy\n\n> A correcting LLM gateway.")
    entries = [LINE.fullmatch(line) for line in text.splitlines() if line.startswith("- ")]
    count = sum(len(pages) for section in SETTINGS["nav"] for pages in section.values())
    assert len(entries) == count > 40
    assert all(entries)
    addresses = [entry[2] for entry in entries if entry]
    assert len(set(addresses)) == count
    assert {"./", "guides/operations/", "project/threats/", "lab/"} <= set(addresses)
    poor = [entry[0] for entry in entries if entry and not re.search(r"^\w.* .*\.$", entry[3])]
    assert poor == []
    assert not re.search(r"\]\([^)]*\.md|\*\*|```", text)


def test_a_first_sentence_is_prose() -> None:
    table = "| a | b |\n|---|---|\n| 1 | 2 |"
    page = (
        f"# Title\n\n{table}\n\n```sh\nrun it.\n```\n\nSee [the page](other.md) of\n`keys`: it says more. And more.\n"
    )
    assert site_pages.first_sentence(page) == "See the page of keys: it says more."
    assert site_pages.title_of(page) == "Title"
    assert site_pages.first_sentence("# Title\n\n**Ready.** It takes requests once it is loaded.\n") == (
        "It takes requests once it is loaded."
    )
    assert site_pages.first_sentence("# Only a heading\n") == ""
