"""Schema of `hand_off`, the webhook for reports of doubtful answers; metadata and requests cannot set it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from aligner_proxy.policy.yaml_file import Block
from aligner_proxy.web_address import is_web_address

_FORM = "must be an address such as https://desk.example/doubts"


def _check_url(url: str) -> str:
    """Return the URL of a webhook; raises `ValueError` if it is no web address, or has a password or a fragment."""
    if not is_web_address(url):
        raise ValueError(_FORM)
    parts = urlsplit(url)
    if parts.username or parts.password or parts.fragment:
        raise ValueError(f"{_FORM}, without user, password and fragment: reports are signed instead (secret_env)")
    return url


class HandOffBlock(Block):
    """A webhook for reports of doubtful answers."""

    url: Annotated[str, Field(max_length=2000), AfterValidator(_check_url)]
    """Address to which reports are posted; redirects are not followed."""
    secret_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Environment variable with the secret that signs reports (HMAC-SHA256), at least 16 characters."""
    within: Annotated[float, Field(gt=0, le=50, strict=True, allow_inf_nan=False)] = 0.5
    """An answer is doubtful if the score of a segment was within this many nats of the threshold, on either side."""
    text: Annotated[bool, Field(strict=True)] = False
    """true: a report contains question, answer and edited answer, except for answers that may not be stored."""
