"""What is set before torch is imported, seen in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aligner_proxy.cli import main
from aligner_proxy.cli.options import refuse_absent_weights
from aligner_proxy.errors import ConfigError


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_engine_does_not_load_torchs_compiler() -> None:
    program = """
import sys
from aligner_proxy.cli.options import prepare_for_torch
prepare_for_torch()
import aligner_proxy.engine.loader
import bitsandbytes
assert bitsandbytes.nn.Linear4bit
print("torch._inductor.compile_fx" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.timeout(120)
def test_what_the_library_keeps_of_shapes_is_bounded_and_a_user_s_own_bound_stands() -> None:
    """Read by the library itself when it first multiplies; the soak tells whether memory stays."""
    program = """
import importlib
import json
import os
from aligner_proxy.cli.options import prepare_for_torch
prepare_for_torch()
print(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], os.environ["LRU_CACHE_CAPACITY"])
"""
    given = {**os.environ, "LRU_CACHE_CAPACITY": "9"}
    given.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=given)
    assert done.stdout.split() == ["256", "9"]


def test_every_command_takes_the_prices_that_litellm_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "LITELLM_LOCAL_MODEL_COST_MAP"
    at_import: list[str | None] = []
    import_module = importlib.import_module

    def note_and_import(module: str) -> Any:
        at_import.append(os.environ.get(name))
        return import_module(module)

    monkeypatch.setattr(importlib, "import_module", note_and_import)
    for before, after in ((None, "True"), ("False", "False")):
        monkeypatch.delenv(name, raising=False)
        if before is not None:
            monkeypatch.setenv(name, before)
        CliRunner().invoke(main, ["check", "nowhere.yaml"])
        # some commands import LiteLLM when they are imported
        assert at_import[-1] == os.environ[name] == after
    assert name in CliRunner().invoke(main, ["--help"]).stdout
    monkeypatch.undo()


@pytest.mark.slow
def test_commands_load_no_library_that_they_do_not_need(tmp_path: Path) -> None:
    """LiteLLM and torch take seconds each; here is seen what the commands load, not how long they take."""
    program = """
import importlib, json, sys
from click.testing import CliRunner
from aligner_proxy import cli
HEAVY = ("litellm", "torch", "transformers", "fastapi")
loaded = {}
def note(step):
    loaded[step] = [name for name in HEAVY if name in sys.modules]
CliRunner().invoke(cli.main, ["--help"], catch_exceptions=False)
loaded["help"] = [name for name in (*HEAVY, "pydantic", "rich", "yaml", "httpx") if name in sys.modules]
for name in cli.all_commands():
    importlib.import_module(cli.all_commands()[name].module)
    note(name)
done = CliRunner().invoke(cli.main, ["init", "gateway"], catch_exceptions=False)
assert done.exit_code == 0, done.output
done = CliRunner().invoke(cli.main, ["check", "gateway/litellm.yaml", "--model", "gpt-4o-mini"], catch_exceptions=False)
assert done.exit_code == 0, done.output
note("check of a new gateway")
print(json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert len(loaded) > 12
    assert {step: names for step, names in loaded.items() if names} == {}


def test_options_that_were_not_given_do_not_count_for_a_file_that_asks_for_commits(tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("aligner:\n  require_revision: true\n")
    absent: dict[str, Any] = dict.fromkeys(("model", "adapters", "judges", "template"))
    refuse_absent_weights(absent, file)
    with pytest.raises(ConfigError, match="names no commit"):
        refuse_absent_weights(absent | {"model": "somebody/aligner"}, file)
