"""Cache of LiteLLM's public pages, which need no key: the OpenAPI document and the price map.

LiteLLM renders them at each request on the event loop, in seconds and in a fifth of a second, which blocks all others.
Here one thread renders a page, concurrent requests share the result, and the page is stored compressed.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aligner_proxy.gateway import litellm_internals

COST_MAP = "/public/litellm_model_cost_map"
_COST_MAP_S = 60.0
"""Seconds after which the price map is rendered again, since an operator may add prices to it."""
_MAX_VARIANTS = 8
"""Most pages kept per address; the OpenAPI document differs by the path prefix under which it is read."""
_YES = frozenset({"1", "true", "t", "yes", "y", "on"})
"""Spellings of true in a query that FastAPI accepts."""
_INSTALLED = "aligner_public_pages"
"""Attribute that marks an application with our routes."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublicPage:
    """The bytes of a JSON document, plain and compressed."""

    plain: bytes
    compressed: bytes
    rendered_at: float = field(default_factory=time.monotonic)
    """Monotonic time."""

    @classmethod
    def from_document(cls, document: object) -> PublicPage:
        """Return the page of a JSON document; rendering takes long, so call this in a thread."""
        text = json.dumps(
            document, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=jsonable_encoder
        )
        plain = text.encode()
        return cls(plain, gzip.compress(plain, 6))

    def response(self, request: Request) -> Response:
        """The page as a response, compressed if this client accepts gzip."""
        headers = {"vary": "accept-encoding"}
        if not _takes_gzip(request.headers.get("accept-encoding", "")):
            return Response(self.plain, media_type="application/json", headers=headers)
        return Response(self.compressed, media_type="application/json", headers={**headers, "content-encoding": "gzip"})


def _takes_gzip(accept_encoding: str) -> bool:
    """Whether an `accept-encoding` header, such as "br, gzip;q=0.5", allows gzip."""
    for choice in accept_encoding.split(","):
        name, _, weight = choice.replace(" ", "").lower().partition(";q=")
        has_zero_weight = weight != "" and not weight.strip("0.")  # 0, 0.0 ...
        if name == "gzip" and not has_zero_weight:
            return True
    return False


class PublicPages:
    """The pages of one address, by variant (such as the path prefix). `make_document` is called in a thread with a
    variant, and again when its page is older than `max_age_s` seconds.
    """

    def __init__(self, path: str, make_document: Callable[[Any], object], max_age_s: float = math.inf) -> None:
        self._path = path
        self._make_document = make_document
        self._max_age_s = max_age_s
        self._pages: dict[Hashable, PublicPage] = {}
        self._render_tasks: dict[Hashable, asyncio.Task[PublicPage]] = {}

    async def get_page(self, variant: Hashable) -> PublicPage:
        """The page of a variant from memory, rendered first if there is none; an old one is served during a renewal."""
        page = self._pages.get(variant)
        if page is not None and time.monotonic() - page.rendered_at < self._max_age_s:
            return page
        task = self._render_tasks.get(variant)
        if task is None:
            task = asyncio.ensure_future(self._render(variant))
            self._render_tasks[variant] = task
        if page is None:
            page = await asyncio.shield(task)  # not stopped if this client leaves, since other clients may wait, too
        return page

    async def _render(self, variant: Hashable) -> PublicPage:
        """Render a page in a thread, store it and return it; after a failure the next request tries again."""
        started = time.monotonic()
        try:
            page = await asyncio.to_thread(lambda: PublicPage.from_document(self._make_document(variant)))
            if len(self._pages) >= _MAX_VARIANTS:
                self._pages.clear()
            self._pages[variant] = page
            log.info("public page %s: built in %.1f s and cached", self._path, page.rendered_at - started)
            return page
        finally:
            del self._render_tasks[variant]


def openapi_document(app: FastAPI, root_path: str) -> dict[str, Any]:
    """The OpenAPI document as FastAPI serves it under this path prefix; FastAPI lists the prefix among the servers."""
    document = app.openapi()
    servers = document.get("servers", [])
    is_listed = root_path in {server.get("url") for server in servers}
    if not root_path or not app.root_path_in_servers or is_listed:
        return document
    return {**document, "servers": [{"url": root_path}, *servers]}


def install() -> None:
    """Serve these pages in the running proxy; does nothing outside the proxy."""
    app = litellm_internals.proxy_application()
    if isinstance(app, FastAPI):
        install_routes(app, litellm_internals.price_map)


def install_routes(app: FastAPI, make_price_map: Callable[[bool], dict[str, Any]]) -> None:
    """Serve the OpenAPI document and the price map from the cache, by routes placed before LiteLLM's own.

    Further calls do nothing. `make_price_map` is called with LiteLLM's query parameter `catalog_only`.
    """
    if getattr(app.state, _INSTALLED, False):
        return
    setattr(app.state, _INSTALLED, True)
    documents = PublicPages(str(app.openapi_url), lambda root_path: openapi_document(app, root_path))
    price_maps = PublicPages(COST_MAP, make_price_map, _COST_MAP_S)

    async def openapi(request: Request) -> Response:
        root_path = str(request.scope.get("root_path", "")).rstrip("/")
        page = await documents.get_page(root_path)
        return page.response(request)

    async def cost_map(request: Request) -> Response:
        catalog_only = request.query_params.get("catalog_only", "").lower() in _YES
        page = await price_maps.get_page(catalog_only)
        return page.response(request)

    routes = [Route(COST_MAP, cost_map, include_in_schema=False)]
    if app.openapi_url:
        routes.append(Route(app.openapi_url, openapi, include_in_schema=False))
    app.router.routes[:0] = routes
