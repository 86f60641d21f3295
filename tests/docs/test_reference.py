"""The generated pages of docs/reference/ are current, and what is written by hand for them names what the code has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins import registry
from scripts.reference import commands, headers, http_api, metrics, policy
from scripts.reference.__main__ import pages
from scripts.reference.words import load_texts

pytestmark = pytest.mark.slow
"""Console, engine and LiteLLM's proxy are imported, which takes longer than what is then compared."""
# Examples of what a plugin of the reader's would add: its kinds are not installed here.
OF_OTHER_PLUGINS = {"Settings": {"plugin_rules"}, "plugins": {"cache", "audit_sinks"}}

PLAIN_LABELS = ("policy", "aligner", "model", "kind", "scope", "objective", "redis", "status")
"""Labels whose values are names of the operator's, or say what they are."""


@pytest.fixture(autouse=True, scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that examples name."""
    folder = tmp_path_factory.mktemp("policies")
    (folder / "PRICES.md").write_text("A tour costs £4.\n")
    (folder / "feelings.yaml").write_text('{against: ["I feel sad today."], fine: ["It rains today."]}')
    return folder


def test_generated_pages_are_current() -> None:
    stale = [path.name for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run: python -m scripts.reference"


def test_every_policy_key_has_an_example_and_no_other() -> None:
    named = {heading: set(entries) for heading, entries in policy.examples().items()}
    known = {section.heading: set(policy.properties(section)) for section in policy.SECTIONS}
    assert named == known | {"file": set(policy.schema()["properties"])}


def place_example(heading: str, key: str, value: Any) -> dict[str, Any]:
    """A policies file in which an example stands where its section says."""
    names = ("legal", "acme-2")
    file: dict[str, Any] = {
        "defaults": {"mode": "enforce"},
        "objectives": {"on-brand": "On-brand: the response should be warm"},
        "aligner": {"adapters": {name: f"./{name}" for name in names}, "judges": {"facts": "./facts"}},
    }
    needed = {
        "routes: hand_off": {"url": "https://desk.example.com/reports", "secret_env": "DESK_SECRET"},
        "routes: objectives chosen by prompt": {"auto": ["harmless"]},
        "aligner: engine": {"at": ["http://127.0.0.1:8090/v1"]},
        "objectives": {"text": "Calm: the response should be calm"},
        "cache": {"redis_env": "ALIGNER_REDIS"},
        "audit": {"enabled": True},
    }
    if key == "shadow_aligner":
        file["audit"] = {"enabled": True}
    block = needed.get(heading, {}) | {key: value}
    if heading == "file":
        return file | {key: value}
    if heading == "judge":
        by_guard = {"guard": "my-guard", "form": "qwen3guard"}
        is_kind = key in ("decisions", "tokens")
        block = (by_guard if key in by_guard else {} if is_kind else {"chat": "strong"}) | {key: value}
    if heading in ("Settings", "on_error", "on_skip", "gate", "editor", "judge"):
        return file | {"defaults": {"mode": "enforce"} | ({key: value} if heading == "Settings" else {heading: block})}
    if heading == "objectives":
        return file | {"objectives": {"calm": block}}
    place, _, inner = heading.partition(": ")
    if place in ("routes", "tenants"):
        inner = {"objectives chosen by prompt": "objectives"}.get(inner, inner)
        return file | {place: [{"match": {}} | ({inner: block} if inner else block)]}
    return file | {place: {inner: block} if inner else block}


def test_every_example_is_a_valid_policies_file(sources: Path) -> None:
    path = sources / "policies.yaml"
    wrong = []
    for heading, entries in policy.examples().items():
        for key in entries.keys() - OF_OTHER_PLUGINS.get(heading, set()):
            path.write_text(yaml.safe_dump(place_example(heading, key, entries[key])))
            try:
                registry.load_policies(path)
            except ConfigError as error:
                wrong.append(f"{heading}, {key}: {error}")
    assert wrong == []


def test_every_header_of_the_code_is_described_and_no_other() -> None:
    assert set(load_texts()["response_headers"]) == headers.sent_headers()
    assert {name for name in load_texts()["request_headers"] if name.startswith("x-")} == headers.read_headers()


def test_every_described_label_belongs_to_a_metric() -> None:
    known = {row.name: row.labels for row in (*metrics.gateway_metrics(), *metrics.engine_metric_rows())}
    assert set(load_texts()["labels"]) <= set(known)
    for name, told in load_texts()["labels"].items():
        for label in known[name] if ":" in told else ():
            assert label in told or label in PLAIN_LABELS


def test_every_endpoint_of_engine_and_console_is_described_and_no_other() -> None:
    assert sorted(load_texts()["engine"]) == sorted(http_api.engine_endpoints())
    assert sorted(load_texts()["console"]) == sorted(http_api.console_endpoints())
    assert {"/v1/align", "/v1/feedback"} <= set(http_api.gateway_document()["paths"])


def test_every_command_and_each_of_its_options_is_on_the_page() -> None:
    page = commands.commands_page()
    assert all(f"## aligner-proxy {name}\n" in page for name in commands.all_commands())
    assert "| `--worker-mb` `INTEGER` | `2048` |" in page
