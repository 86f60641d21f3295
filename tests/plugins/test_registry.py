"""Which plugins are there: our own, those of installed distributions, and those that are left out with a reason."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.audit.entry import AuditEvent
from aligner_proxy.audit.writer import make_audit_writers
from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway.build import correction_cache
from aligner_proxy.pipeline.cache import PluginCache
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.registry import Plugin, load_plugins
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.types import Correction, Exchange, Outcome, Policy, Status
from tests.support.installed import EXAMPLE, install, install_example

HOOKS = "from aligner_proxy.plugins.api import Kind, hookimpl\n"
OURS = ["aligner", "fleet", "grounding", "meal", "metaalign", "review", "self_refine", "stream_aligner"]
CORRECTORS = {"aligner", "self_refine", "stream_aligner"}
ENDPOINTS = """
from aligner_proxy.plugins.api import Endpoint
from pydantic import BaseModel
@hookimpl
def endpoints():
    return [Endpoint("{}", "", BaseModel, BaseModel, dict)]
"""
FALSE_FRIEND = HOOKS + "@hookimpl\ndef correctors():\n    return [Kind('self_refine', 'mine', lambda told: None)]\n"
Site = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed distributions, of this test alone."""
    monkeypatch.delenv("ALIGNER_PROXY_PLUGINS", raising=False)
    (tmp_path / "site").mkdir()  # Python remembers of a path that is not there that nothing can be imported from it
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    load_plugins.cache_clear()
    before = set(sys.modules)
    yield tmp_path / "site"
    load_plugins.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def policies(folder: Path, text: str = "") -> PolicyFile:
    path = folder / "policies.yaml"
    path.write_text(text)
    return config.load(path)


def plugin(name: str) -> Plugin:
    return next(one for one in load_plugins(True).plugins if one.name == name)


def test_our_own_come_first_and_say_what_they_offer(site: Path) -> None:
    names = [(one.name, one.third_party, one.fault) for one in load_plugins(True).plugins][: len(OURS)]
    assert names == [(name, False, None) for name in OURS]
    assert set(load_plugins(True).offers("correctors")) == CORRECTORS


def test_the_example_is_installed_by_its_metadata_and_made_by_the_file(site: Path, tmp_path: Path) -> None:
    install_example(site)
    found = plugin("plain_words")
    assert (found.version, found.third_party, found.fault) == ("0.1.0", True, None)
    file = policies(
        tmp_path,
        "defaults: {corrector: plain_words, plugin_rules: [calm]}\n"
        "plugins: {correctors: {plain_words: {words: {a: b}}, other: {kind: plain_words}}}\n",
    )
    wanted = registry.configure_plugins(file)
    assert [one.name for one in wanted["correctors"]] == ["plain_words", "other"]
    assert [one.name for one in wanted["gate_rules"]] == ["calm"]
    assert wanted["correctors"][0].settings.model_dump() == {"words": {"a": "b"}}
    assert len({one.label for one in wanted["correctors"]}) == 2


