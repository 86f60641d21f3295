"""LiteLLM's router in a request: the model groups behind a name, which group answered, and what clients may say to it.

A client may name a model group, an alias, a deployment's id or its upstream model. Routes are written for groups, so
every other name is taken back to them. Several fields of a body let another model answer than the one that the policy
was chosen for, or another conversation be answered than the one that is judged. LiteLLM declares its own fields by
purpose, and the purpose decides, so that a field of a newer LiteLLM is refused until somebody has looked at it. The
policies file may open single ones (`trust.router_fields`).
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
from litellm.router_utils.pattern_match_deployments import PatternMatchRouter
from litellm.types import litellm_params as purposes

from aligner_proxy.errors import BadRequest
from aligner_proxy.formats.base import metadata_buckets
from aligner_proxy.gateway import doubled_models

FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
"""Settings of the router, and fields of a request, that name models to answer in place of one that fails."""
MAX_FALLBACKS = 16
"""Models that one request may name besides its own; LiteLLM itself tries no more than five."""
MAX_TAGS = 128
MAX_NAME_CHARS = 1_000
_DIRECTING = (
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
# Not among LiteLLM's declared fields, but read from the body by its proxy and router.
_UNDECLARED = (
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
_HARMLESS = frozenset(
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
# What `extra_body` may not say: it goes over the body from which policy and judged conversation were read.
_OF_THE_BODY = frozenset(
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
# What LiteLLM adds to the data of every request.
_ADDED = frozenset({"litellm_call_id", "litellm_logging_obj", "proxy_server_request", "secret_fields"})
_SETTING = "trust.router_fields"
_IN_PATH = re.compile(r"/(?:engines|openai/deployments)/(.+?)(?:/chat)?/completions/?\s*\Z", re.DOTALL)
TOO_MANY = f"too many models in fallbacks; at most {MAX_FALLBACKS} are allowed"


def named(model: str, team_id: str | None) -> tuple[str, tuple[str, ...]]:
    """The name to match routes with, and the groups behind it where it is another name of theirs.

    An id gives the group alone: nobody writes a route for it, and a glob could fit it by chance.
    """
    router = _router()
    if router is None or not model or _is_group(router, model):
        return model, ()
    if model not in router.model_names and router.has_model_id(model):
        return _group_of(router, model) or model, ()
    return _by_pattern_or_alias(router, model, team_id)


def written(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Every name of a model that a client wrote into one request: in path, query and body, there even twice.

    LiteLLM answers by that of the path, else of the query (chat and text completions), else by the body's last one.
    """
    request = data.get("proxy_server_request")
    if not isinstance(request, Mapping):
        return ()
    body = request.get("body")
    in_body = (body.get("model"),) if isinstance(body, Mapping) else ()
    names = (*_in_address(str(request.get("url") or "")), *in_body, *doubled_models.names.get())
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def _in_address(url: str) -> Iterator[str]:
    if "?" not in url and "/completions" not in url:
        return
    parts = urlsplit(url)
    match = _IN_PATH.search(unquote(parts.path))
    if match is not None:
        yield match[1]
    yield from (value for name, value in parse_qsl(parts.query) if name == "model")


def further_names(names: Iterable[str], model: str, team_id: str | None) -> tuple[str, ...]:
    """What else a request wrote as its model, besides the one that LiteLLM routes by, with the groups behind it.

    A name that LiteLLM could not answer by says nothing.
    """
    router = _router()
    others = [name for name in names if name != model and len(name) <= MAX_NAME_CHARS] if router is not None else ()
    known = (name for name in others if router.has_model_id(name) or router.get_model_list(name, team_id=team_id))
    further = ((name, *groups) for name, groups in (named(name, team_id) for name in known))
    return tuple(dict.fromkeys(name for of_one in further for name in of_one))


def answered(data: Mapping[str, Any], response: object = None) -> str | None:
    """The model group whose deployment gave this response, or this item of a stream; None if LiteLLM does not say."""
    router = _router()
    deployment = _deployment_id(response)
    if router is not None and deployment:
        return _group_of(router, deployment)
    return getattr(data.get("deployment"), "model_name", None)


