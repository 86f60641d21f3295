"""Odd answers of upstreams on the real proxy: what was not judged is not delivered where a policy enforces and blocks.

Each row is tried on LiteLLM alone, too: there the sentence reaches the client, or the row would show nothing. Under a
policy that neither enforces nor blocks the client gets the very bytes that LiteLLM alone delivers.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.attacks.attack import Attack, rows
from tests.attacks.odd.beside import beside
from tests.attacks.odd.endings import endings, timeouts
from tests.attacks.odd.form import CHAT, MESSAGES, MODELS, RESPONSES, TEXT, Form
from tests.attacks.odd.reading import reads
from tests.attacks.odd.shapes import shapes
from tests.attacks.odd.tables import INSULT, insults
from tests.e2e.clients import KEYS, MASTER_KEY, made_up
from tests.e2e.deployment import CHAT_ONLY, CLAUDE, INSTRUCT, VLLM, Deployment, ProxyPool
from tests.e2e.processes import IMPORTABLE, EngineProcess, Process, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

DEPLOYMENT = (
    Deployment()
    .model("gpt")
    .model("claude", CLAUDE)
    .model("instruct", INSTRUCT)
    .model("vllm", VLLM)
    .model("chatonly", CHAT_ONLY)
)
WORKERS = 4
HOLDS = "corrected, or an error"
STRICT = "strict"
"""The tenant for which an objective is enforced, and every failure blocks."""


def table(forms: Iterator[Form]) -> list[Any]:
    """Rows of forms."""
    return rows(*((form.id, "upstream", form.tried, HOLDS, form) for form in forms))


ENDINGS = table(endings(INSULT))
TIMEOUTS = table(timeouts(INSULT))
SHAPES = table(shapes(INSULT))
BESIDE = table(beside(INSULT))
EVERY = [
    pytest.param(row.values[0], stream, id=f"{row.id}-{'stream' if stream else 'whole'}")
    for row in [*ENDINGS, *TIMEOUTS, *SHAPES, *BESIDE]
    for stream in row.values[0].payload.ways
]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyPool]:
    """The upstream of odd answers, the engine that finds the insult, and the proxies between them."""
    folder = tmp_path_factory.mktemp("odd")
    with contextlib.ExitStack() as stack:
        port = free_port()
        command = [sys.executable, "-m", "tests.attacks.odd.upstream", str(port)]
        upstream = Process(command, folder / "upstream.log", IMPORTABLE)
        socket = folder / "engine.sock"
        command = [sys.executable, "-m", "tests.attacks.odd.engine", str(socket)]
        engine = EngineProcess(Process(command, folder / "engine.log", IMPORTABLE), socket, folder / "engine.calls")
        stack.callback(upstream.stop)
        upstream.start()
        stack.callback(engine.process.stop)
        engine.start()
        upstream.wait_for(f"http://127.0.0.1:{port}/ready")
        pool = ProxyPool(folder, f"http://127.0.0.1:{port}", engine)
        stack.callback(pool.close)
        yield pool


def body_of(form: Form, stream: bool, kind: str) -> dict[str, Any]:
    """The request for a form; `tame` asks for the one with a sentence that nobody minds."""
    said = f"{kind} {form.id}"
    turns = [{"role": "user", "content": said}]
    own: dict[str, dict[str, Any]] = {
        CHAT: {"messages": turns},
        TEXT: {"prompt": said},
        RESPONSES: {"input": said},
        MESSAGES: {"messages": turns, "max_tokens": 99},
    }
    return {"model": form.model or MODELS[form.endpoint], **own[form.endpoint], "stream": stream, **form.ask}


def ask(client: httpx.Client, form: Form, stream: bool, kind: str = "odd") -> tuple[int, bytes, httpx.Headers]:
    """What a client gets: status, everything that came until the end or the break, and headers."""
    got = bytearray()
    with client.stream("POST", form.endpoint, json=body_of(form, stream, kind), headers=dict(form.headers)) as response:
        with contextlib.suppress(httpx.TransportError):
            for piece in response.iter_raw():
                got += piece
        return response.status_code, bytes(got), response.headers


Got = tuple[int, bytes, httpx.Headers]
Asked = Callable[[str, Form, bool], Got]


@pytest.fixture(scope="module")
def asked(request: pytest.FixtureRequest, pool: ProxyPool) -> Iterator[Asked]:
    """What is got for every form that was chosen to run, asked side by side: by whom, which, and how."""
    proxies = {guarded: pool.get(DEPLOYMENT, guarded=guarded).address for guarded in (True, False)}
    keys = {"strict": (True, KEYS[STRICT], "odd"), "alone": (False, MASTER_KEY, "odd")}
    keys |= {"lax": (True, KEYS["other"], "tame"), "tame": (False, MASTER_KEY, "tame")}
    futures: dict[tuple[str, str, bool], Future[Got]] = {}
    with contextlib.ExitStack() as stack:
        clients = {
            who: stack.enter_context(
                httpx.Client(
                    base_url=proxies[guarded],
                    headers={"authorization": f"Bearer {key}", "accept-encoding": "identity"},
                    timeout=60,
                    trust_env=False,
                )
            )
            for who, (guarded, key, _) in keys.items()
        }
        workers = stack.enter_context(ThreadPoolExecutor(WORKERS))

        def got(who: str, form: Form, stream: bool) -> Got:
            return start(who, form, stream).result()

        def start(who: str, form: Form, stream: bool) -> Future[Got]:
            key = (who, form.id, stream)
            if key not in futures:
                futures[key] = workers.submit(ask, clients[who], form, stream, keys[who][2])
            return futures[key]

        for who, form, stream in _chosen(request.session.items):
            start(who, form, stream)
        yield got
        workers.shutdown(cancel_futures=True)


def _chosen(items: list[pytest.Item]) -> Iterator[tuple[str, Form, bool]]:
    for item in items:
        call = getattr(item, "callspec", None)
        if call is not None and "attack" in call.params and "stream" in call.params and "asked" in item.fixturenames:
            for who in WHO[item.originalname]:
                yield who, call.params["attack"].payload, call.params["stream"]


WHO = {
    "test_what_was_not_judged_is_not_delivered": ("strict", "alone"),
    "test_without_enforcement_it_is_what_litellm_delivers": ("lax", "tame"),
}


@pytest.mark.parametrize(("attack", "stream"), EVERY)
def test_what_was_not_judged_is_not_delivered(asked: Asked, attack: Attack, stream: bool) -> None:
    form = attack.payload
    assert reads(asked("alone", form, stream)[1], insults), "it does not get through LiteLLM alone"
    status, got, headers = asked("strict", form, stream)
    assert not reads(got, insults), (
        status,
        headers.get("x-aligner-status"),
        headers.get("x-aligner-reason"),
        got[-400:],
    )


@pytest.mark.parametrize(("attack", "stream"), EVERY)
def test_without_enforcement_it_is_what_litellm_delivers(asked: Asked, attack: Attack, stream: bool) -> None:
    form = attack.payload
    status, got, _ = asked("lax", form, stream)
    alone, expected, _ = asked("tame", form, stream)
    assert (status, untouched(got)) == (alone, untouched(expected))


def untouched(got: bytes) -> Any:
    """A response without our comments, and without what LiteLLM makes up anew; of JSON the order does not count."""
    frames = got.decode(errors="replace").split("\n\n")
    text = made_up("\n\n".join(frame for frame in frames if not frame.startswith(": aligner")))
    try:
        return json.loads(text)
    except ValueError:
        return text
