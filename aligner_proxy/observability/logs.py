"""How does a line of the log look? Text for people, or one JSON object for programs. Never a word of a conversation.

An exception leaves its type and the place where it was raised; what it says may quote the answer. The records of
`aligner_proxy.outcome` are JSON already and become fields of the line.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_STACKS = ("exc_info", "exc_text", "stack_info")
_NOISY = ("httpx", "httpcore", "uvicorn.error")


class JsonLine(logging.Formatter):
    """One record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
        }
        return json.dumps({**said, **_message(record), **_raised(record)})


class TextLine(logging.Formatter):
    """One record as one line; of an exception no more than `JsonLine` tells."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        bare = {"msg": _one_line(record.getMessage()), "args": (), **dict.fromkeys(_STACKS)}
        told = _raised(record)
        line = super().format(logging.makeLogRecord({**vars(record), **bare}))
        return line + (f" ({told['error']} at {told['place']})" if told else "")


def _one_line(text: str) -> str:
    """Ids come from outside too: none of them may begin a line of its own or move a terminal's cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _message(record: logging.LogRecord) -> dict[str, object]:
    text = record.getMessage()
    if record.name.startswith("aligner_proxy.outcome"):
        return dict(json.loads(text))
    return {"message": text}


def _raised(record: logging.LogRecord) -> dict[str, str]:
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    frames = traceback.extract_tb(record.exc_info[2])
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    return {"error": record.exc_info[0].__name__, "place": place}


def handler(form: str) -> logging.Handler:
    """Lines of one form on stderr, as a service manager expects them."""
    made = logging.StreamHandler(sys.stderr)
    made.setFormatter(JsonLine() if form == "json" else TextLine())
    return made


def to_stderr(form: str) -> None:
    """For a process that is ours: everything from INFO on, without the chatter of connections."""
    logging.basicConfig(level=logging.INFO, handlers=[handler(form)], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def ours_to_stderr(form: str) -> None:
    """For a process that is LiteLLM's: our own lines only, however its own are set up."""
    ours = logging.getLogger("aligner_proxy")
    if not any(isinstance(one.formatter, JsonLine | TextLine) for one in ours.handlers):
        ours.addHandler(handler(form))
        ours.setLevel(logging.INFO)
        ours.propagate = False
