"""The version stands in several places; they must agree, and the newest changes must be written down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from aligner_proxy import __version__

ROOT = Path(__file__).parents[1]
HEADINGS = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    released = [heading for heading in HEADINGS if heading != "Unreleased"]
    plugins = tomllib.loads((ROOT / "plugins" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    weights = tomllib.loads((ROOT / "plugins" / "embedded" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert weights["name"] == "aligner-proxy-embedded"  # its version is that of the weights
    assert project["version"] == plugins["version"] == __version__ == released[0]
    assert f"aligner-proxy=={__version__}" in plugins["dependencies"]


def test_litellm_is_pinned_the_same_in_project_and_locks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pin,) = [d.removeprefix("litellm[proxy]==") for d in project["dependencies"] if d.startswith("litellm")]
    for lock in ("requirements.lock", "requirements-dev.lock"):
        assert re.search(rf"^litellm=={re.escape(pin)} ", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE)


def test_locks_hash_everything_and_name_no_index() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"^(torch|triton|nvidia-\S+|cuda-\S+)==", text, re.MULTILINE)
        assert (
            len(re.findall(r"^\S+==\S+ .*\\$", text, re.MULTILINE)) == len(re.findall("==[^=]* ", text))
            or "hash" in text
        )
