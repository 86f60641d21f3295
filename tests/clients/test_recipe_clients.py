"""The Python clients of docs/guides/recipes.md, set up by the page's own blocks: whole answers, streams, tool calls."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.page import PAGE, ROOT
from tests.clients.programs import run_program
from tests.clients.readings import Case, ReadBatch
from tests.e2e.clients import MASTER_KEY, Gateway
from tests.e2e.scripted_answers import RUDE
from tests.e2e.scripted_engine import INSULT

PYTHON = Path(os.environ.get("RECIPE_CLIENTS", ROOT / ".build" / "recipe-clients" / "bin" / "python"))
"""The environment that `make clients` makes."""
pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PYTHON.exists(), reason="make clients installs the clients of the page"),
]
KIND = RUDE.replace(INSULT, "")
MODES = {"quick": (KIND, KIND), "sentence": (KIND, KIND), "live": (KIND, RUDE), "off": (RUDE, RUDE)}
"""By the mode of a model's route: a whole answer's text, a stream's."""
SUFFIXES = {
    "openai": "",
    "anthropic": "-claude",
    "langchain-openai": "",
    "langchain-anthropic": "-claude",
    "llama-index": "",
    "openai-agents": "",
}
CALL = 'look_up {"place": "Paris"}'


@pytest.fixture(scope="module")
def read_batch(gateway: Gateway) -> Iterator[ReadBatch]:
    """The clients' program, connected to the gateway."""
    command = (PYTHON, Path(__file__).with_name("recipe_program.py"), PAGE, gateway.address, MASTER_KEY)
    with run_program(*command) as read:
        yield read


@pytest.mark.parametrize("client", SUFFIXES)
def test_a_client_as_the_page_sets_it_up_gets_the_corrected_text(read_batch: ReadBatch, client: str) -> None:
    wrong = []
    for mode, (whole, stream) in MODES.items():
        model = f"{mode}{SUFFIXES[client]}"
        for way, expected in (("whole", whole), ("stream", stream)):
            [reading] = read_batch([Case(f"{client} {way}", model, f"rude {uuid.uuid4().hex}")])
            if reading.text != expected or (way == "stream" and reading.events < 2):
                wrong.append(f"{model} {way}: {reading}")
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("client", SUFFIXES)
def test_its_tool_call_comes_through(read_batch: ReadBatch, client: str) -> None:
    [reading] = read_batch([Case(f"{client} tools", f"quick{SUFFIXES[client]}", f"tools {uuid.uuid4().hex}")])
    assert reading.finish == CALL, reading
    assert INSULT.strip() not in reading.text


@pytest.mark.parametrize("client", SUFFIXES)
def test_a_refused_answer_is_an_error_that_is_not_repeated(read_batch: ReadBatch, client: str) -> None:
    [reading] = read_batch([Case(f"{client} whole", f"refusing{SUFFIXES[client]}", f"rude {uuid.uuid4().hex}")])
    assert (reading.status, reading.text) == (422, ""), reading
