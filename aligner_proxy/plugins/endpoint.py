"""Endpoint: a path of the gateway that a plugin serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.schema import PolicyFile


@dataclass(frozen=True, slots=True)
class EndpointRefusal:
    """An endpoint's refusal of a request: an error in LiteLLM's format."""

    status: int
    message: str
    """Message for the client; must not contain texts of others."""
    param: str | None = None
    """The invalid field of the body; None if no field is to blame."""
    kind: str = "invalid_request_error"
    """The type of the error in LiteLLM's format."""
    headers: Mapping[str, str] = field(default_factory=dict)


Answering = Callable[[Any, RequestFacts], Awaitable[BaseModel | EndpointRefusal]]
"""Answers a request body, parsed as `Endpoint.body`, from a caller that LiteLLM has authorised."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A POST endpoint in LiteLLM's application, which applies its keys and limits and lists it in its OpenAPI document.

    Keys of the keys file may call it as they call models.
    """

    path: str
    """Its path, which begins with `/v1/`."""
    about: str
    """Its description in the OpenAPI document."""
    body: type[BaseModel]
    """Model of its body; an invalid body gets a 400 that names the field."""
    answer: type[BaseModel]
    """Model of its answers."""
    make: Callable[[PolicyFile], Answering]
    """Factory, called once in each worker at its start; may raise `ConfigError`."""
    status: int = 200
    """HTTP status of a successful answer."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Meaning of its refusals by status, for the OpenAPI document."""
    for_reviewers: bool = False
    """Whether keys with the reviewer role may call it, too."""
