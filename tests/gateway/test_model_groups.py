"""Names of a model, taken back to LiteLLM's model groups, with LiteLLM's own router."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from litellm import Router
from litellm.types.utils import ModelResponse

from aligner_proxy.gateway import routing


def _model(name: str, model: str, **info: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, "api_key": "none"}, "model_info": info}


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> Router:
    """Two groups, one by wildcard, a team's own model, and an alias of each kind."""
    router = Router(
        model_list=[
            _model("support", "openai/up-1", id="first"),
            _model("support", "openai/up-2", id="second"),
            _model("plain", "openai/up-1", id="third"),
            _model("openai/*", "openai/*", id="wild"),
            _model("*-mini", "openai/*-mini", id="mini"),
            _model("internal-name", "openai/up-3", id="own", team_id="t1", team_public_model_name="public"),
        ],
        model_group_alias={"quick": "support", "hidden": {"model": "support", "hidden": True}},
    )
    monkeypatch.setattr(routing, "_find_router", lambda: router)
    return router


@pytest.mark.usefixtures("router")
@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("support", ("support", ())),
        ("first", ("support", ())),
        ("wild", ("openai/*", ())),
        ("quick", ("quick", ("support",))),
        ("hidden", ("hidden", ("support",))),
        ("openai/up-2", ("openai/up-2", ())),
        ("openai/gpt-4o", ("openai/gpt-4o", ())),
        ("gpt-4o", ("openai/gpt-4o", ())),
        ("x-mini", ("x-mini", ())),
        ("x-mini-and-more", ("x-mini", ())),
        ("unheard-of", ("unheard-of", ())),
        ("", ("", ())),
    ],
)
def test_every_name_leads_to_its_groups(model: str, names: tuple[str, tuple[str, ...]]) -> None:
    assert routing.resolve_name(model, None) == names


@pytest.mark.usefixtures("router")
@pytest.mark.parametrize(
    ("written", "further"),
    [
        ((), ()),
        (("plain",), ()),
        (("unheard-of", ""), ()),
        (("support", "plain"), ("support",)),
        (("quick",), ("quick", "support")),
        (("first", "support"), ("support",)),
        (("gpt-4o",), ("openai/gpt-4o",)),
        (("openai/" + "x" * 2_000,), ()),
    ],
)
def test_other_names_of_a_request_lead_to_their_groups_if_they_are_any(
    written: tuple[str, ...], further: tuple[str, ...]
) -> None:
    assert routing.list_other_names(written, "plain", None) == further


def test_an_upstream_model_leads_to_every_group_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router(
        model_list=[_model("support", "openai/up-1", id="first"), _model("plain", "openai/up-1", id="third")]
    )
    monkeypatch.setattr(routing, "_find_router", lambda: router)
    assert routing.resolve_name("openai/up-1", None) == ("openai/up-1", ("support", "plain"))


@pytest.mark.usefixtures("router")
def test_a_model_of_one_team_has_the_name_that_the_team_uses() -> None:
    assert routing.resolve_name("public", "t1") == ("public", ())
    assert routing.resolve_name("own", None) == ("public", ())


@pytest.mark.usefixtures("router")
def test_who_answered_is_what_litellm_keeps_beside_the_response() -> None:
    response = ModelResponse()
    response._hidden_params["model_id"] = "third"
    deployment = SimpleNamespace(model_name="support")
    assert routing.find_answering_group({"deployment": deployment}, response) == "plain"
    assert routing.find_answering_group({"deployment": deployment}, ModelResponse()) == "support"
    assert (
        routing.find_answering_group({"deployment": deployment}, {"_hidden_params": {"model_id": "wild"}}) == "openai/*"
    )
    assert routing.find_answering_group({}, b"data: {}") is None


def test_a_group_with_a_wildcard_is_the_one_that_was_asked_by_any_name_it_fits() -> None:
    assert routing.is_same_group(("openai/gpt-4o",), "openai/*")
    assert routing.is_same_group(("quick", "support"), "support")
    assert not routing.is_same_group(("openai/gpt-4o",), "anthropic/*")
    assert not routing.is_same_group(("support",), "plain")


def test_outside_the_proxy_a_name_is_a_name() -> None:
    assert routing.resolve_name("support", None) == ("support", ())


def _data(url: str, **body: Any) -> dict[str, Any]:
    """A request as LiteLLM hands it to hooks."""
    return {"proxy_server_request": {"url": url, "body": body}}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/v1/chat/completions", ()),
        ("/v1/chat/completions?user=a", ()),
        ("/v1/chat/completions?model=a&model=b", ("a", "b")),
        ("/v1/responses?%6Dodel=a%20b", ("a b",)),
        ("/engines/a/chat/completions", ("a",)),
        ("/engines/a/completions/", ("a",)),
        ("/%65ngines/a/completions", ("a",)),
        ("/engines/o/a/chat/completions?model=b", ("o/a", "b")),
        ("/openai/deployments/a%0A/chat/completions%0A", ("a\n",)),
        ("/behind/a/proxy/openai/deployments/a/completions", ("a",)),
        ("/openai/deployments/a/embeddings", ()),
    ],
)
def test_names_in_the_address(path: str, names: tuple[str, ...]) -> None:
    assert routing.list_written_names(_data(f"http://gateway:4000{path}", model="x")) == (*names, "x")


def test_what_is_no_name_is_left_out() -> None:
    assert routing.list_written_names(_data("http://g/v1/responses?model=", model=["a"])) == ()
    assert routing.list_written_names({}) == ()
