"""The comment at the end of a stream, without the id of the answer, which no test can know beforehand."""

from __future__ import annotations

import re
from typing import AnyStr

_ID = re.compile(r" id=[0-9a-f]{32}(?=\s|$)")


def without_id(comment: AnyStr) -> AnyStr:
    """The comment without its id."""
    if isinstance(comment, bytes):
        return re.sub(_ID.pattern.encode(), b"", comment)
    return _ID.sub("", comment)


def id_in(comment: str) -> str | None:
    """The id in a comment; None where it has none."""
    found = _ID.search(comment)
    return found[0].removeprefix(" id=") if found else None
