"""Layers of ours around LiteLLM's application, which see each request before it and each response after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp


def add_layer(app: Starlette, layer: Any, **options: Any) -> None:
    """Add a class of ASGI middleware to `app` unless present.

    A running application accepts no new middleware, so its stack is wrapped instead.
    """
    if app.middleware_stack is None:
        if layer not in [each.cls for each in app.user_middleware]:
            app.add_middleware(layer, **options)
    elif not any(isinstance(each, layer) for each in _list_layers(app.middleware_stack)):
        app.middleware_stack = layer(app.middleware_stack, **options)


def _list_layers(app: ASGIApp | None) -> Iterator[ASGIApp]:
    """The layers of an application, the outermost first."""
    while app is not None:
        yield app
        app = getattr(app, "app", None)
