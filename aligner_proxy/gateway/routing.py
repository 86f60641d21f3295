"""How a request uses LiteLLM's router: groups behind a model name, the answering group, and allowed router fields.

A client may name a model group, an alias, a deployment id or an upstream model. Routes are written for groups, so every
other name is resolved to its group. With several body fields a client could make another model answer than the one for
which the policy was chosen, or make it answer another conversation than the judged one. LiteLLM declares its fields by
purpose, and the purpose decides which are refused, so an unknown field of a newer LiteLLM is refused until it has been
reviewed. The policies file may allow single fields (`trust.router_fields`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from litellm.litellm_core_utils.get_llm_provider_logic import inferred_provider
from litellm.litellm_core_utils.hidden_params import get_hidden_params
from litellm.types import litellm_params as purposes

from aligner_proxy.errors import BadRequest
from aligner_proxy.formats.base import metadata_buckets
from aligner_proxy.gateway import duplicate_models

FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
"""Router settings and request fields that name models to use if one fails."""
MAX_FALLBACKS = 16
"""Most models that one request may name besides its own; LiteLLM itself tries at most five."""
MAX_TAGS = 128
"""Most tags of a request, each of at most `MAX_NAME_CHARS`; routes match every tag."""
MAX_NAME_CHARS = 1_000
"""Most characters of a model name or tag."""
# Purposes of LiteLLM's fields by which a client could control its router or proxy.
_ROUTING_PURPOSES = (
    purposes.DispatchOptions,
    purposes.RoutingOptions,
    purposes.DeploymentOptions,
    purposes.SpecializedRouterOptions,
    purposes.AgenticLoopOptions,
    purposes.CallState,
    purposes.AgenticLoopState,
    purposes.RouterState,
    purposes.ProxyRequestState,
    purposes.EntrypointState,
)
# Not among LiteLLM's declared fields, but LiteLLM's proxy and router read them from the body.
_UNDECLARED_FIELDS = (
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "deployment",
    "litellm_params",
    "model_group",
    "model_group_retry_policy",
    "models",
    "original_function",
    "original_generic_function",
    "router_settings_override",
    "specific_deployment",
    "user_config",
)
# Fields that every client may use; the entries of `fallbacks` are checked separately.
_HARMLESS_FIELDS = frozenset(
    {
        "allowed_openai_params",
        "caching_groups",
        "client_side_timeout",
        "disable_fallbacks",
        "fallbacks",
        "include_fallback_errors",
        "litellm_call_id",
        "max_parallel_requests",
        "num_retries",
        "plugins",
        "stream_timeout",
        "timeout",
    }
)
# Fields that `extra_body` may not contain, since it overrides the body from which policy and conversation were read.
_BODY_FIELDS = frozenset(
    {
        "conversation",
        "input",
        "instructions",
        "messages",
        "model",
        "n",
        "previous_response_id",
        "prompt",
        "stream",
        "system",
    }
)
# Fields that LiteLLM adds to the data of every request.
_ADDED_FIELDS = frozenset({"litellm_call_id", "litellm_logging_obj", "proxy_server_request", "secret_fields"})
_SETTING = "trust.router_fields"
_PATH_WITH_MODEL = re.compile(r"/(?:engines|openai/deployments)/(.+?)(?:/chat)?/completions/?\s*\Z", re.DOTALL)
"""Paths that contain the model: `/engines/MODEL/...` and `/openai/deployments/MODEL/...`."""
_MAY_NAME_MODELS = re.compile(r"[?%]|/(?:engines|deployments)/")
"""Occurs in every address that names a model; `%` may begin the code of any letter."""
TOO_MANY_FALLBACKS = f"too many models in fallbacks; at most {MAX_FALLBACKS} are allowed"


def resolve_name(model: str, team_id: str | None) -> tuple[str, tuple[str, ...]]:
    """The name to match with the policies' routes, and LiteLLM's model groups behind it, if it is not a group itself.

    `model` is the name that the client sent, perhaps an alias. If it is the id of a deployment, its group's name is
    returned instead, since nobody writes a route for an id and a pattern could match it by chance.
    """
    router = _find_router()
    if router is None or not model or _is_group(router, model):
        return model, ()
    if model not in router.model_names and router.has_model_id(model):
        return _deployment_group(router, model) or model, ()
    return _resolve_pattern(router, model, team_id)


def list_written_names(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Every model name in one request: in path, query and body, including duplicate keys of the body.

    LiteLLM uses the path's name, else the query's (chat and text completions), else the body's last one.
    """
    request = data.get("proxy_server_request")
    if not isinstance(request, Mapping):
        return ()
    body = request.get("body")
    # The parsed body has only the last of several `model` keys; the others come from duplicate_models.py.
    names: list[object] = [*_names_in_address(str(request.get("url") or ""))]
    if isinstance(body, Mapping):
        names.append(body.get("model"))
    names += duplicate_models.body_model_names.get()
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def _names_in_address(url: str) -> Iterator[str]:
    """Yield the model names in path and query of a URL."""
    if not _MAY_NAME_MODELS.search(url):  # a quick test, since most addresses name none
        return
    parts = urlsplit(url)
    match = _PATH_WITH_MODEL.search(unquote(parts.path))
    if match is not None:
        yield match[1]
    yield from (value for name, value in parse_qsl(parts.query) if name == "model")


