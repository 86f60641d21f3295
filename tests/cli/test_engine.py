"""`engine`: what it refuses before anything slow begins. Serving itself is tested in tests/engine/test_process.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from aligner_proxy.cli import main
from aligner_proxy.engine import sockets


@pytest.fixture(autouse=True)
def signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets handlers for its own process; this one keeps its own."""
    monkeypatch.setattr("aligner_proxy.cli.engine.signal.signal", lambda *_: None)
    monkeypatch.setattr("aligner_proxy.cli.engine.log_to_stderr", lambda form: None)


def test_a_socket_and_a_port_together_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["engine", "--socket", str(tmp_path / "e.sock"), "--port", "0"])
    assert result.exit_code == 2
    assert "give --socket or --port, not both" in result.stderr


def test_a_socket_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.sock"
    with sockets.listen_on_unix_socket(path):
        result = CliRunner().invoke(main, ["engine", "--socket", str(path)])
    assert result.exit_code == 2
    assert "is in use by a running engine" in result.stderr


def test_a_socket_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["engine", "--socket", str(tmp_path / ("x" * 200))])
    assert result.exit_code == 2
    assert "cannot listen on" in result.stderr
