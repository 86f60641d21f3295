"""Which entries of the guardrail LiteLLM is asked about; what is refused stands in tests/cli and tests/attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from aligner_proxy.cli.options import check_guardrail_entry
from aligner_proxy.policy import config
from aligner_proxy.policy.guardrail_entry import check_entries
from aligner_proxy.policy.litellm_config import GUARDRAIL
from aligner_proxy.policy.yaml_file import read_yaml

PLAIN: dict[str, Any] = {"guardrail": GUARDRAIL, "mode": "post_call", "default_on": True, "policies": "policies.yaml"}
OTHERS: list[dict[str, Any]] = [
    PLAIN | {"mode": ["pre_call", "post_call"]},
    PLAIN | {"mode": "post_cal"},
    PLAIN | {"stream_scope": {"post_call": "streaming"}},
    PLAIN | {"default_on": "os.environ/ON"},
    {"guardrail": GUARDRAIL, "default_on": True},
]


def asked_about(folder: Path, params: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings about which LiteLLM is asked."""
    file = folder / "litellm.yaml"
    file.write_text(yaml.safe_dump({"guardrails": [{"guardrail_name": "aligner", "litellm_params": params}]}))
    (folder / "policies.yaml").write_text("defaults: {mode: off}\n")
    asked: list[dict[str, Any]] = []
    check_entries(*read_yaml(file), config.load(folder / "policies.yaml"), lambda given: asked.append(dict(given)))
    return asked


def test_the_entry_that_init_writes_needs_no_question_and_every_other_one_is_asked_about(tmp_path: Path) -> None:
    assert asked_about(tmp_path, PLAIN) == []
    assert [params for params in OTHERS if asked_about(tmp_path, params) != [params]] == []


def test_litellm_can_read_the_entry_that_it_is_not_asked_about() -> None:
    check_guardrail_entry(PLAIN)
