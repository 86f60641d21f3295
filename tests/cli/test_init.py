"""`init`: files with which a gateway starts, for each provider, and never over others."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from litellm import get_llm_provider

from aligner_proxy.cli import main
from aligner_proxy.cli.init import PROVIDERS, make_file_texts
from aligner_proxy.plugins import registry

ROOT = Path(__file__).parents[2]
KEY = "sk-a-master-key-of-a-test"
PAGE = (ROOT / "docs" / "start" / "providers.md").read_text(encoding="utf-8")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_check_accepts_the_files_of_each_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = []
    for name, provider in PROVIDERS.items():
        monkeypatch.setenv("LITELLM_MASTER_KEY", KEY)
        for variable, _ in provider.variables:
            monkeypatch.setenv(variable, "a value")
        written = run("init", str(tmp_path / name), "--provider", name)
        checked = run("check", str(tmp_path / name / "litellm.yaml"), "--model", provider.model_name)
        data = yaml.safe_load((tmp_path / name / "litellm.yaml").read_text())
        (entry,) = data["model_list"]
        _, litellm_name, *_ = get_llm_provider(entry["litellm_params"]["model"])
        if (written.exit_code, checked.exit_code) != (0, 0) or "warning" in checked.stdout:
            wrong.append((name, written.output, checked.output))
        if not litellm_name.startswith(name.replace("vllm", "hosted_vllm")):
            wrong.append((name, litellm_name, ""))
    assert wrong == []


def test_the_next_steps_name_what_is_to_be_set(tmp_path: Path) -> None:
    printed = run("init", str(tmp_path / "here"), "--provider", "azure").stdout
    for words in ("export GATEWAY_AZURE_BASE=", "export GATEWAY_AZURE_KEY=", "check ", "serve --config"):
        assert words in printed


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text("routes: []\n")
    refused = run("init", str(tmp_path))
    assert refused.exit_code == 2
    assert "policies.yaml exists and is kept" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["policies.yaml"]


def test_a_folder_that_holds_the_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "aligner_proxy").mkdir()
    (tmp_path / "aligner_proxy" / "guardrail.py").touch()
    assert "holds the package" in run("init", str(tmp_path)).stderr


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = run("init", str(tmp_path / "file" / "gateway"))
    assert (refused.exit_code, "cannot write into" in refused.stderr) == (2, True)


def test_a_full_disk_is_named_and_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(len(text) for text in make_file_texts(PROVIDERS["openai"]).values())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, limits[1]))
    try:
        failed = run("init", str(tmp_path / "gateway"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = f"cannot write {tmp_path}/gateway/policies.schema.json: File too large; make room on its disk"
    assert (failed.exit_code, message in failed.stderr) == (1, True), failed.stderr
    assert list((tmp_path / "gateway").iterdir()) == []
    assert run("init", str(tmp_path / "gateway")).exit_code == 0


def test_the_schema_beside_the_policies_is_the_one_of_this_version() -> None:
    texts = make_file_texts(PROVIDERS["openai"])
    assert "policies.schema.json" in texts["policies.yaml"].splitlines()[0]
    assert registry.schema()["properties"].keys() <= yaml.safe_load(texts["policies.schema.json"])["properties"].keys()


def test_the_page_shows_the_entry_of_each_provider() -> None:
    missing = [
        (name, line)
        for name, provider in PROVIDERS.items()
        for line in provider.parameters
        if f"    {line}" not in PAGE
    ]
    assert missing == []