def same(names: Sequence[str], group: str) -> bool:
    """Whether a group is one of the models with these names; the name of a group may hold wildcards."""
    return group in names or ("*" in group and any(fnmatchcase(name, group) for name in names))


def may_change(data: Mapping[str, Any]) -> bool:
    """Whether LiteLLM may let another group go on with a stream that broke before its first words."""
    router = _router()
    return any(data.get(name) or getattr(router, name, None) for name in FALLBACKS)


def settled(item: object) -> bool:
    """Whether an item of a stream brings words, after which LiteLLM lets no other model take over."""
    if isinstance(item, (bytes, str)):
        return "content_block_delta" in (item.decode(errors="replace") if isinstance(item, bytes) else item)
    choices = getattr(item, "choices", None)
    if isinstance(choices, list):
        return any(getattr(c, "text", None) or getattr(getattr(c, "delta", None), "content", None) for c in choices)
    return str(getattr(item, "type", "")).endswith("delta")


def _router() -> Any:
    """The proxy's router; None outside the proxy."""
    server = sys.modules.get("litellm.proxy.proxy_server")
    return getattr(server, "llm_router", None)


def _is_group(router: Any, model: str) -> bool:
    """Whether this is the name of a group itself; LiteLLM looks for an alias and a routing group first."""
    return model in router.model_names and model not in router.model_group_alias and not router.get_routing_group(model)


def _by_pattern_or_alias(router: Any, model: str, team_id: str | None) -> tuple[str, tuple[str, ...]]:
    rows = router.get_model_list(model_name=model, team_id=team_id) or router._get_deployment_by_litellm_model(model)
    groups = tuple(dict.fromkeys(_groups(router, rows)))
    patterns = [group for group in groups if "*" in group]
    if patterns:
        return _written_out(router, model, patterns[0]), ()
    return model, tuple(group for group in groups if group != model)


