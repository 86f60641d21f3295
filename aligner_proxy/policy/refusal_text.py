"""Refusal texts of operators, sent instead of an answer that was flagged as a whole."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

from aligner_proxy.text.languages import LANGUAGES

ANY_LANGUAGE = ""
"""The key of the text for all languages without their own text; written `default` in the file."""
MAX_DECLINE_CHARS = 2_000
_DEFAULT = "default"
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


def _parse_texts(value: object) -> object:
    """Parse one text, or a block of texts by language, into pairs (language, text); raises `ValueError`."""
    if isinstance(value, str):
        return ((ANY_LANGUAGE, _check_text(value)),)
    if isinstance(value, tuple):  # already parsed
        return value
    if not isinstance(value, dict):
        raise ValueError('must be a text, or a block of texts by language: {default: "...", de: "..."}')  # noqa: TRY004
    known_languages = (_DEFAULT, *LANGUAGES)
    pairs = []
    for language, text in value.items():
        if language not in known_languages:
            raise ValueError(f"unknown language {language!r}; must be one of {', '.join(known_languages)}")
        if not isinstance(text, str):
            raise ValueError(f"the text for {language} must be a text")  # noqa: TRY004 - pydantic takes ValueError alone
        pairs.append((ANY_LANGUAGE if language == _DEFAULT else language, text))
    return tuple((language, _check_text(text)) for language, text in pairs)


def _check_text(text: str) -> str:
    """Return a stripped refusal text; raises `ValueError` if it is empty, too long or has an unknown placeholder."""
    text = text.strip()
    if not text:
        raise ValueError("is empty; write what the client is to read in place of the answer")
    if len(text) > MAX_DECLINE_CHARS:
        raise ValueError(f"has {len(text):,} characters; shorten it to at most {MAX_DECLINE_CHARS:,}")
    unknown_name = next((name for name in _PLACEHOLDER.findall(text) if name != "objective"), None)
    if unknown_name is not None:
        raise ValueError(f"has the unknown placeholder {{{unknown_name}}}; the only one is {{objective}}")
    return text


Decline = Annotated[
    tuple[tuple[str, str], ...], BeforeValidator(_parse_texts, json_schema_input_type=str | dict[str, str])
]
"""Pairs (language, text); the text for all other languages has the language `ANY_LANGUAGE`."""
