"""The two forms in which rules of the gate are switched, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import validate

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.gate_schema import GateSwitches, read_switches
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_file import read_yaml
from aligner_proxy.types import GateRule


def loaded(tmp_path: Path, text: str) -> PolicyFile:
    (tmp_path / "p.yaml").write_text(text)
    return config.load(tmp_path / "p.yaml")


def test_every_rule_has_a_switch_with_its_meaning() -> None:
    assert list(GateSwitches.model_fields) == [rule.value for rule in GateRule]
    assert all(field.description for field in GateSwitches.model_fields.values())


def test_a_block_says_only_what_it_names(tmp_path: Path) -> None:
    file = loaded(tmp_path, "defaults: {gate: {lost_name: off, empty: 'off', too_long: on}}")
    assert read_switches(file.defaults.gate) == {
        GateRule.EMPTY: False,
        GateRule.LOST_NAME: False,
        GateRule.TOO_LONG: True,
    }


def test_a_list_says_everything(tmp_path: Path) -> None:
    said = read_switches(loaded(tmp_path, "defaults: {gate: [lost_name]}").defaults.gate)
    assert set(said) == set(GateRule)
    assert [rule for rule, on in said.items() if on] == [GateRule.LOST_NAME]
    assert not any(read_switches(()).values())
    assert read_switches(None) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "defaults:\n  gate:\n    lost_nme: off",
            "p.yaml:3: unknown key 'lost_nme' in defaults.gate; did you mean 'lost_name'?",
        ),
        (
            "defaults:\n  gate:\n    - empty\n    - lost_cod",
            "p.yaml:4: defaults.gate[1]: unknown rule 'lost_cod'; did you mean 'lost_code'?",
        ),
        ("defaults:\n  gate: off", "p.yaml:2: defaults.gate: must be a block of keys, such as {empty: ...}"),
        ("defaults:\n  gate: {empty: maybe}", "p.yaml:2: defaults.gate.empty: Input should be 'on' or 'off'"),
    ],
)
def test_a_wrong_one_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert str(caught.value) == message


def test_editors_accept_what_we_accept(tmp_path: Path) -> None:
    for text in (
        "defaults: {gate: {lost_name: off}}",
        "defaults: {gate: {lost_name: 'on'}}",
        "defaults: {gate: [empty]}",
    ):
        loaded(tmp_path, text)
        validate(read_yaml(tmp_path / "p.yaml")[0], config.schema())
