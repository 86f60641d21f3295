"""Endpoint: an address of the gateway at which a plugin answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from aligner_proxy.policy.resolver import RequestFacts
from aligner_proxy.policy.schema import PolicyFile


@dataclass(frozen=True, slots=True)
class EndpointRefusal:
    """What an endpoint answers where it does not do what it is asked: an error in LiteLLM's form."""

    status: int
    message: str
    """For the client; without texts of others."""
    param: str | None = None
    """The wrong field of the body."""
    kind: str = "invalid_request_error"
    headers: Mapping[str, str] = field(default_factory=dict)


Answering = Callable[[Any, RequestFacts], Awaitable[BaseModel | EndpointRefusal]]
"""The work of an endpoint: the answer to a body, in the endpoint's form, by a caller whom LiteLLM has let in."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint for POST in LiteLLM's application, whose keys, limits and OpenAPI document count.

    Keys of the keys file may call it as they call models.
    """

    path: str
    """Its path, which begins with `/v1/`."""
    about: str
    """Its description in the OpenAPI document."""
    body: type[BaseModel]
    """The form of its body; anything else is a 400 that names the field."""
    answer: type[BaseModel]
    make: Callable[[PolicyFile], Answering]
    """Factory, called once in each worker at its start; may raise `ConfigError`."""
    status: int = 200
    """HTTP status of an answer."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """What its refusals mean, by status, for the OpenAPI document."""
    for_reviewers: bool = False
    """Whether keys with the role of a reviewer may call it, too."""
