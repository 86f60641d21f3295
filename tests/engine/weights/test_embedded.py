"""The embedded aligner: a distribution of its own, found by its name and by the path at which it once lay."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest

from aligner_proxy.engine.weights import manifest, sources
from aligner_proxy.errors import WeightsError
from aligner_proxy.gateway import build
from aligner_proxy.policy.engine_schema import Backend
from aligner_proxy.policy.schema import PolicyFile

ROOT = Path(__file__).parents[3]
FORMER = "aligner_proxy/embedded"


@pytest.mark.parametrize("name", ["embedded", FORMER, f"/opt/venv/lib/{FORMER}", Path("/nowhere") / FORMER])
def test_every_name_finds_the_same_weights(name: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no folder has the former path
    source = sources.resolve(name)
    assert (source.model, source.identity) == ("embedded", sources.resolve("embedded").identity)
    assert source.head is not None
    assert sources.languages(name) == ("en",)
    assert not sources.is_hub_id(name)
    assert list(sources.list_missing(str(name))) == list(sources.list_unpinned(name)) == []


def test_its_base_is_the_version_that_this_project_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["dependency-groups"]["weights"] == [sources.EMBEDDED_BASE]


def test_a_folder_of_that_name_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / FORMER).mkdir(parents=True)
    assert not sources.is_embedded(str(tmp_path / FORMER))
    with pytest.raises(WeightsError, match=r"holds neither adapter_config\.json nor config\.json"):
        sources.resolve(str(tmp_path / FORMER))


def test_the_former_path_still_leads_there_in_a_checkout() -> None:
    assert (ROOT / FORMER).resolve() == ROOT / "plugins" / "embedded" / "aligner_proxy_embedded"


def test_where_it_is_not_installed_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    for name in ("embedded", FORMER):
        with pytest.raises(WeightsError, match=r"pip install aligner-proxy-embedded .*\./plugins/embedded"):
            sources.resolve(name)
        assert sources.languages(name) == ()
        assert list(sources.list_unpinned(name)) == []


def test_its_prompt_form_is_known_without_its_files() -> None:
    described = manifest.read(sources.embedded_folder())
    assert described is not None
    assert described.template == sources.known_template("embedded")
    backend = Backend(at=("http://127.0.0.1:9/v1",), model="served")
    assert build.completions_template(PolicyFile(), backend) == described.template
