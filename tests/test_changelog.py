"""The version stands in several places; they must agree, and the newest changes must be written down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from aligner_proxy import __version__

ROOT = Path(__file__).parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (\S+)", CHANGELOG, flags=re.MULTILINE)
MAX_LINES = 3


def project_of(folder: str) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def test_version_is_the_same_everywhere() -> None:
    project = project_of(".")
    released = [heading for heading in HEADINGS if heading != "Unreleased"]
    weights = project_of("plugins/embedded")
    assert weights["name"] == "aligner-proxy-embedded"  # its version is that of the weights
    assert project["version"] == __version__ == released[0]
    for folder in ("plugins", "plugins/fleet", "plugins/grounding", "plugins/review", "plugins/vllm"):
        assert project_of(folder)["version"] == __version__
        assert re.search(rf"aligner-proxy(\[\w+\])?=={__version__}", " ".join(project_of(folder)["dependencies"]))


def test_changelog_is_sorted_by_kind_and_its_entries_are_short() -> None:
    for release in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", release, flags=re.MULTILINE)
        assert kinds == [kind for kind in ("Added", "Changed", "Fixed") if kind in kinds]
        entries = re.findall(r"^- (?:.+\n?)(?:  .+\n?)*", release, flags=re.MULTILINE)
        assert len(entries) > 5
        assert [entry for entry in entries if len(entry.strip().splitlines()) > MAX_LINES] == []


def test_litellm_is_pinned_the_same_in_project_and_locks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pin,) = [d.removeprefix("litellm[proxy]==") for d in project["dependencies"] if d.startswith("litellm")]
    for lock in ("requirements.lock", "requirements-dev.lock"):
        assert re.search(rf"^litellm=={re.escape(pin)} ", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE)


def test_locks_hash_everything_and_name_no_index() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock", "requirements-docs.lock"):
        text = (ROOT / lock).read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"^(torch|triton|nvidia-\S+|cuda-\S+)==", text, re.MULTILINE)
        assert (
            len(re.findall(r"^\S+==\S+ .*\\$", text, re.MULTILINE)) == len(re.findall("==[^=]* ", text))
            or "hash" in text
        )
