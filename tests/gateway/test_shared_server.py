"""Servers that hosts share come with a distribution of their own: a file that names one is refused without it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from aligner_proxy.audit import writer
from aligner_proxy.cli import doctor, main
from aligner_proxy.errors import ConfigError, MissingPlugin
from aligner_proxy.gateway.shared_server import open_shared_server
from aligner_proxy.plugins import registry
from aligner_proxy.policy.schema import PolicyFile
from tests.support.installed import pretend_installed

REDIS = "cache: {redis_env: SOME_REDIS}\n"
DATABASE = "audit: {enabled: true, database_env: SOME_DATABASE}\n"
SENTENCES = {
    REDIS: "policies.yaml:1: cache.redis_env needs the plugin distribution aligner-proxy-fleet, ",
    DATABASE: "policies.yaml:1: audit.database_env needs the plugin distribution aligner-proxy-fleet, ",
}
ENDING = "which is not installed: pip install aligner-proxy-fleet"


@pytest.fixture
def _no_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a gateway without the distribution."""
    pretend_installed(monkeypatch, [entry for entry in registry.installed_plugins() if entry.name != "fleet"])
    monkeypatch.setenv("SOME_REDIS", "redis://nobody-asks-it")
    monkeypatch.setenv("SOME_DATABASE", "postgresql://nobody-asks-it")


def policies(folder: Path, block: str) -> Path:
    path = folder / "policies.yaml"
    path.write_text(f"{block}aligner: {{engine: 'http://a:1'}}\nroutes: [{{match: {{model: '*'}}, caution: 1.0}}]\n")
    return path


@pytest.mark.usefixtures("_no_fleet")
@pytest.mark.parametrize("block", SENTENCES)
@pytest.mark.parametrize("asks", [registry.configure_plugins, open_shared_server, writer.make_recorder])
def test_no_gateway_goes_on_alone_without_the_distribution(
    tmp_path: Path, block: str, asks: Callable[[PolicyFile], object]
) -> None:
    file = registry.load_policies(policies(tmp_path, block))
    if (asks is open_shared_server and block is DATABASE) or (asks is writer.make_recorder and block is REDIS):
        assert asks(file) is None
        return
    with pytest.raises(MissingPlugin) as one:
        asks(file)
    assert str(one.value) == SENTENCES[block] + ENDING


@pytest.mark.usefixtures("_no_fleet")
@pytest.mark.parametrize("block", SENTENCES)
def test_check_refuses_with_the_sentence(tmp_path: Path, block: str) -> None:
    done = CliRunner().invoke(main, ["check", str(policies(tmp_path, block))])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert SENTENCES[block] in line
    assert line.endswith(ENDING)


@pytest.mark.usefixtures("_no_fleet")
def test_doctor_names_the_distribution(tmp_path: Path) -> None:
    (finding,) = doctor.check_redis(policies(tmp_path, REDIS))
    assert (finding.verdict, finding.found) == (doctor.Severity.FAULT, SENTENCES[REDIS] + ENDING)


@pytest.mark.usefixtures("_no_fleet")
def test_a_store_that_is_off_needs_no_distribution(tmp_path: Path) -> None:
    registry.configure_plugins(registry.load_policies(policies(tmp_path, "audit: {database_env: SOME_DATABASE}\n")))


def test_a_distribution_that_cannot_be_loaded_is_refused_with_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ours,) = [entry for entry in registry.installed_plugins() if entry.name == "fleet"]
    broken = importlib.metadata.EntryPoint("fleet", "no_such_module_at_all", registry.GROUP)
    vars(broken)["dist"] = ours.dist
    pretend_installed(monkeypatch, [broken])
    with pytest.raises(ConfigError, match=r"cannot be used \(fleet: a plugin raised ModuleNotFoundError\)"):
        registry.configure_plugins(registry.load_policies(policies(tmp_path, REDIS)))