def list_other_names(names: Iterable[str], model: str, team_id: str | None) -> tuple[str, ...]:
    """The `names` other than `model`, and the groups behind each; names that LiteLLM cannot route are left out."""
    router = _find_router()
    other_names = [name for name in names if name != model and len(name) <= MAX_NAME_CHARS]
    if router is None or not other_names:
        return ()
    resolved_names: list[str] = []
    for name in other_names:
        if router.has_model_id(name) or router.get_model_list(name, team_id=team_id):
            resolved_name, groups = resolve_name(name, team_id)
            resolved_names += [resolved_name, *groups]
    return tuple(dict.fromkeys(resolved_names))


def find_answering_group(data: Mapping[str, Any], response: object = None) -> str | None:
    """The model group that gave this response or stream item, by its id or by `data`; None if LiteLLM does not say."""
    router = _find_router()
    deployment_id = _deployment_id(response)
    if router is not None and deployment_id:
        return _deployment_group(router, deployment_id)
    return getattr(data.get("deployment"), "model_name", None)


def is_same_group(names: Sequence[str], group: str) -> bool:
    """Whether a group is one of the named models; a group's name may contain wildcards."""
    return group in names or ("*" in group and any(fnmatchcase(name, group) for name in names))


def may_switch_model(data: Mapping[str, Any]) -> bool:
    """Whether LiteLLM may switch a stream to another group if it breaks before its first words."""
    router = _find_router()
    return any(data.get(name) or getattr(router, name, None) for name in FALLBACKS)


def has_words(item: object) -> bool:
    """Whether a stream item contains words, after which LiteLLM does not switch models."""
    if isinstance(item, (bytes, str)):  # Messages
        text = item.decode(errors="replace") if isinstance(item, bytes) else item
        return "content_block_delta" in text
    choices = getattr(item, "choices", None)
    if isinstance(choices, list):  # chat and text completions
        return any(
            getattr(choice, "text", None) or getattr(getattr(choice, "delta", None), "content", None)
            for choice in choices
        )
    return str(getattr(item, "type", "")).endswith("delta")  # Responses


def _find_router() -> Any:
    """The proxy's router; None outside the proxy."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    return getattr(server, "llm_router", None)


def _is_group(router: Any, model: str) -> bool:
    """Whether this is a group's own name, and not an alias or routing group, which LiteLLM looks up first."""
    return model in router.model_names and model not in router.model_group_alias and not router.get_routing_group(model)