def test_the_example_has_sixty_lines() -> None:
    assert len((EXAMPLE / "plain_words.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("switch", ["environment", "file"])
def test_plugins_of_others_are_switched_off_whole_and_not_even_imported(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    install(site, "noisy", "raise AssertionError('imported')", entries={"noisy": "noisy"})
    if switch == "environment":
        monkeypatch.setenv("ALIGNER_PROXY_PLUGINS", "off")
    file = policies(tmp_path, "plugins: {third_party: false}\n" if switch == "file" else "")
    assert registry.configure_plugins(file)["correctors"] == ()
    assert "noisy" not in sys.modules
    assert [one.name for one in load_plugins(config.allows_third_party(file)).plugins] == OURS


def test_the_switch_in_the_environment_knows_two_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_PLUGINS", "perhaps")
    with pytest.raises(ConfigError, match="must be on or off"):
        config.allows_third_party()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('secret')", "a plugin raised ValueError"),
        ("import no_such_module_at_all", "a plugin raised ModuleNotFoundError"),
        ("raise SystemExit(3)", "a plugin raised SystemExit"),
        (HOOKS + "@hookimpl\ndef corectors():\n    return []\n", "a plugin raised PluginValidationError"),
        (HOOKS + "@hookimpl\ndef correctors():\n    raise KeyError('secret')\n", "a plugin raised KeyError"),
        (HOOKS + "@hookimpl\ndef correctors():\n    return 'mine'\n", "must return a list"),
        (HOOKS + "@hookimpl\ndef caches():\n    return [Kind('a b', '', dict)]\n", "without a valid name"),
        (HOOKS + "@hookimpl\ndef caches():\n    return [Kind('a', '', dict, dict)]\n", "must be a pydantic model"),
        (
            HOOKS + "@hookimpl\ndef endpoints():\n    return [dict]\n",
            "its hook endpoints must return",
        ),
        (HOOKS + ENDPOINTS.format("/v1/a b"), "'/v1/a b' has no valid path below /v1/"),
        (HOOKS + ENDPOINTS.format("/key/generate"), "'/key/generate' has no valid path below /v1/"),
        (HOOKS + ENDPOINTS.format("/v1/feedback"), "'/v1/feedback' is already taken"),
        (
            HOOKS + "@hookimpl\ndef shared_servers():\n    return [Kind('mine', '', dict)]\n",
            "that come with the gateway",
        ),
        (FALSE_FRIEND, "'self_refine', which another plugin offers already"),
        (FALSE_FRIEND.replace("self_refine", "metaaligner"), "'metaaligner', which another plugin offers already"),
    ],
)
def test_a_plugin_with_a_fault_is_left_out_whole_and_says_why(site: Path, source: str, said: str) -> None:
    install_example(site)
    install(site, "faulty", source, entries={"faulty": "faulty"})
    found = plugin("faulty")
    assert found.fault is not None
    assert said in found.fault
    assert "secret" not in found.fault
    assert found.offers == {}
    assert plugin("plain_words").fault is None
    assert plugin("self_refine").fault is None


def test_a_name_that_is_taken_is_left_to_whoever_has_it(site: Path) -> None:
    install(site, "twin", HOOKS, entries={"self_refine": "twin"})
    assert [one.fault for one in load_plugins(True).plugins if one.third_party] == ["another plugin has this name"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("routes: [{match: {}, corrector: self_refin}]", r":1: no plugin offers 'self_refin' .* 'self_refine'"),
        ("defaults: {corrector: self_refine}", r":1: correctors 'self_refine': model: Field required"),
        ("plugins: {correctors: {self_refine: {model: m, round: 2}}}", r"round: Extra inputs are not permitted"),
        ("plugins: {correctors: {self_refine: {model: m, rounds: 99}}}", r"rounds: Input should be less than"),
        ("plugins: {correctors: {metaaligner: {}}}", r"metaaligner is the aligner on the engine"),
        ("plugins: {correctors: {aligner: {engine: nowhere}}}", r"engine: String should match"),
        ("plugins: {cache: {kind: redis}}", r":1: no plugin offers 'redis' among its caches; no plugin offers any"),
        ("plugins: {audit_sinks: {syslog: {}}}", r"no plugin offers 'syslog' among its audit_sinks"),
        ("defaults: {plugin_rules: [calm]}", r":1: no plugin offers 'calm' among its gate_rules"),
    ],
)
def test_what_is_not_there_is_refused_with_its_line(site: Path, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.configure_plugins(policies(tmp_path, text + "\n"))


def test_a_refusal_names_plugins_that_could_not_be_loaded(site: Path, tmp_path: Path) -> None:
    install(site, "broken", "import no_such_module_at_all", entries={"broken": "broken"})
    with pytest.raises(ConfigError, match=r"could not be loaded: broken \(a plugin raised ModuleNotFoundError\)"):
        registry.configure_plugins(policies(tmp_path, "defaults: {corrector: broken}\n"))


def test_something_that_cannot_be_made_keeps_the_gateway_from_starting(site: Path, tmp_path: Path) -> None:
    source = HOOKS + "@hookimpl\ndef correctors():\n    return [Kind('odd', '', lambda told: 1 / 0)]\n"
    install(site, "odd", source, entries={"odd": "odd"})
    (wanted,) = registry.configure_plugins(policies(tmp_path, "defaults: {corrector: odd}\n"))["correctors"]
    with pytest.raises(ConfigError, match=r"odd cannot be created \(a plugin raised ZeroDivisionError\)"):
        wanted.make()


def test_settings_that_raise_while_they_are_checked_are_refused(site: Path, tmp_path: Path) -> None:
    source = HOOKS + (
        "from pydantic import BaseModel, model_validator\n"
        "class S(BaseModel):\n"
        "    @model_validator(mode='before')\n"
        "    @classmethod\n"
        "    def look(cls, told):\n"
        "        raise RuntimeError('secret')\n"
        "@hookimpl\ndef correctors():\n    return [Kind('odd', '', lambda told: None, S)]\n"
    )
    install(site, "odd", source, entries={"odd": "odd"})
    with pytest.raises(ConfigError, match="settings cannot be read") as caught:
        registry.configure_plugins(policies(tmp_path, "defaults: {corrector: odd}\n"))
    assert "secret" not in str(caught.value)


def test_loading_happens_once(site: Path, tmp_path: Path) -> None:
    counted: Any = tmp_path / "count"
    source = f"from pathlib import Path\nwith Path({str(counted)!r}).open('a') as out:\n    out.write('x')\n"
    install(site, "once", source, entries={"once": "once"})
    for _ in range(3):
        registry.configure_plugins(policies(tmp_path))
    assert counted.read_text() == "x"


STORE_AND_SINK = (
    HOOKS
    + """
from pydantic import BaseModel
class S(BaseModel):
    model_config = {"extra": "forbid"}
    size: int = 1
class Store:
    def __init__(self, told):
        self.kept = {}
    async def get(self, key):
        return self.kept.get(key)
    async def put(self, key, value, ttl_s):
        self.kept[key] = value
class Sink:
    async def write(self, entry):
        WRITTEN.append(entry)
WRITTEN = []
@hookimpl
def caches():
    return [Kind("memory", "in memory", Store, S)]
@hookimpl
def audit_sinks():
    return [Kind("list", "a list", lambda told: Sink())]
"""
)


async def test_a_store_and_a_sink_are_made_by_the_file_and_used(site: Path, tmp_path: Path) -> None:
    install(site, "keeping", STORE_AND_SINK, entries={"keeping": "keeping"})
    file = policies(tmp_path, "plugins: {cache: {kind: memory, size: 3}, audit_sinks: {list: {}}}\n")
    cache = correction_cache(file)
    told = make_audit_writers(file)
    assert isinstance(cache, PluginCache)
    await cache.put("k", Correction("It is so."))
    assert await cache.get("k") == Correction("It is so.")
    outcome = Outcome(Status.UNCHANGED, None, "So.", Policy("p"), correction=Correction("So."))
    told.note(AuditEvent(1.0, None, RequestFacts(), Exchange("call-1", 0, (), "So."), outcome))
    await told.aclose()
    assert [entry.call_id for entry in sys.modules["keeping"].WRITTEN] == ["call-1"]
    await cache.aclose()
