"""Each way around the aligner that a LiteLLM YAML shows, with its line; a plain config has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.policy.litellm_config import find_uncovered
from aligner_proxy.policy.yaml_file import read_yaml

ROOT = Path(__file__).parents[2]


def told(folder: Path, text: str) -> list[str]:
    (folder / "litellm.yaml").write_text(text)
    data, source = read_yaml(folder / "litellm.yaml")
    return find_uncovered(data, source)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("files_settings: [{}]", "litellm.yaml:1: files and batches"),
        ("finetune_settings: [{}]", "batches"),
        ("assistant_settings: {custom_llm_provider: openai}", "the Assistants API"),
        ("agents: [{agent_name: a}]", "agents (A2A)"),
        (
            "general_settings:\n  pass_through_endpoints:\n    - path: /rerank\n      target: http://x",
            "litellm.yaml:3: pass-through route /rerank; answers given there are not corrected",
        ),
        (
            "general_settings: {pass_through_endpoints: [{path: /raw, target: http://x, guardrails: {aligner: null}}]}",
            "pass-through route /raw; of its answers only whole JSON bodies are corrected, no streams",
        ),
        (
            "model_list:\n- model_name: v\n  litellm_params: {model: vertex_ai/g, use_in_pass_through: true}",
            "litellm.yaml:3: v serves pass-through routes",
        ),
        (
            "model_list: [{model_name: r, litellm_params: {model: openai/gpt-realtime, api_key: os.environ/K}}]",
            "r is a realtime model",
        ),
        ("model_list: [{model_name: r, model_info: {mode: realtime}}]", "r is a realtime model"),
        ("model_list: [{model_name: b, model_info: {mode: batch}}]", "b serves batches"),
        (
            "model_list: [{model_name: g, litellm_params: {model: openai/g, api_key: os.environ/OPENAI_API_KEY}}]",
            "with OPENAI_API_KEY LiteLLM's pass-through routes /openai/... work for every key",
        ),
        # LiteLLM then takes the key from the variable of that name by itself.
        ("model_list: [{model_name: g, litellm_params: {model: openai/g}}]", "with OPENAI_API_KEY LiteLLM's"),
        ("environment_variables: {MISTRAL_API_KEY: x}", "with MISTRAL_API_KEY LiteLLM's pass-through routes /mistral/"),
    ],
)
def test_each_way_around_is_told(tmp_path: Path, text: str, words: str) -> None:
    (warning,) = told(tmp_path, text)
    assert words in warning


@pytest.mark.parametrize(
    "text",
    [
        "model_list: [{model_name: g, litellm_params: {model: openai/g, api_key: os.environ/MY_KEY}}]",
        "model_list: [7, {model_name: g, litellm_params: 7}, {}]\ngeneral_settings: 7",
        "model_list:\ngeneral_settings: {pass_through_endpoints: []}\nfiles_settings: []",
    ],
)
def test_a_plain_config_has_none(tmp_path: Path, text: str) -> None:
    assert told(tmp_path, text) == []


@pytest.mark.parametrize("path", ["configs/litellm.yaml", "demo/configs/litellm.yaml"])
def test_our_own_configs_open_no_way_around(path: str) -> None:
    data, source = read_yaml(ROOT / path)
    assert find_uncovered(data, source) == []
