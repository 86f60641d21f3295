"""Routes of the gateway's own endpoints; LiteLLM's keys, limits and OpenAPI document apply to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from litellm.proxy._types import ProxyException
from pydantic import BaseModel

from aligner_proxy.engine.decisions import DecisionForm, OpenAIDecision, SystemOneDecision
from aligner_proxy.errors import CorrectionError
from aligner_proxy.formats import ALIGN, ANSWERS, DECISIONS, GENERIC_GUARDRAIL, SYSTEM_ONE, WEBHOOK
from aligner_proxy.gateway import litellm_internals, request_policy
from aligner_proxy.gateway.endpoints import adapters
from aligner_proxy.gateway.endpoints.decisions import decide
from aligner_proxy.gateway.endpoints.forms import AlignAnswer, AlignBody, align_form, parse_body
from aligner_proxy.gateway.endpoints.judgement import AnswerBatch, GatewayHooks, judge_answers
from aligner_proxy.plugins.api import Endpoint, EndpointRefusal
from aligner_proxy.plugins.registry import PluginEndpoint

log = logging.getLogger(__name__)


_TAGS = ["aligner"]
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is not in its form; the message names the field."},
    403: {"description": "The key may not ask for this."},
    413: {"description": "The body is larger than this key may send."},
    422: {"description": "The policy prefers an error to this answer (`aligner_error`); asking again does not help."},
    429: {"description": "The key's limits are reached."},
    503: {"description": "As 422, but asking again after `retry-after` seconds may help."},
}
_hooks: WeakKeyDictionary[FastAPI, GatewayHooks] = WeakKeyDictionary()
"""The current guardrail of each application; LiteLLM may create a new guardrail while the application stays."""
_plugin_endpoints: WeakKeyDictionary[Callable[..., Any], Endpoint] = WeakKeyDictionary()
"""Endpoints of plugins, by the function that FastAPI calls for them."""


def install_endpoints(hooks: GatewayHooks) -> None:
    """Serve the endpoints in the running proxy with these hooks; does nothing outside the proxy."""
    app = litellm_internals.proxy_application()
    if isinstance(app, FastAPI):
        from litellm.proxy.auth.user_api_key_auth import user_api_key_auth

        litellm_internals.admit_paths((*ANSWERS, *hooks.endpoints))
        add_endpoints(app, user_api_key_auth, hooks)


def add_endpoints(app: FastAPI, auth: Callable[..., Any], hooks: GatewayHooks) -> None:
    """Add the endpoints to an application, or only replace the hooks if they are there already.

    `auth` is the FastAPI dependency that authenticates the caller.
    """
    has_endpoints = app in _hooks
    _hooks[app] = hooks
    if not has_endpoints:
        app.include_router(_make_router(auth, align_form(hooks.pipeline.extensions)))
        app.include_router(_make_plugin_router(hooks, auth))
        app.openapi_schema = None  # FastAPI's stored document lacks the new routes


def find_endpoint(route: object) -> Endpoint | None:
    """The plugin endpoint of an application's route; None for any other route."""
    function = getattr(route, "endpoint", None)
    return None if function is None else _plugin_endpoints.get(function)


def _make_judge(request: Request, caller: Any) -> adapters.JudgeBatch:
    """Return a function that judges answers for this request, with the current guardrail of its application."""
    return partial(judge_answers, _hooks[request.app], request, caller)


