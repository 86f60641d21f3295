"""What a LiteLLM YAML needs from its surroundings: variables, and somebody who knows its keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.policy import litellm_config
from aligner_proxy.policy.yaml_file import read_yaml


def test_variables_that_nobody_set_are_named_with_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE_KEY", "k")
    (tmp_path / ".env").write_text("DOTTED_KEY=k\n")
    file = tmp_path / "litellm.yaml"
    names = ("HERE_KEY", "DOTTED_KEY", "WRITTEN_KEY", "EMPTY_KEY", "GONE_KEY")
    models = "".join(f"  - {{model_name: m, litellm_params: {{api_key: os.environ/{name}}}}}\n" for name in names)
    file.write_text(f"environment_variables: {{WRITTEN_KEY: k}}\nmodel_list:\n{models}")
    monkeypatch.setenv("EMPTY_KEY", "")
    warnings = litellm_config.find_unset_variables(*read_yaml(file))
    assert warnings == [
        f"{file.name}:{line}: the variable {name} is not set; export it before the gateway starts"
        for line, name in ((6, "EMPTY_KEY"), (7, "GONE_KEY"))
    ]


def test_keys_are_checked_here_where_nothing_else_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    known = [
        {"custom_auth": "mine.auth"},
        {"database_url": "postgres://somewhere"},
        {"enable_jwt_auth": True},
        {"dangerously_permit_weak_or_unset_master_key": True},
    ]
    assert [settings for settings in known if litellm_config.needs_key_check({"general_settings": settings})] == []
    assert not litellm_config.needs_key_check({"include": ["more.yaml"]})
    assert litellm_config.needs_key_check({"general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"}})
    assert litellm_config.needs_key_check({})
    monkeypatch.setenv("DATABASE_URL", "postgres://somewhere")
    assert not litellm_config.needs_key_check({})
