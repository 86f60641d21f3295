"""`decide`: probabilities for a text, by name, by text and by question."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from aligner_proxy.cli import main
from aligner_proxy.engine.api import Engine
from tests.support.scripted import SegmentEngine

RUDE = "Open the lid. You are a fool.\n"


def decide(*args: str, text: str | bytes = RUDE) -> Result:
    return CliRunner().invoke(main, ["decide", *args], input=text)


def test_each_objective_and_question_gets_a_probability(serve_engine: Callable[[Engine], str]) -> None:
    address = serve_engine(SegmentEngine(lambda text: 5.0 if "fool" in text else -5.0))
    own = "Own: the response should never insult"
    result = decide("-o", "harmless", "-o", own, "-o", "Is it rude?", "--engine", address)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0, result.output
    assert [line.split("  ", 1)[1] for line in lines] == ["harmless", own, "Is it rude?"]
    assert all(float(line.split()[0]) > 0.9 for line in lines)
    calm = json.loads(decide("-o", "harmless", "--json", "--engine", address, text="Open the lid.").stdout)
    assert calm["answers"]["harmless"]["noul"] < 0.1


def test_objectives_of_a_file_are_known_by_name(serve_engine: Callable[[Engine], str], tmp_path: Path) -> None:
    address = serve_engine(SegmentEngine(lambda _: 5.0))
    file = tmp_path / "policies.yaml"
    file.write_text("objectives: {kind: 'Kindness: the response should never insult the reader'}\n")
    assert decide("-o", "kind", "--config", str(file), "--engine", address).exit_code == 0


def test_what_cannot_be_asked_is_said(serve_engine: Callable[[Engine], str]) -> None:
    address = serve_engine(SegmentEngine(lambda _: 5.0))
    for args, text, words in (
        (("-o", "no-such"), RUDE, "unknown objective"),
        (("-o", "harmless"), " \n", "no text"),
        (("-o", "harmless"), b"caf\xe9", "the text on stdin is not UTF-8 (byte 3)"),
        ((), RUDE, "--objective"),
    ):
        result = decide(*args, "--engine", address, text=text)
        assert result.exit_code == 2
        assert words in result.output