def _groups(router: Any, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The group of each deployment; the rows of an alias have the alias for a name."""
    for row in rows:
        group = _group_of(router, str((row.get("model_info") or {}).get("id")))
        if group is not None:
            yield group


def _group_of(router: Any, deployment_id: str) -> str | None:
    """The `model_name` of a deployment; `team_public_model_name` where it belongs to one team."""
    row = router.get_model_info(deployment_id)
    if not isinstance(row, Mapping):
        return None
    public = (row.get("model_info") or {}).get("team_public_model_name")
    return str(public or row["model_name"])


def _written_out(router: Any, model: str, pattern: str) -> str:
    """The model that LiteLLM takes a name for where a group has a wildcard: `gpt-4o` is `openai/gpt-4o` to `openai/*`.

    LiteLLM tries the name with its provider in front, too, and reads no further than the pattern goes.
    """
    expression = router.pattern_router.pattern_to_regex(pattern)
    for name in (model, f"{inferred_provider(model)}/{model}"):
        match = re.match(expression, name)
        if match is not None:
            return str(PatternMatchRouter.set_deployment_model_name(match, pattern))
    return model


def _deployment_id(response: object) -> str | None:
    """The id that LiteLLM keeps beside a response and beside the items of a stream that another model took over."""
    hidden = get_hidden_params(response)
    deployment = hidden.get("model_id") if hidden else None
    return deployment if isinstance(deployment, str) else None


class RouterFieldRefused(BadRequest):
    """The body directs LiteLLM's router in a way that clients may not."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.param = field


def check(data: Mapping[str, Any], opened: Collection[str]) -> None:
    """Refuse a body that directs the router by other fields than those that are harmless or `opened`."""
    body = _body(data)
    _check_sizes(data)
    for name in sorted(directing().intersection(body) - set(opened)):
        if body[name] is not None:
            raise RouterFieldRefused(name, f"{name} is not taken from clients; the operator may add it to {_SETTING}")
    internal = next((name for name in body if str(name).startswith("_") and name not in opened), None)
    if internal is not None:
        raise RouterFieldRefused("body", "fields that begin with _ are LiteLLM's own and are not taken from clients")
    extra = body.get("extra_body")
    hidden = (_OF_THE_BODY | directing()).intersection(extra) - set(opened) if isinstance(extra, Mapping) else ()
    if hidden:
        raise RouterFieldRefused("extra_body", f"extra_body may not hold {min(hidden)}; send it as a field of the body")
    for name in FALLBACKS:
        _check_fallbacks(name, body.get(name), free=name in opened)


def _check_sizes(data: Mapping[str, Any]) -> None:
    """Refuse more tags or longer names than routes can be matched with in no time."""
    if len(str(data.get("model") or "")) > MAX_NAME_CHARS:
        raise RouterFieldRefused("model", f"the model's name is longer than {MAX_NAME_CHARS:,} characters")
    for tags in (bucket.get("tags") for bucket in metadata_buckets(data)):
        if isinstance(tags, list) and (len(tags) > MAX_TAGS or any(len(str(tag)) > MAX_NAME_CHARS for tag in tags)):
            raise RouterFieldRefused("tags", f"at most {MAX_TAGS} tags of {MAX_NAME_CHARS:,} characters are read")


@cache
def directing() -> frozenset[str]:
    """The fields that direct LiteLLM's router, save those that only time or repeat a call."""
    from litellm.router import Router  # importing it takes seconds, except inside the proxy

    declared = (name for purpose in _DIRECTING for name in purposes.wire_names(purpose))
    return frozenset((*declared, *Router.get_valid_args(), *_UNDECLARED)) - _HARMLESS


def further_models(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The models that the request lets answer besides its own, no more of them than `check` lets pass."""
    body = _body(data)
    named = (str(name) for field in FALLBACKS for name in _names(body.get(field)))
    return tuple(dict.fromkeys(islice(named, len(FALLBACKS) * 2 * MAX_FALLBACKS)))


def _body(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body as the client sent it; LiteLLM adds fields of the operator's to `data` later."""
    request = data.get("proxy_server_request")
    body = request.get("body") if isinstance(request, Mapping) else None
    if isinstance(body, Mapping):
        return body
    return {name: value for name, value in data.items() if name not in _ADDED}


def _check_fallbacks(field: str, value: object, free: bool) -> None:
    """Refuse fallbacks that are no list of names, or too many, before any of them is looked at one by one."""
    if value is None:
        return
    if not isinstance(value, list):
        raise RouterFieldRefused(field, f"{field} must be a list of model names")
    if too_many(value):
        raise RouterFieldRefused(field, TOO_MANY)
    if not free and not all(map(_plain, value)):
        raise RouterFieldRefused(field, f"an entry of {field} may only name models; other settings need {_SETTING}")
    if any(len(str(name)) > MAX_NAME_CHARS for name in _names(value)):
        raise RouterFieldRefused(field, f"a name in {field} is longer than {MAX_NAME_CHARS:,} characters")


def too_many(fallbacks: object) -> bool:
    """Whether fallbacks, with those inside their entries, are more than the bound; looks at no more than the bound."""
    lists = [fallbacks] if isinstance(fallbacks, list) else []
    count = 0
    while lists:
        entries = lists.pop()
        count += len(entries)
        if count > MAX_FALLBACKS:
            return True
        # LiteLLM looks into all lists of an entry, or into the fallbacks of one that names its model.
        for entry in (entry for entry in entries if isinstance(entry, Mapping)):
            named = isinstance(entry.get("model"), str)
            inner = [entry.get(field) for field in FALLBACKS] if named else list(islice(entry.values(), MAX_FALLBACKS))
            lists += [value for value in inner if isinstance(value, list)]
    return False


def _plain(entry: object) -> bool:
    """Whether an entry only names models: "b", {"model": "b"} or {"a": ["b", "c"]}."""
    if isinstance(entry, str):
        return True
    if not isinstance(entry, Mapping) or len(entry) != 1:
        return False
    ((key, value),) = entry.items()
    if isinstance(value, list):
        return all(isinstance(name, str) for name in value)
    return key == "model" and isinstance(value, str)


def _names(value: object) -> Iterator[object]:
    for entry in value if isinstance(value, list) else ():
        if not isinstance(entry, Mapping):
            yield entry
            continue
        model = entry.get("model")
        if model is not None and not isinstance(model, list):
            yield model
        for names in islice(entry.values(), MAX_FALLBACKS):
            yield from names if isinstance(names, list) else ()
