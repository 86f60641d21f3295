"""Names of a model, taken back to LiteLLM's model groups, with LiteLLM's own router."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from litellm import Router
from litellm.types.utils import ModelResponse

from aligner_proxy.gateway import model_groups


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
    monkeypatch.setattr(model_groups, "_router", lambda: router)
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
    assert model_groups.named(model, None) == names


def test_an_upstream_model_leads_to_every_group_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router(
        model_list=[_model("support", "openai/up-1", id="first"), _model("plain", "openai/up-1", id="third")]
    )
    monkeypatch.setattr(model_groups, "_router", lambda: router)
    assert model_groups.named("openai/up-1", None) == ("openai/up-1", ("support", "plain"))


@pytest.mark.usefixtures("router")
def test_a_model_of_one_team_has_the_name_that_the_team_uses() -> None:
    assert model_groups.named("public", "t1") == ("public", ())
    assert model_groups.named("own", None) == ("public", ())


@pytest.mark.usefixtures("router")
def test_who_answered_is_what_litellm_keeps_beside_the_response() -> None:
    response = ModelResponse()
    response._hidden_params["model_id"] = "third"
    deployment = SimpleNamespace(model_name="support")
    assert model_groups.answered({"deployment": deployment}, response) == "plain"
    assert model_groups.answered({"deployment": deployment}, ModelResponse()) == "support"
    assert model_groups.answered({"deployment": deployment}, {"_hidden_params": {"model_id": "wild"}}) == "openai/*"
    assert model_groups.answered({}, b"data: {}") is None


def test_a_group_with_a_wildcard_is_the_one_that_was_asked_by_any_name_it_fits() -> None:
    assert model_groups.same(("openai/gpt-4o",), "openai/*")
    assert model_groups.same(("quick", "support"), "support")
    assert not model_groups.same(("openai/gpt-4o",), "anthropic/*")
    assert not model_groups.same(("support",), "plain")


def test_outside_the_proxy_a_name_is_a_name() -> None:
    assert model_groups.named("support", None) == ("support", ())
