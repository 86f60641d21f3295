"""Log formats: text for people, or one JSON object per line for programs; never conversation text.

An exception is logged with its type and location but without its message, which may quote the answer. Records of the
logger `aligner_proxy.outcome` are JSON already and become fields of the line.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_STACK_FIELDS = ("exc_info", "exc_text", "stack_info")
"""Fields of a record that would write an exception with its message."""
_NOISY_LOGGERS = ("httpx", "httpcore", "uvicorn.error")
"""Loggers that write a line for each connection at INFO."""
_COLOUR_CODE = re.compile(r"\x1b\[[0-9;]*m")


class JsonLine(logging.Formatter):
    """Formats a record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON: time, level, logger and process, then the message or the outcome's fields."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
        }
        text = record.getMessage()
        fields |= json.loads(text) if record.name.startswith("aligner_proxy.outcome") else {"message": text}
        return json.dumps(fields | _exception_fields(record))


class TextLine(logging.Formatter):
    """Formats a record as one line of text, with no more about an exception than `JsonLine`."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text; an exception is added in brackets, only with its type and place."""
        # None in these fields keeps `super().format` from adding the traceback.
        no_stack = dict.fromkeys(_STACK_FIELDS)
        new_fields = {"msg": _escape_controls(record.getMessage()), "args": (), **no_stack}
        line = super().format(logging.makeLogRecord({**vars(record), **new_fields}))
        error = _exception_fields(record)
        if error:
            line += f" ({error['error']} at {error['place']})"
        return line


def _escape_controls(text: str) -> str:
    """Escape control characters, since ids from outside must not start a new line or move the cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _exception_fields(record: logging.LogRecord) -> dict[str, str]:
    """The type (`error`) and the innermost location (`place`) of a record's exception; empty without an exception."""
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    frames = traceback.extract_tb(record.exc_info[2])
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    return {"error": record.exc_info[0].__name__, "place": place}


class PrintedLines(io.TextIOBase):
    """A text stream that writes each line printed to it as a JSON line to stderr. Lines without a letter or digit, such
    as those around a banner, are left out. `name` is the logger in these lines.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._handler = make_handler("json")
        self._unfinished_line = ""
        """What was printed since the last end of a line."""

    def write(self, text: str) -> int:
        """Write the lines that end in this text, without colours; returns the number of its characters."""
        *lines, self._unfinished_line = (self._unfinished_line + text).split("\n")
        for line in lines:
            message = _COLOUR_CODE.sub("", line).strip(" #")
            if any(map(str.isalnum, message)):
                fields = {"name": self._name, "levelno": logging.INFO, "levelname": "INFO", "msg": "%s"}
                self._handler.handle(logging.makeLogRecord({**fields, "args": (message,)}))
        return len(text)

    def writable(self) -> bool:
        """Whether text can be written: always."""
        return True


def make_handler(line_format: str) -> logging.Handler:
    """Create a handler that writes lines in the format `json` or `text` to stderr, where service managers read them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine() if line_format == "json" else TextLine())
    return handler


def configure_logging(line_format: str) -> None:
    """Log from INFO up, without connection details, as `json` or `text`, where only this package logs."""
    logging.basicConfig(level=logging.INFO, handlers=[make_handler(line_format)], force=True)
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def configure_own_logging(line_format: str) -> None:
    """Set up logging, as `json` or `text`, in LiteLLM's process: for this package's loggers and, if `json`, for all."""
    own_logger = logging.getLogger("aligner_proxy")
    # LiteLLM may create the guardrail again, which calls this again.
    if not any(isinstance(handler.formatter, JsonLine | TextLine) for handler in own_logger.handlers):
        own_logger.addHandler(make_handler(line_format))
        own_logger.setLevel(logging.INFO)
        own_logger.propagate = False  # LiteLLM's handlers would write each line once more
    if line_format == "json":
        unify_json_lines()


def unify_json_lines() -> None:
    """Make all loggers of this process that write to standard output or error write our JSON lines."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers]
    for handler in handlers:
        # Another stream, such as a file, belongs to whoever opened it.
        if isinstance(handler, logging.StreamHandler) and _is_standard(handler.stream):
            handler.setFormatter(JsonLine())
            if isinstance(handler.stream, PrintedLines):  # would wrap each JSON line in another
                handler.setStream(sys.stderr)


def _is_standard(stream: object) -> bool:
    """Whether a stream is standard output or error, or a `PrintedLines` that replaces one of them."""
    return isinstance(stream, PrintedLines) or stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
