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
_STACKS = ("exc_info", "exc_text", "stack_info")
"""Fields of a record that would write an exception with its message."""
_NOISY = ("httpx", "httpcore", "uvicorn.error")
"""Loggers that write a line for each connection at INFO."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class JsonLine(logging.Formatter):
    """Formats a record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON: time, level, logger and process, then the message or the outcome's fields."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
        }
        return json.dumps({**fields, **_message_fields(record), **_exception_fields(record)})


class TextLine(logging.Formatter):
    """Formats a record as one line of text, with no more about an exception than `JsonLine`."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text; of an exception only its type and place, behind the message in brackets."""
        # None in these fields keeps `super().format` from adding the traceback.
        bare = {"msg": _one_line(record.getMessage()), "args": (), **dict.fromkeys(_STACKS)}
        error = _exception_fields(record)
        line = super().format(logging.makeLogRecord({**vars(record), **bare}))
        return line + (f" ({error['error']} at {error['place']})" if error else "")


def _one_line(text: str) -> str:
    """Escape control characters, since ids from outside must not start a new line or move the cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _message_fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields of an outcome's record, or the message of any other record."""
    text = record.getMessage()
    if record.name.startswith("aligner_proxy.outcome"):
        return dict(json.loads(text))
    return {"message": text}


def _exception_fields(record: logging.LogRecord) -> dict[str, str]:
    """The type (`error`) and the innermost location (`place`) of a record's exception; empty without an exception."""
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    frames = traceback.extract_tb(record.exc_info[2])
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    return {"error": record.exc_info[0].__name__, "place": place}


class PrintedLines(io.TextIOBase):
    """A text stream that writes each line printed to it as a JSON line to stderr.

    Lines without a letter or digit, such as those around a banner, are left out. `name` is the logger in these lines.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._handler = make_handler("json")
        # What was printed since the last line end.
        self._rest = ""

    def write(self, text: str) -> int:
        """Write the lines that end in this text, without colours; returns the number of its characters."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            words = _COLOUR.sub("", line).strip(" #")
            if any(map(str.isalnum, words)):
                record = {"name": self._name, "levelno": logging.INFO, "levelname": "INFO", "msg": "%s"}
                self._handler.handle(logging.makeLogRecord({**record, "args": (words,)}))
        return len(text)

    def writable(self) -> bool:
        """Whether text can be written: always."""
        return True


def make_handler(form: str) -> logging.Handler:
    """Create a handler that writes lines in the format `json` or `text` to stderr, where service managers read them."""
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(JsonLine() if form == "json" else TextLine())
    return stderr


def configure_logging(form: str) -> None:
    """Log everything from INFO up except connection details; for processes that belong to this package alone."""
    logging.basicConfig(level=logging.INFO, handlers=[make_handler(form)], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def configure_own_logging(form: str) -> None:
    """Set up logging for this package's loggers only and leave LiteLLM's alone; for LiteLLM's process."""
    own_logger = logging.getLogger("aligner_proxy")
    # LiteLLM may create the guardrail, and so call this, again.
    if not any(isinstance(existing.formatter, JsonLine | TextLine) for existing in own_logger.handlers):
        own_logger.addHandler(make_handler(form))
        own_logger.setLevel(logging.INFO)
        own_logger.propagate = False  # LiteLLM's handlers would write each line once more
    if form == "json":
        unify_json_lines()


def unify_json_lines() -> None:
    """Write what the other loggers of this process say to a terminal as our JSON lines, too."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers]
    for handler in handlers:
        # another stream, such as a file, belongs to whoever opened it
        if isinstance(handler, logging.StreamHandler) and _is_standard(handler.stream):
            handler.setFormatter(JsonLine())
            if isinstance(handler.stream, PrintedLines):
                handler.setStream(sys.stderr)


def _is_standard(stream: object) -> bool:
    """Whether a stream is standard output or error, or a `PrintedLines` that replaces one of them."""
    return isinstance(stream, PrintedLines) or stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