def _make_router(auth: Callable[..., Any], align_body: type[AlignBody]) -> APIRouter:
    """The routes of the gateway's own endpoints.

    `auth` is the FastAPI dependency that authenticates the caller, `align_body` the body of `POST /v1/align` with the
    fields of plugins.
    """
    authenticated = Depends(auth)
    router = APIRouter(tags=list(_TAGS), responses=_ERRORS)

    @router.post(ALIGN, response_model=AlignAnswer, openapi_extra=_describe_body(align_body))
    async def align(request: Request, response: Response, caller: Any = authenticated) -> AlignAnswer:
        """Judge and correct an answer that you send, in the same way as a proxied answer."""
        body = await parse_body(request, align_body)
        result = await judge_answers(_hooks[request.app], request, caller, AnswerBatch.from_body(body))
        response.headers.update(result.headers)
        return await result.make_report()

    @router.post(GENERIC_GUARDRAIL, openapi_extra=_describe_body(adapters.GenericRequest))
    async def generic_guardrail(request: Request, caller: Any = authenticated) -> JSONResponse:
        """Guardrail for another LiteLLM proxy: `guardrail: generic_guardrail_api`, with this gateway as api_base."""
        body = await parse_body(request, adapters.GenericRequest)
        return JSONResponse(await adapters.judge_generic_guardrail(body, _make_judge(request, caller)))

    @router.post(WEBHOOK, openapi_extra=_describe_body(adapters.WebhookRequest))
    async def webhook(request: Request, caller: Any = authenticated) -> JSONResponse:
        """Webhook guardrail for agentgateway or Portkey."""
        body = await parse_body(request, adapters.WebhookRequest)
        return JSONResponse(await adapters.judge_webhook(body, _make_judge(request, caller)))

    decision_bodies: Mapping[str, type[DecisionForm]] = {DECISIONS: OpenAIDecision, SYSTEM_ONE: SystemOneDecision}
    for path, body_class in decision_bodies.items():
        name = path.rpartition("/")[2]
        function = _make_decision_function(body_class, authenticated)
        about = f"Ask questions about a text in the form of LiteLLM's `{name}` requests; each question is an objective."
        router.add_api_route(
            path, function, methods=["POST"], name=name, description=about, openapi_extra=_describe_body(body_class)
        )
    return router


def _make_decision_function(body_class: type[DecisionForm], authenticated: Any) -> Callable[..., Any]:
    """Return the function that FastAPI calls for questions in a body of this class."""

    async def answer(request: Request, caller: Any = authenticated) -> JSONResponse:
        body = await parse_body(request, body_class)
        return JSONResponse(await decide(_hooks[request.app], request, caller, body))

    return answer


def _make_plugin_router(hooks: GatewayHooks, auth: Callable[..., Any]) -> APIRouter:
    """The routes of the endpoints that plugins bring."""
    router = APIRouter(tags=list(_TAGS), responses=_ERRORS)
    for plugin_endpoint in hooks.endpoints.values():
        endpoint = plugin_endpoint.endpoint
        function = _make_plugin_function(endpoint, Depends(auth))
        _plugin_endpoints[function] = endpoint
        router.add_api_route(
            endpoint.path,
            function,
            methods=["POST"],
            name=endpoint.path.rpartition("/")[2],
            description=endpoint.about,
            status_code=endpoint.status,
            response_model=endpoint.answer,
            responses={status: {"description": text} for status, text in endpoint.errors.items()},
            openapi_extra=_describe_body(endpoint.body),
        )
    return router


def _make_plugin_function(endpoint: Endpoint, authenticated: Any) -> Callable[..., Any]:
    """Return the function that FastAPI calls for a plugin's endpoint."""

    async def answer(request: Request, caller: Any = authenticated) -> BaseModel:
        """Ask the plugin, within the limits that LiteLLM has for the caller's key."""
        body = await parse_body(request, endpoint.body)
        data = await litellm_internals.make_request_data(request, caller, {})
        async with litellm_internals.count_request(caller, data):
            # Looked up at each call, since LiteLLM may have created a new guardrail meanwhile.
            current_endpoint = _hooks[request.app].endpoints[endpoint.path]
            return await _ask_plugin(current_endpoint, body, caller)

    return answer


async def _ask_plugin(endpoint: PluginEndpoint, body: BaseModel, caller: Any) -> BaseModel:
    """Call a plugin's endpoint; raise LiteLLM's error if the plugin refuses or fails."""
    try:
        answer = await endpoint.call(body, request_policy.request_facts({}, caller))
    except CorrectionError as error:
        raise ProxyException(f"the request cannot be answered ({error.reason})", "aligner_error", None, 503) from None
    if isinstance(answer, EndpointRefusal):
        raise ProxyException(answer.message, answer.kind, answer.param, answer.status, dict(answer.headers))
    return answer


def _describe_body(body_class: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI entry of a body of this class; FastAPI makes none, because our routes parse bodies themselves."""
    schema = body_class.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {"application/json": {"schema": _inline_schema(schema, definitions)}}
    return {"requestBody": {"required": True, "content": content}}


def _inline_schema(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A part of a JSON schema with each reference (`$ref`) replaced by the definition of that name.

    In an OpenAPI document the references would not resolve.
    """
    if isinstance(schema, list):
        return [_inline_schema(entry, definitions) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _inline_schema(definitions[name], definitions)
    return {name: _inline_schema(value, definitions) for name, value in schema.items()}