def _resolve_pattern(router: Any, model: str, team_id: str | None) -> tuple[str, tuple[str, ...]]:
    """The name and the groups behind it; if one is a wildcard such as `openai/*`, only the name that it expands to."""
    deployments = router.get_model_list(model_name=model, team_id=team_id)
    if not deployments:
        deployments = router._get_deployment_by_litellm_model(model)
    groups = tuple(dict.fromkeys(_list_groups(router, deployments)))
    patterns = [group for group in groups if "*" in group]
    if patterns:
        return _expand_wildcard(router, model, patterns[0]), ()
    return model, tuple(group for group in groups if group != model)


def _list_groups(router: Any, deployments: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the group of each deployment.

    It is looked up by id, since LiteLLM names a deployment that was found by an alias after the alias.
    """
    for deployment in deployments:
        deployment_id = (deployment.get("model_info") or {}).get("id")
        group = _deployment_group(router, str(deployment_id))
        if group is not None:
            yield group


def _deployment_group(router: Any, deployment_id: str) -> str | None:
    """The name of a deployment's group, as its team knows it if it belongs to one team; None if the id is unknown."""
    deployment = router.get_model_info(deployment_id)
    if not isinstance(deployment, Mapping):
        return None
    team_name = (deployment.get("model_info") or {}).get("team_public_model_name")
    return str(team_name or deployment["model_name"])


def _expand_wildcard(router: Any, model: str, pattern: str) -> str:
    """The model that a name means to a group with a wildcard: for `openai/*`, `gpt-4o` is `openai/gpt-4o`.

    Like LiteLLM, this also tries the name with its provider in front, and ignores text after the end of the pattern.
    """
    # LiteLLM's own object does the work; its class is not imported, since releases have it in different modules.
    pattern_router = router.pattern_router
    expression = pattern_router.pattern_to_regex(pattern)
    for name in (model, f"{inferred_provider(model)}/{model}"):
        match = re.match(expression, name)
        if match is not None:
            return str(pattern_router.set_deployment_model_name(match, pattern))
    return model


def _deployment_id(response: object) -> str | None:
    """The deployment id that LiteLLM stores with a response, and with stream items after another model took over."""
    hidden = get_hidden_params(response)
    deployment = hidden.get("model_id") if hidden else None
    return deployment if isinstance(deployment, str) else None


class RouterFieldRefused(BadRequest):
    """The body contains router settings that clients may not use."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.param = field


def check_router_fields(data: Mapping[str, Any], allowed_fields: Collection[str]) -> None:
    """Raise `RouterFieldRefused` for a body with router fields that are neither harmless nor in `allowed_fields`."""
    body = _client_body(data)
    _check_sizes(data)
    for name in sorted(list_router_fields().intersection(body).difference(allowed_fields)):
        if body[name] is not None:
            raise RouterFieldRefused(
                name, f"{name} is not accepted from clients; the operator may add it to {_SETTING}"
            )
    if any(str(name).startswith("_") and name not in allowed_fields for name in body):
        raise RouterFieldRefused("body", "fields that begin with _ are LiteLLM's own and are not accepted from clients")
    extra_body = body.get("extra_body")
    if isinstance(extra_body, Mapping):
        refused_fields = (_BODY_FIELDS | list_router_fields()).intersection(extra_body).difference(allowed_fields)
        if refused_fields:
            raise RouterFieldRefused(
                "extra_body", f"extra_body may not contain {min(refused_fields)}; send it as a field of the body"
            )
    for name in FALLBACKS:
        if name in body:
            _check_fallbacks(name, body[name], allows_settings=name in allowed_fields)


def _check_sizes(data: Mapping[str, Any]) -> None:
    """Raise `RouterFieldRefused` for so many tags or so long names that matching them with routes would take long."""
    if len(str(data.get("model") or "")) > MAX_NAME_CHARS:
        raise RouterFieldRefused("model", f"the model's name is longer than {MAX_NAME_CHARS:,} characters")
    for request_metadata in metadata_buckets(data):
        tags = request_metadata.get("tags")
        if isinstance(tags, list) and (len(tags) > MAX_TAGS or any(len(str(tag)) > MAX_NAME_CHARS for tag in tags)):
            raise RouterFieldRefused("tags", f"at most {MAX_TAGS} tags of {MAX_NAME_CHARS:,} characters are read")


@cache
def list_router_fields() -> frozenset[str]:
    """The fields that control LiteLLM's router, except harmless ones such as timeouts and retries."""
    from litellm.router import Router  # importing it takes seconds, except inside the proxy

    declared = (name for purpose in _ROUTING_PURPOSES for name in purposes.wire_names(purpose))
    return frozenset((*declared, *Router.get_valid_args(), *_UNDECLARED_FIELDS)) - _HARMLESS_FIELDS


def list_fallback_models(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The fallback models that the request names, at most as many as `check_router_fields` permits."""
    body = _client_body(data)
    names = (str(name) for field in FALLBACKS if field in body for name in _list_named_models(body[field]))
    most_names = len(FALLBACKS) * 2 * MAX_FALLBACKS
    return tuple(dict.fromkeys(islice(names, most_names)))


def _client_body(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body as the client sent it, to which LiteLLM adds fields of the operator in `data`."""
    request = data.get("proxy_server_request")
    body = request.get("body") if isinstance(request, Mapping) else None
    if isinstance(body, Mapping):
        return body
    return {name: value for name, value in data.items() if name not in _ADDED_FIELDS}


def _check_fallbacks(field: str, value: object, *, allows_settings: bool) -> None:
    """Raise `RouterFieldRefused` for fallbacks that are not a list of names, or are too many.

    The count is checked before any single entry. With `allows_settings`, entries may do more than name models.
    """
    if value is None:
        return
    if not isinstance(value, list):
        raise RouterFieldRefused(field, f"{field} must be a list of model names")
    if has_too_many_fallbacks(value):
        raise RouterFieldRefused(field, TOO_MANY_FALLBACKS)
    if not allows_settings and not all(map(_names_models_only, value)):
        raise RouterFieldRefused(field, f"an entry of {field} may only name models; other settings need {_SETTING}")
    if any(len(str(name)) > MAX_NAME_CHARS for name in _list_named_models(value)):
        raise RouterFieldRefused(field, f"a name in {field} is longer than {MAX_NAME_CHARS:,} characters")


def has_too_many_fallbacks(fallbacks: object) -> bool:
    """Whether there are more than `MAX_FALLBACKS` fallbacks, nested ones included; stops counting at the limit."""
    uncounted_lists = [fallbacks] if isinstance(fallbacks, list) else []
    count = 0
    while uncounted_lists:
        entries = uncounted_lists.pop()
        count += len(entries)
        if count > MAX_FALLBACKS:
            return True
        for entry in entries:
            if isinstance(entry, Mapping):
                uncounted_lists += _list_nested_lists(entry)
    return False


def _list_nested_lists(entry: Mapping[str, Any]) -> list[list[Any]]:
    """The lists that LiteLLM reads in an entry of fallbacks: all or, if it has a `model`, those in fallback fields."""
    if isinstance(entry.get("model"), str):
        values = [entry.get(field) for field in FALLBACKS]
    else:
        values = list(islice(entry.values(), MAX_FALLBACKS))
    return [value for value in values if isinstance(value, list)]


def _names_models_only(entry: object) -> bool:
    """Whether an entry of fallbacks only names models: "b", {"model": "b"} or {"a": ["b", "c"]}."""
    if isinstance(entry, str):
        return True
    if not isinstance(entry, Mapping) or len(entry) != 1:
        return False
    key, value = next(iter(entry.items()))
    if isinstance(value, list):
        return all(isinstance(name, str) for name in value)
    return key == "model" and isinstance(value, str)


def _list_named_models(value: object) -> Iterator[object]:
    """Yield the models in a list of fallbacks: plain entries and, of objects, `model` and every list of names."""
    if not isinstance(value, list):
        return
    for entry in value:
        if not isinstance(entry, Mapping):
            yield entry
            continue
        model = entry.get("model")
        if model is not None and not isinstance(model, list):
            yield model
        for names in islice(entry.values(), MAX_FALLBACKS):
            if isinstance(names, list):
                yield from names
