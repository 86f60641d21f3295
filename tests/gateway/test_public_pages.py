"""Pages that anybody may fetch: made once, never on the event loop, the same document as LiteLLM's own."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from aligner_proxy.gateway import public_pages
from aligner_proxy.gateway.public_pages import COST_MAP, PublicPages

PRICES: dict[str, Any] = {"gpt": {"input_cost_per_token": 1e-6}, "own": {"input_cost_per_token": 0}}


class Application:
    """An application with an OpenAPI document that is dear, and a map of prices; counts what is made where."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.app = FastAPI(title="dear")
        openapi = self.app.openapi

        def counted() -> dict[str, Any]:
            self.made.append(("openapi", threading.get_ident()))
            self.gate.wait(5)
            return openapi()

        self.app.openapi = counted  # type: ignore[method-assign]

        @self.app.get(COST_MAP)
        async def cost_map(catalog_only: bool = False) -> dict[str, Any]:
            self.made.append(("on the loop", threading.get_ident()))
            return self.prices(catalog_only)

        public_pages.install_routes(self.app, self.prices)
        public_pages.install_routes(self.app, self.prices)

    def prices(self, catalog_only: bool) -> dict[str, Any]:
        """What LiteLLM knows of prices."""
        self.made.append(("prices", threading.get_ident()))
        return {"gpt": PRICES["gpt"]} if catalog_only else PRICES

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """A page."""
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            return await http.get(path, headers=headers)


@pytest.mark.parametrize("path", ["/openapi.json", COST_MAP])
async def test_eight_clients_have_it_made_once_and_not_on_the_loop(path: str) -> None:
    application = Application()
    got = await asyncio.gather(*(application.get(path) for _ in range(8)))
    got += [await application.get(path) for _ in range(8)]
    assert {answer.status_code for answer in got} == {200}
    assert len({answer.text for answer in got}) == 1
    ((name, thread),) = application.made
    assert name != "on the loop"
    assert thread != threading.get_ident()


async def test_the_document_is_the_applications_own() -> None:
    plain = FastAPI(title="dear")

    @plain.get(COST_MAP)
    async def cost_map(catalog_only: bool = False) -> dict[str, Any]:
        return {}

    assert (await Application().get("/openapi.json")).json() == plain.openapi()


async def test_a_document_under_a_prefix_names_it() -> None:
    application = Application()
    transport = httpx.ASGITransport(app=application.app, root_path="/proxy")
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        assert (await http.get("/proxy/openapi.json")).json()["servers"] == [{"url": "/proxy"}]
    assert "servers" not in (await application.get("/openapi.json")).json()


async def test_others_are_answered_while_it_is_made() -> None:
    application = Application()
    application.gate.clear()
    waiting = asyncio.ensure_future(application.get("/openapi.json"))
    try:
        while not application.made:
            await asyncio.sleep(0.01)
        assert (await application.get("/docs")).status_code == 200
        assert not waiting.done()
    finally:
        application.gate.set()
    assert (await waiting).status_code == 200


async def test_a_client_that_leaves_does_not_stop_it() -> None:
    application = Application()
    application.gate.clear()
    first = asyncio.ensure_future(application.get("/openapi.json"))
    while not application.made:
        await asyncio.sleep(0.01)
    second = asyncio.ensure_future(application.get("/openapi.json"))
    first.cancel()
    await asyncio.sleep(0.05)
    application.gate.set()
    assert (await second).status_code == 200
    assert len(application.made) == 1


async def test_a_failure_is_told_and_tried_again() -> None:
    tries: list[int] = []

    def document(_: Any) -> object:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")
        return {}

    pages = PublicPages("/x", document)
    with pytest.raises(ValueError, match="not yet"):
        await pages.get_page("")
    assert (await pages.get_page("")).plain == b"{}"


async def test_the_catalog_alone_and_all_prices_are_two_pages() -> None:
    application = Application()
    assert (await application.get(COST_MAP)).json() == PRICES
    assert (await application.get(COST_MAP + "?catalog_only=true")).json() == {"gpt": PRICES["gpt"]}
    assert len(application.made) == 2


async def test_an_old_map_is_shown_while_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = iter(range(9))
    pages = PublicPages("/x", lambda _: {"version": next(versions)}, max_age_s=0.0)
    first = json.loads((await pages.get_page("")).plain)
    assert json.loads((await pages.get_page("")).plain) == first
    while json.loads((await pages.get_page("")).plain) == first:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [("gzip, deflate", True), ("br", False), ("", False), ("gzip;q=0", False), ("gzip; q=0.5", True), ("*", False)],
)
async def test_it_is_compressed_for_those_who_take_it(accepted: str, compressed: bool) -> None:
    application = Application()
    got = await application.get(COST_MAP, **{"accept-encoding": accepted})
    assert ("content-encoding" in got.headers) == compressed
    assert got.json() == PRICES
    assert (
        gzip.decompress((await PublicPages("/x", lambda _: PRICES).get_page("")).compressed)
        == (await PublicPages("/x", lambda _: PRICES).get_page("")).plain
    )


async def test_few_variants_are_kept() -> None:
    pages = PublicPages("/x", lambda variant: {"variant": variant})
    for number in range(50):
        await pages.get_page(number)
    assert len(pages._pages) <= 8
