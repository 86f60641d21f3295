"""Fields of the body that direct LiteLLM's router: which are taken, which are refused, and how much is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from aligner_proxy.gateway import routing
from aligner_proxy.gateway.routing import (
    MAX_FALLBACKS,
    RouterFieldRefused,
    check_router_fields,
    list_fallback_models,
    list_router_fields,
)

MESSAGES = [{"role": "user", "content": "What?"}]


def sent(**body: Any) -> dict[str, Any]:
    """LiteLLM's data for a body."""
    body = {"model": "gpt", "messages": MESSAGES, **body}
    return {**body, "proxy_server_request": {"headers": {}, "body": body}, "router_settings_override": {"of": "a key"}}


ORDINARY: dict[str, Any] = {
    "temperature": 0.5,
    "n": 2,
    "stream": True,
    "stream_options": {"include_usage": True},
    "tools": [],
    "user": "u",
    "metadata": {"tags": ["a"]},
    "max_tokens": 5,
    "response_format": {"type": "text"},
    "reasoning_effort": "low",
    "timeout": 30,
    "num_retries": 1,
    "cache": {"no-store": True},
    "guardrails": [],
    "top_k": 5,
    "plugins": [{"id": "web"}],
    "extra_body": {"guided_regex": "a", "top_k": 3},
    "thinking": {"type": "enabled"},
    "prompt_cache_key": "k",
    "service_tier": "auto",
    "store": True,
    "previous_response_id": "resp_1",
}


def test_ordinary_fields_are_taken() -> None:
    check_router_fields(sent(**ORDINARY), ())


@pytest.mark.parametrize(
    "field",
    [
        "context_window_fallbacks",
        "content_policy_fallbacks",
        "router_settings_override",
        "user_config",
        "model_list",
        "specific_deployment",
        "custom_llm_provider",
        "model_group_alias",
        "default_fallbacks",
        "max_fallbacks",
        "litellm_params",
        "models",
        "_target_order",
        "_excluded_deployment_ids",
    ],
)
def test_fields_that_direct_the_router_are_refused_unless_opened(field: str) -> None:
    with pytest.raises(RouterFieldRefused) as refused:
        check_router_fields(sent(**{field: ["gpt"]}), ())
    assert len(str(refused.value)) < 200
    check_router_fields(sent(**{field: ["gpt"]}), (field,))


def test_an_empty_field_is_no_wish() -> None:
    check_router_fields(sent(context_window_fallbacks=None, fallbacks=None), ())


@pytest.mark.parametrize("field", ["model", "messages", "models", "input", "fallbacks_", "custom_llm_provider", "n"])
def test_extra_body_cannot_go_over_the_body(field: str) -> None:
    body = sent(extra_body={field: "x"})
    if field == "fallbacks_":
        check_router_fields(body, ())
        return
    with pytest.raises(RouterFieldRefused, match="extra_body"):
        check_router_fields(body, ())


def test_what_litellm_adds_by_itself_is_not_the_clients() -> None:
    data = sent()
    assert "router_settings_override" in list_router_fields()
    check_router_fields(data, ())


@pytest.mark.parametrize(
    ("fallbacks", "models"),
    [
        (["a", "b", "a"], ("a", "b")),
        ([{"model": "a"}, "b"], ("a", "b")),
        ([{"gpt": ["a", "b"]}], ("a", "b")),
        ([{"model": ["a"]}], ("a",)),
        ([], ()),
    ],
)
def test_the_models_that_may_answer_besides(fallbacks: Any, models: tuple[str, ...]) -> None:
    check_router_fields(sent(fallbacks=fallbacks), ())
    assert list_fallback_models(sent(fallbacks=fallbacks)) == models


@pytest.mark.parametrize(
    "fallbacks",
    [
        {"gpt": ["a"]},
        "a",
        7,
        [7],
        [["a"]],
        [{}],
        [{"gpt": "a"}],
        [{"model": "a", "messages": MESSAGES}],
        [{"gpt": ["a"], "x": ["b"]}],
        [{"gpt": [{"model": "a"}]}],
        ["a" * 2000],
        ["a"] * (MAX_FALLBACKS + 1),
        [{"gpt": ["a"] * (MAX_FALLBACKS + 1)}],
        [{"gpt": ["a"] * MAX_FALLBACKS}, "b"],
        [{"model": "a", "fallbacks": [{"model": "b", "fallbacks": ["c"] * MAX_FALLBACKS}]}],
    ],
)
def test_other_forms_and_long_lists_are_refused(fallbacks: Any) -> None:
    with pytest.raises(RouterFieldRefused):
        check_router_fields(sent(fallbacks=fallbacks), ())


class Walked(list[Any]):
    """A list that counts how many of its entries are looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[Any]:
        for entry in super().__iter__():
            self.looked_at += 1
            yield entry


@pytest.mark.parametrize("entry", ["gpt", {"model": "gpt"}, {"gpt": ["a"]}])
@pytest.mark.parametrize("opened", [(), ("fallbacks",)])
def test_a_long_list_is_refused_before_it_is_walked(entry: Any, opened: tuple[str, ...]) -> None:
    walked = Walked([entry] * 50_000)
    with pytest.raises(RouterFieldRefused, match="too many models"):
        check_router_fields(sent(fallbacks=walked), opened)
    assert walked.looked_at == 0


def test_opened_lists_of_fallbacks_count_like_fallbacks() -> None:
    opened = ("context_window_fallbacks", "fallbacks")
    body = sent(context_window_fallbacks=[{"gpt": ["a"]}], fallbacks=[{"model": "b", "temperature": 0}])
    check_router_fields(body, opened)
    assert list_fallback_models(body) == ("b", "a")


@pytest.mark.parametrize("tags", [["t"] * 129, ["t" * 1001]])
def test_more_tags_than_routes_are_matched_with_are_refused(tags: list[str]) -> None:
    with pytest.raises(RouterFieldRefused, match="tags"):
        check_router_fields(sent(metadata={"tags": tags}), ())


def test_a_name_longer_than_any_is_refused() -> None:
    with pytest.raises(RouterFieldRefused, match="name"):
        check_router_fields(sent(model="*a" * 5000), ())


def test_the_list_follows_litellm() -> None:
    names = list_router_fields()
    assert {"order", "weight", "model_info", "silent_model", "auto_router_config", "tag_filtering_match_any"} <= names
    assert not names & {"model", "messages", "metadata", "tags", "user", "temperature", "api_key", "fallbacks"}
    assert routing.list_router_fields() is names
