"""Endpoints as a plugin brings them: they say a word back."""

from __future__ import annotations

import types
from dataclasses import replace

import httpx
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict
from starlette.routing import BaseRoute

from aligner_proxy.gateway.endpoints import routes
from aligner_proxy.plugins.api import Endpoint, EndpointRefusal
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.plugins.registry import PluginEndpoint
from aligner_proxy.policy.request_facts import RequestFacts


class Word(BaseModel):
    model_config = ConfigDict(extra="forbid")

    word: str


class Echo(BaseModel):
    word: str
    tenant: str


async def echo(body: Word, caller: RequestFacts) -> BaseModel | EndpointRefusal:
    """The word with its tenant; `rude` is refused, `odd` gives no answer, and `broken` is a fault."""
    if body.word == "broken":
        raise ValueError("a secret")
    if body.word == "odd":
        return body
    if body.word == "rude":
        return EndpointRefusal(429, "say it later", "word", "rate_limit_error", {"retry-after": "7"})
    return Echo(word=body.word, tenant=caller.namespace)


WORD = Endpoint("/v1/word", "Say a word back.", Word, Echo, lambda _: echo, 201, {409: "There are no words."})
OPEN_WORD = replace(WORD, path="/v1/open/word", for_reviewers=True)


def served(*endpoints: Endpoint) -> dict[str, PluginEndpoint]:
    """The endpoints as a gateway has them."""
    return {endpoint.path: PluginEndpoint(endpoint, echo) for endpoint in endpoints}


async def route_of(endpoint: Endpoint) -> BaseRoute:
    """The route with which FastAPI dispatches a request to an endpoint."""
    dispatched: list[BaseRoute] = []

    def note_route(request: Request) -> None:
        dispatched.append(request.scope["route"])
        raise HTTPException(401)

    app = FastAPI()
    hooks = types.SimpleNamespace(endpoints=served(endpoint), pipeline=types.SimpleNamespace(extensions=Extensions()))
    routes.add_endpoints(app, note_route, hooks)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as http:
        await http.post(endpoint.path)
    return dispatched[0]
