"""Log lines: one JSON object or one line of text, and never the words of an exception or of a conversation."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import aligner_proxy_fleet
import aligner_proxy_review
from aligner_proxy.cli import main
from aligner_proxy.errors import ConfigError
from aligner_proxy.observability import logs
from aligner_proxy.policy import environment

PACKAGE = Path(logs.__file__).parents[1]
DISTRIBUTIONS = (PACKAGE, Path(aligner_proxy_fleet.__file__).parent, Path(aligner_proxy_review.__file__).parent)
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
# What may hold words of a conversation, a key or a header. Bare exceptions are among them: their messages quote.
TELLING = {
    *("text", "answer", "content", "message", "messages", "body", "headers", "prompt", "question", "turns", "raw"),
    *("error", "exc", "exception", "request", "data", "exchange", "correction", "outcome", "api_key", "token", "value"),
}
SECRET = "the harbour opens at six"


def throw(error: Exception) -> None:
    """Raise it here."""
    raise error


def record(message: str, *args: object, raised: Exception | None = None) -> logging.LogRecord:
    """A record as a logger makes it."""
    info = None
    if raised is not None:
        with pytest.raises(type(raised)) as caught:
            throw(raised)
        info = (caught.type, caught.value, caught.tb)
    return logging.LogRecord("aligner_proxy.pipeline.pipeline", logging.WARNING, "f.py", 1, message, args, info)


@pytest.mark.parametrize("form", environment.LOG_FORMATS)
def test_an_exception_leaves_its_type_and_its_place(form: str) -> None:
    formatter = logs.make_handler(form).formatter
    assert formatter is not None
    said = formatter.format(record("call %s failed", "c1", raised=ValueError(SECRET)))
    assert "call c1 failed" in said
    assert "ValueError" in said
    assert "test_logs.py:" in said
    assert SECRET not in said


@given(st.text(), st.text())
def test_whatever_an_id_holds_a_line_stays_a_line(message: str, name: str) -> None:
    line = logs.JsonLine().format(record("%s: %s", name, message))
    assert json.loads(line)["message"] == f"{name}: {message}"
    assert len(line.splitlines()) == 1
    assert len(logs.TextLine().format(record("%s: %s", name, message)).splitlines()) == 1


@given(st.text(min_size=8).filter(str.isprintable))
def test_no_word_of_an_exception_appears(secret: str) -> None:
    canary = f"canary-{secret}"
    for form in (logs.JsonLine(), logs.TextLine()):
        assert canary not in form.format(record("call failed", raised=ValueError(canary)))


def test_an_outcome_becomes_fields() -> None:
    told = record(json.dumps({"event": "aligner_outcome", "ms": 3}))
    told.name = "aligner_proxy.outcome"
    line = json.loads(logs.JsonLine().format(told))
    assert (line["event"], line["ms"], line["logger"]) == ("aligner_outcome", 3, "aligner_proxy.outcome")
    assert "message" not in line


def test_our_lines_in_litellms_process_are_set_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = logging.getLogger("aligner_proxy")
    for name, kept in (("handlers", []), ("level", ours.level), ("propagate", ours.propagate)):
        monkeypatch.setattr(ours, name, kept)
    logs.configure_own_logging("json")
    logs.configure_own_logging("json")
    assert [type(one.formatter) for one in ours.handlers] == [logs.JsonLine]
    assert not ours.propagate


def test_an_unknown_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.LOG_FORMAT, "xml")
    with pytest.raises(ConfigError, match="'xml' must be one of text, json"):
        environment.log_format()
    assert CliRunner().invoke(main, ["engine", "--log", "xml"]).exit_code == 2


def calls(path: Path) -> Iterator[ast.Call]:
    """Every call of a logger in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            base = node.func.value
            if isinstance(base, ast.Name) and base.id in ("log", "logger", "logging"):
                yield node


def told(node: ast.expr) -> str:
    """What an argument of a log call says, by the name that it ends with."""
    while isinstance(node, ast.Subscript | ast.Starred | ast.FormattedValue):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return told(node.func)
    return node.id if isinstance(node, ast.Name) else ast.dump(node)


def test_no_log_call_is_given_anything_that_could_hold_text() -> None:
    seen = 0
    for path in sorted(path for folder in DISTRIBUTIONS for path in folder.rglob("*.py")):
        for call in calls(path):
            seen += 1
            place = f"{path}:{call.lineno}"
            form, *arguments = call.args[isinstance(call.func, ast.Attribute) and call.func.attr == "log" :]
            if isinstance(form, ast.Call):  # the outcome line, whose fields test_telemetry.py reads
                assert (path.name, ast.unparse(form.func)) == ("metrics.py", "json.dumps"), place
                continue
            assert isinstance(form, ast.Constant), f"{place}: the format is written out"
            assert not [k.arg for k in call.keywords if k.arg in ("exc_info", "stack_info", "extra")], place
            # The commands show an operator our own errors about the operator's own files.
            allowed = {"error"} if path.parent.name == "cli" else set()
            assert not ({told(one) for one in arguments} & TELLING) - allowed, place
    assert seen > 15


def test_what_a_library_logs_and_prints_is_json_of_the_same_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = logging.getLogger("a_library")
    printed = logs.PrintedLines("a_library")
    # as a library that logs to what it takes for the terminal
    own = io.StringIO()
    handlers = [logging.StreamHandler(stream) for stream in (printed, sys.stderr, own)]
    monkeypatch.setattr(library, "handlers", handlers)
    monkeypatch.setattr(library, "propagate", False)
    monkeypatch.setattr(logging.root, "handlers", [])
    logs.unify_json_lines()
    library.warning("port %d is open", 4000)
    print("\x1b[32mmodels: a,\x1b[0m b\n ██╗ ╚═╝\n\n# not ended", file=printed)
    print(" yet", end="", file=printed)
    assert own.getvalue() == "port 4000 is open\n", "a stream of its own stays as it is"
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["logger"], line["level"], line["message"]) for line in lines] == [
        *[("a_library", "warning", "port 4000 is open")] * 2,
        ("a_library", "info", "models: a, b"),
        ("a_library", "info", "not ended"),
    ]
