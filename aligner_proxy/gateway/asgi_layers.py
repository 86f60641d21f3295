"""Layers of ours around LiteLLM's application, which see each request before it and each response after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp


def add_layer(app: Starlette, layer_class: Any, **options: Any) -> None:
    """Add a class of ASGI middleware, created with `options`, to `app`, unless the application has it already."""
    # A running application has a stack of layers and accepts no new middleware, so the stack is wrapped instead.
    if app.middleware_stack is None:
        if layer_class not in [middleware.cls for middleware in app.user_middleware]:
            app.add_middleware(layer_class, **options)
    elif not any(isinstance(layer, layer_class) for layer in _list_layers(app.middleware_stack)):
        app.middleware_stack = layer_class(app.middleware_stack, **options)


def _list_layers(app: ASGIApp | None) -> Iterator[ASGIApp]:
    """The layers of an application, the outermost first."""
    while app is not None:
        yield app
        app = getattr(app, "app", None)
