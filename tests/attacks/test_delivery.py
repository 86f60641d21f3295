"""Odd answers of upstreams on the real proxy: what was not judged is not delivered where a policy enforces and blocks.

Every row gets through LiteLLM alone, which a longer run tries, too. Under a policy that does not enforce the client
gets what LiteLLM alone delivers.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
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
from tests.attacks.odd.tables import INSULT, insults, title, ways
from tests.attacks.odd.tables import table as every_form
from tests.attacks.odd.webhooks import handed
from tests.e2e.clients import KEYS, MASTER_KEY, made_up
from tests.e2e.deployment import CHAT_ONLY, CLAUDE, INSTRUCT, VLLM, Deployment, ProxyPool
from tests.e2e.processes import IMPORTABLE, EngineProcess, Process, free_port
from tests.support.comments import drop_comments

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


def table(forms: Iterable[Form]) -> list[Any]:
    """Rows of forms."""
    return rows(*((form.id, "upstream", form.tried, HOLDS, form) for form in forms))


ENDINGS = table(filter(ways, endings(INSULT)))
TIMEOUTS = table(filter(ways, timeouts(INSULT)))
SHAPES = table(filter(ways, shapes(INSULT)))
BESIDE = table(filter(ways, beside(INSULT)))
HANDED = table(handed(INSULT))
TRIES = [
    pytest.param(row.values[0].payload, stream, id=title(row.values[0].payload, stream))
    for row in [*ENDINGS, *TIMEOUTS, *SHAPES, *BESIDE]
    for stream in ways(row.values[0].payload)
]
DROPPED = [
    pytest.param(form, stream, id=title(form, stream))
    for form in every_form(INSULT).values()
    for stream in form.ways
    if stream not in ways(form)
]
LEFT_ALONE = (
    "end-chat-whole-error-whole",
    "end-chat-event-stream",
    "end-chat-equal-stream",
    "end-responses-none-stream",
    "end-messages-torn-stream",
    "wait-chat-body-stream",
    "wait-messages-body-stream",
    "shape-messages-content-string-whole",
    "shape-messages-stream-delta-no-type-stream",
    "shape-messages-stream-capitals-stream",
    "shape-messages-stream-body-stream",
    "shape-messages-stream-comment-stream",
    "shape-responses-content-string-whole",
    "shape-responses-stream-done-list-stream",
    "shape-chat-text-beside-whole",
    "shape-text-message-whole",
    "beside-chat-reasoning-stream",
    "beside-chat-call-alone-whole",
    "beside-chat-extra-whole",
    "beside-responses-mcp-output-stream",
    "beside-responses-metadata-whole",
    "beside-messages-thinking-stream",
    "beside-messages-extra-whole",
    "beside-messages-stream-unknown-stream",
    "beside-messages-error-400-whole",
)
"""Of each kind some, which a policy that does not enforce hands on as they are."""


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
                    verify=False,
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
        if call is not None and item.nodeid.startswith(HERE) and item.get_closest_marker("skip") is None:
            for who in WHO.get(getattr(item, "originalname", ""), ()):
                yield who, call.params["form"], call.params["stream"]


HERE = "tests/attacks/test_delivery.py::"
WHO = {
    "test_what_was_not_judged_is_not_delivered": ("strict",),
    "test_without_enforcement_it_is_what_litellm_delivers": ("lax", "tame"),
    "test_it_gets_through_litellm_alone": ("alone",),
    "test_litellm_drops_it": ("alone",),
}
"""Whose answers a test looks at."""


@pytest.mark.some(90)
@pytest.mark.parametrize(("form", "stream"), TRIES)
def test_what_was_not_judged_is_not_delivered(asked: Asked, form: Form, stream: bool) -> None:
    status, got, headers = asked("strict", form, stream)
    said = [headers.get("x-aligner-status"), headers.get("x-aligner-reason"), *comments(got)]
    assert not reads(got, insults), (status, said, got[-400:])


@pytest.mark.parametrize("attack", HANDED)
def test_what_was_not_judged_is_not_let_pass(pool: ProxyPool, attack: Attack) -> None:
    address = pool.get(DEPLOYMENT, guarded=True).address
    headers = {"authorization": f"Bearer {KEYS[STRICT]}"}
    sent = attack.payload.sent
    got = httpx.post(
        f"{address}{attack.payload.endpoint}", json=sent, headers=headers, timeout=60, trust_env=False, verify=False
    )
    assert blocks(got, sent) or not reads(got.content, insults), got.text[-400:]
    assert blocks(got, sent) or replaces(got), got.text[-400:]


def blocks(got: httpx.Response, sent: Any) -> bool:
    """Whether the other gateway is told to deliver nothing."""
    if got.status_code != httpx.codes.OK:
        return True
    verdict = got.json()
    action = verdict.get("action")
    rejects = isinstance(action, dict) and "status_code" in action
    return verdict.get("verdict") is False or rejects or action == "BLOCKED"


def replaces(got: httpx.Response) -> bool:
    """Whether the other gateway is told to deliver something else."""
    verdict = got.json()
    action = verdict.get("action")
    masks = isinstance(action, dict) and "body" in action
    return "transformedData" in verdict or masks or action == "GUARDRAIL_INTERVENED"


@pytest.mark.parametrize(("form", "stream"), [row for row in TRIES if row.id in LEFT_ALONE])
def test_without_enforcement_it_is_what_litellm_delivers(asked: Asked, form: Form, stream: bool) -> None:
    status, got, _ = asked("lax", form, stream)
    alone, expected, _ = asked("tame", form, stream)
    assert (status, untouched(got)) == (alone, untouched(expected))
    assert len(comments(got)) <= 1


@pytest.mark.parametrize(("form", "stream"), [row for row in TRIES if row.id.startswith("wait-chat")])
def test_without_enforcement_the_comment_says_what_ended_the_answer(asked: Asked, form: Form, stream: bool) -> None:
    status, got, _ = asked("lax", form, stream)
    if status != httpx.codes.OK:  # on a machine so busy that nothing came in time
        assert b"traveller" not in got
        return
    (comment,) = comments(got)
    assert re.search(r"reason=\S*(upstream_error|timeout)", comment), comment


@pytest.mark.long
@pytest.mark.parametrize(("form", "stream"), TRIES)
def test_it_gets_through_litellm_alone(asked: Asked, form: Form, stream: bool) -> None:
    assert reads(asked("alone", form, stream)[1], insults)


@pytest.mark.long
@pytest.mark.parametrize(("form", "stream"), DROPPED)
def test_litellm_drops_it(asked: Asked, form: Form, stream: bool) -> None:
    assert not reads(asked("alone", form, stream)[1], insults)


def comments(got: bytes) -> list[str]:
    """Our comments in a stream."""
    return [line for line in got.decode(errors="replace").splitlines() if line.startswith(": aligner")]


def untouched(got: bytes) -> Any:
    """A response without our comments, and without what LiteLLM makes up anew; of JSON the order does not count."""
    text = made_up(drop_comments(got.decode(errors="replace")))
    try:
        return json.loads(text)
    except ValueError:
        return text
