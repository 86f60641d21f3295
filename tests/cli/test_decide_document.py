"""docs/guides/decide.md, as it is written: its commands run in their order, on a port of the test's own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import free_port
from tests.support.command import put_command_on_path

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(300)]
DOC = Path(__file__).parents[2] / "docs" / "guides" / "decide.md"


def test_its_commands_give_probabilities(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    environment = put_command_on_path(tmp_path) | {"NO_PROXY": "*"}
    text = "".join(blocks).replace("8765", str(free_port()))
    with (tmp_path / "out").open("w") as out, (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-ec", text], cwd=tmp_path, env=environment, stdout=out, stderr=log, start_new_session=True
        )
        try:
            status = process.wait(timeout=240)
        finally:
            # the engine of the first command is in the group of the shell
            os.killpg(process.pid, signal.SIGTERM)
    assert status == 0, (tmp_path / "log").read_text()
    by_name, by_question, replies = (tmp_path / "out").read_text().split("\n", 2)
    assert float(by_name.split()[0]) > 0.95
    assert float(by_question.split()[0]) > 0.5
    decoder = json.JSONDecoder()
    openai, end = decoder.raw_decode(replies)
    assert openai["answers"][0]["probability"] > 0.95
    systemone, end = decoder.raw_decode(replies, end)
    assert systemone["answers"]["rude"]["noul"] < 0.5
    kind = json.loads(replies[end:])["answers"]["kind"]
    assert (kind["choice"], len(kind["probabilities"])) == ("sales", 2)
