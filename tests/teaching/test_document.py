"""docs/guides/teach.md, as it is written: its files are written, its commands run in one folder in their order."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.command import put_command_on_path

pytestmark = [pytest.mark.model, pytest.mark.long, pytest.mark.timeout(900)]

DOC = Path(__file__).parents[2] / "docs" / "guides" / "teach.md"
BLOCK = re.compile(r"^```(yaml|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"^# (\S+\.yaml)\n")


def test_an_objective_is_taught_in_five_commands(tmp_path: Path) -> None:
    environment = put_command_on_path(tmp_path) | {"COLUMNS": "250"}
    printed = []
    for kind, text in BLOCK.findall(DOC.read_text(encoding="utf-8")):
        name = NAME.match(text)
        if kind == "yaml" and name:
            (tmp_path / name[1]).write_text(text)
        elif kind == "sh":
            done = subprocess.run(
                ["bash", "-ec", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            printed.append(done.stdout)
    check, dry_run, taught, aligned, checked, taken_back = printed
    assert "it has examples and is not taught" in check
    assert "would be taught no-feelings from 6 examples and 2 that are fine" in dry_run
    assert "taught no-feelings from 6 examples" in taught
    assert "corrected" in aligned
    assert re.search(r"no-feelings[ │]+default[ │]+taught ", checked)
    assert "no-feelings (taught)" in checked
    assert "there is no earlier head" in taken_back
    assert "heads forgotten" in taken_back
