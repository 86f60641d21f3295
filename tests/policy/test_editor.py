"""What a policies file says about the editor and a second try."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import editor_groups
from aligner_proxy.types import IfNothingRemains, Policy, Write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "p.yaml"


def resolved(path: Path, data: dict[str, Any], **facts: Any) -> Policy:
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return PolicyResolver(config.load(path)).resolve(RequestFacts("gpt", **facts))


def test_the_aligner_edits_by_default(file: Path) -> None:
    policy = resolved(file, {})
    assert (policy.editor, policy.editor_group) == ("local", None)


@pytest.mark.parametrize(
    ("setting", "word", "group"),
    [
        ("local", "local", None),
        ("upstream", "upstream", "gpt-4o"),
        ({"model": "strong"}, "model:strong", "strong"),
        ({"model": "local"}, "model:local", "local"),
        ("model:strong", "model:strong", "strong"),
    ],
)
def test_every_form_names_a_model_group(file: Path, setting: object, word: str, group: str | None) -> None:
    policy = resolved(file, {"defaults": {"editor": setting}})
    assert policy.editor == word
    assert replace(policy, upstream="gpt-4o").editor_group == group


def test_every_level_says_its_own_and_the_later_wins(file: Path) -> None:
    data = {
        "defaults": {"editor": "upstream"},
        "routes": [{"match": {"model": "gpt"}, "editor": {"model": "strong"}}],
        "tenants": [{"match": {"team": "a"}, "editor": "local"}],
    }
    policy = resolved(file, data)
    assert policy.editor == "model:strong"
    assert dict(policy.origins)["editor"] == "p.yaml:6 (route route-1)"
    assert resolved(file, data, team_id="a").editor == "local"
    assert editor_groups(config.load(file).blocks()) == {"strong": ("routes", 0, "editor")}


def test_metadata_that_is_not_trusted_names_no_editor(file: Path) -> None:
    policy = resolved(file, {}, key_hash="k", key_settings={"editor": "upstream"})
    assert policy.editor == "local"
    trusting = {"trust": {"key_metadata": True}}
    assert resolved(file, trusting, key_hash="k", key_settings={"editor": "upstream"}).editor == "upstream"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("upstraem", "did you mean 'upstream'?"),
        ("strong", "{model: GROUP}"),
        (7, "{model: GROUP}"),
        ({"model": ""}, "must name a model group"),
        ({"modle": "strong"}, "unknown key 'modle'"),
        ({"model": "x" * 300}, "shorten it"),
        ({}, "must name a model group"),
    ],
)
def test_a_mistake_is_refused_with_its_line(file: Path, setting: object, message: str) -> None:
    file.write_text(yaml.safe_dump({"defaults": {"mode": "enforce", "editor": setting}}, sort_keys=False))
    with pytest.raises(ConfigError, match=r"p\.yaml:3: defaults\.editor") as raised:
        config.load(file)
    assert message in str(raised.value)


SECOND_TRY = {"if_nothing_remains": "second_try"}


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"defaults": SECOND_TRY}, 2),
        ({"defaults": {"editor": "local", **SECOND_TRY}}, 3),
        ({"routes": [{"match": {}, "editor": "upstream"}], "defaults": SECOND_TRY}, 5),
        ({"defaults": {"editor": "upstream"}, "routes": [{"match": {}, "editor": "local", **SECOND_TRY}]}, 6),
        ({"routes": [{"match": {}, **SECOND_TRY}], "tenants": [{"match": {"team": "a"}, "editor": "upstream"}]}, 3),
        (
            {
                "routes": [{"match": {}, "editor": "upstream", **SECOND_TRY}],
                "tenants": [{"match": {"team": "a"}, "editor": "local"}],
            },
            4,
        ),
    ],
)
def test_a_second_try_without_an_editor_is_refused_with_its_line(file: Path, data: dict[str, Any], line: int) -> None:
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    with pytest.raises(ConfigError, match=f"p.yaml:{line}: if_nothing_remains: second_try needs an editor"):
        config.load(file)


def test_a_second_try_with_an_editor_is_taken(file: Path) -> None:
    data = {"defaults": {"editor": "upstream"}, "routes": [{"match": {}, **SECOND_TRY}]}
    assert resolved(file, data).if_nothing_remains is IfNothingRemains.SECOND_TRY
    other = {"defaults": {"editor": "upstream", **SECOND_TRY}, "routes": [{"match": {}, "if_nothing_remains": "block"}]}
    assert resolved(file, other).if_nothing_remains is IfNothingRemains.BLOCK


def test_trusted_metadata_that_takes_the_editor_away_leaves_the_text(file: Path) -> None:
    data = {"defaults": {"editor": "upstream", **SECOND_TRY}, "trust": {"key_metadata": True}}
    policy = resolved(file, data, key_hash="k", key_settings={"editor": "local"})
    assert policy.if_nothing_remains is IfNothingRemains.DECLINE


def test_an_editor_without_a_detector_head_is_refused_with_its_line(file: Path) -> None:
    data = {"aligner": {"engine": "http://a/v1", "template": "imhi"}, "routes": [{"match": {}, "editor": "upstream"}]}
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    with pytest.raises(ConfigError, match=r"p\.yaml:6: editor: .* has none; set aligner\.engine\.scorer"):
        config.load(file)
    data["aligner"] = {"engine": {"at": "http://a/v1", "scorer": "local", "template": "imhi"}}
    assert resolved(file, data).editor == "upstream"


def test_the_embedded_aligner_writes_nothing_and_others_write_unless_the_file_says_so(file: Path) -> None:
    editor = {"editor": {"model": "strong"}}
    other = {"aligner": {"model": "./own"}}
    served = {"aligner": {"engine": {"at": "http://gpu:8000/v1", "scorer": "local"}, "template": "ultrafeedback"}}
    two = {"aligner": {"adapters": {"second": "./second"}}}
    cases: list[tuple[dict[str, Any], tuple[str, str]]] = [
        ({}, ("never", "never")),
        ({"defaults": editor}, ("free", "never")),
        ({"defaults": {"write": "verified"}}, ("verified", "verified")),
        ({"defaults": {**editor, "write": "never"}}, ("never", "never")),
        ({"defaults": {"write": "never"}, "routes": [{"match": {}, "write": "free"}]}, ("free", "free")),
        ({"tenants": [{"match": {}, "write": "verified"}]}, ("verified", "verified")),
        (other, ("free", "free")),
        (served, ("free", "free")),
        ({**two, "defaults": {"aligner": "second"}}, ("free", "free")),
        ({**two, "defaults": {"aligner": {"second": 50, "default": 50}}}, ("never", "never")),
    ]
    failures = []
    for data, expected in cases:
        policy = resolved(file, data)
        if (policy.effective_write.value, policy.write.value) != expected:
            failures.append(f"{data}: {policy.effective_write} {policy.write}")
    assert not failures, "\n".join(failures)
    assert resolved(file, {}).write is Write.NEVER
    strict = resolved(file, {"defaults": {"write": "free"}}, key_hash="k", key_settings={"write": "never"})
    assert strict.write.value == "never"
    lax = resolved(file, {"defaults": {"write": "verified"}}, key_hash="k", key_settings={"write": "free"})
    assert lax.write.value == "verified"
