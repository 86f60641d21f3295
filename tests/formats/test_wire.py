"""Which format a route has."""

from __future__ import annotations

import pytest
from starlette.routing import compile_path

from aligner_proxy import formats

CORRECTED = [
    "/v1/chat/completions",
    "/engines/{model:path}/completions",
    "/openai/deployments/{model:path}/chat/completions",
    "/openai/v1/responses",
    "/v1/responses/{response_id}",
    "/v1/messages",
]


@pytest.mark.parametrize("template", CORRECTED)
def test_every_path_that_starlette_takes_for_an_endpoint_has_its_format(template: str) -> None:
    path = template.replace("{model:path}", "m")
    assert compile_path(path)[0].match(path + "\n")
    assert formats.wire(path + "\n") is formats.wire(path) is not None
    assert formats.is_stored_answer(path + "\n") is formats.is_stored_answer(path)


def test_public_names_exist() -> None:
    assert [name for name in formats.__all__ if not hasattr(formats, name)] == []


@pytest.mark.parametrize(
    "route", [None, "", "\n", "/v1/embeddings", "/anthropic/v1/messages", "/v1/chat/completions\n\n"]
)
def test_other_routes_have_none(route: str | None) -> None:
    assert formats.wire(route) is None
