"""What the build of an image reads: the files that the Containerfile copies, and the settings of pip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import image_check, image_context

ROOT = Path(__file__).parents[2]


def test_copy_sources_brings_what_the_containerfile_copies_and_no_link(tmp_path: Path) -> None:
    image_context.copy_sources(tmp_path)
    text = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
    copied = [
        word for words in re.findall(r"^COPY (?!--)(.+) \S+$", text, flags=re.MULTILINE) for word in words.split()
    ]
    assert len(copied) >= 6
    assert [pattern for pattern in copied if not list(tmp_path.glob(pattern))] == []
    assert (tmp_path / "aligner_proxy" / "embedded" / "__init__.py").is_file()
    assert [path for path in tmp_path.rglob("*") if path.is_symlink()] == []
    assert not list(tmp_path.glob(".git*"))


def test_read_pip_settings_lets_the_environment_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\ntimeout = 7\nfind-links = /first\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/second")
    monkeypatch.delenv("PIP_DEFAULT_TIMEOUT", raising=False)
    settings = dict(image_context.read_pip_settings()["global"])
    assert (settings["timeout"], settings["find-links"]) == ("7", "/second")


def test_the_configuration_for_the_check_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from aligner_proxy.cli import main

    monkeypatch.setenv("LITELLM_MASTER_KEY", image_check.KEY)
    image_check.write_configuration(tmp_path, "http://127.0.0.1:9")
    done = CliRunner().invoke(main, ["check", str(tmp_path / "litellm.yaml"), "--model", "gpt"])
    assert done.exit_code == 0, done.stderr
    assert "harmless" in done.stdout
