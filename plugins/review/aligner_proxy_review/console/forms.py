"""Reader of forms from a browser, which are limited in size and come only from our own pages."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, Request

MAX_BYTES = 1 << 20
"""Largest body of a form."""
_MAX_FIELDS = 20
"""A limit above the number of fields of any of our forms."""
_URLENCODED = "application/x-www-form-urlencoded"
TOKEN = "token"
"""Name of the field with the session's token."""


class PageError(Exception):
    """A page cannot be shown; has an HTTP status, and a message for the viewer that contains no untrusted text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


NOT_FOUND = "There is no such page, or it is not yours to see."


async def read_fields(request: Request) -> dict[str, str]:
    """Return the fields of a form by name; raises `PageError` if it is too large, damaged or from another site."""
    refuse_foreign(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _URLENCODED:
        raise PageError(415, "This request is not a form of the console.")
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MAX_BYTES:
                raise PageError(413, "This is too long; send less than a megabyte.")
    except ClientDisconnect:
        raise PageError(400, "The form was cut off.") from None
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise PageError(400, "The form is damaged.") from None
    return {name: value.replace("\r\n", "\n") for name, value in pairs}


def refuse_foreign(request: Request) -> None:
    """Raise `PageError` if the browser's headers show that the form came from another site."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    # a missing header proves nothing, since older browsers send neither
    is_ours = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if site not in (None, "same-origin") or not is_ours:
        raise PageError(403, "This form is not from a page of this console.")
