"""LiteLLM's public pages that are dear to make: made once in a thread, so that whoever fetches them costs a few bytes.

Its OpenAPI document (seconds of computing) and its map of prices (a fifth of a second, at each request) need no key,
and LiteLLM makes both on the event loop, where everybody waits. Here one thread makes a page, whoever asks meanwhile
waits for the same one, and what is sent is compressed already.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aligner_proxy.gateway import litellm_internals

COST_MAP = "/public/litellm_model_cost_map"
_COST_MAP_S = 60.0
"""The map of prices has what an operator adds to it; a page of it is made again after so many seconds."""
_MOST_VARIANTS = 8
"""An operator configures prefixes of paths, and the OpenAPI document names the one under which it is read."""
_YES = frozenset({"1", "true", "t", "yes", "y", "on"})
_INSTALLED = "aligner_public_pages"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublicPage:
    """The bytes of a JSON document, plain and compressed."""

    plain: bytes
    compressed: bytes

    @classmethod
    def from_document(cls, document: object) -> PublicPage:
        """The page of a document. It takes long: call it in a thread."""
        text = json.dumps(
            document, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=jsonable_encoder
        )
        plain = text.encode()
        return cls(plain, gzip.compress(plain, 6))

    def response(self, request: Request) -> Response:
        """The page as this client takes it."""
        headers = {"vary": "accept-encoding"}
        if not _takes_gzip(request.headers.get("accept-encoding", "")):
            return Response(self.plain, media_type="application/json", headers=headers)
        return Response(self.compressed, media_type="application/json", headers={**headers, "content-encoding": "gzip"})


def _takes_gzip(accepted: str) -> bool:
    """Whether a header `accept-encoding` allows it."""
    choices = (choice.replace(" ", "").lower().partition(";q=") for choice in accepted.split(","))
    return any(name == "gzip" and (not weight or weight.strip("0.")) for name, _, weight in choices)


class PublicPages:
    """The pages of one address, by variant. `document` makes one, in a thread; after `lasts_s` it is made again."""

    def __init__(self, path: str, document: Callable[[Any], object], lasts_s: float = math.inf) -> None:
        self._path = path
        self._document = document
        self._lasts_s = lasts_s
        self._pages: dict[Hashable, PublicPage] = {}
        self._made_at: dict[Hashable, float] = {}
        self._making: dict[Hashable, asyncio.Task[None]] = {}

    async def get_page(self, variant: Hashable) -> PublicPage:
        """The page, from memory if there is one; an old one is shown while the next is made."""
        if time.monotonic() - self._made_at.get(variant, -math.inf) >= self._lasts_s or variant not in self._pages:
            making = self._making.get(variant)
            if making is None:
                making = asyncio.ensure_future(self._make(variant))
                self._making[variant] = making
            if variant not in self._pages:
                await asyncio.shield(making)  # a client that leaves does not stop it: others wait for it, too
        return self._pages[variant]

    async def _make(self, variant: Hashable) -> None:
        started = time.monotonic()
        try:
            page = await asyncio.to_thread(lambda: PublicPage.from_document(self._document(variant)))
            if len(self._pages) >= _MOST_VARIANTS:
                self._pages.clear()
            self._pages[variant] = page
            self._made_at[variant] = time.monotonic()
            log.info("public page %s made once for all in %.1f s", self._path, self._made_at[variant] - started)
        finally:
            del self._making[variant]


def openapi_document(app: FastAPI, root_path: str) -> dict[str, Any]:
    """The OpenAPI document as FastAPI would serve it under this prefix."""
    document = app.openapi()
    servers = document.get("servers", [])
    if not root_path or not app.root_path_in_servers or root_path in {server.get("url") for server in servers}:
        return document
    return {**document, "servers": [{"url": root_path}, *servers]}


def install() -> None:
    """Serve these pages in the running proxy; does nothing outside it."""
    app = litellm_internals.proxy_application()
    if isinstance(app, FastAPI):
        install_routes(app, litellm_internals.price_map)


def install_routes(app: FastAPI, prices: Callable[[bool], dict[str, Any]]) -> None:
    """Put our routes of the pages before those of the application, once. `prices` gives the map, a catalog alone."""
    if getattr(app.state, _INSTALLED, False):
        return
    setattr(app.state, _INSTALLED, True)
    documents = PublicPages(str(app.openapi_url), lambda root_path: openapi_document(app, root_path))
    maps = PublicPages(COST_MAP, prices, _COST_MAP_S)

    async def openapi(request: Request) -> Response:
        root_path = str(request.scope.get("root_path", "")).rstrip("/")
        return (await documents.get_page(root_path)).response(request)

    async def cost_map(request: Request) -> Response:
        catalog_only = request.query_params.get("catalog_only", "").lower() in _YES
        return (await maps.get_page(catalog_only)).response(request)

    ours = [Route(COST_MAP, cost_map, include_in_schema=False)]
    if app.openapi_url:
        ours.append(Route(app.openapi_url, openapi, include_in_schema=False))
    app.router.routes[:0] = ours
