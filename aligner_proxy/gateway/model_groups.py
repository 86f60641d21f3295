"""Model groups behind a name: what LiteLLM's router makes of the `model` of a request, and which group answered.

A client may name a model group, an alias, a deployment's id or its upstream model. Routes are written for groups, so
every other name is taken back to them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from litellm.litellm_core_utils.get_llm_provider_logic import inferred_provider
from litellm.litellm_core_utils.hidden_params import get_hidden_params
from litellm.router_utils.pattern_match_deployments import PatternMatchRouter

FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
"""Settings of the router, and fields of a request, that name models to answer in place of one that fails."""


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
