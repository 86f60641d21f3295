"""LibreChat, set up by its block of docs/guides/recipes.md: what its server makes of the block, and what it reads."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.clients.page import read_block
from tests.clients.programs import HERE, run_program
from tests.clients.readings import Case, ReadBatch
from tests.clients.test_coding_agents import PROGRAMS
from tests.clients.test_recipe_clients import KIND, MODES
from tests.e2e.clients import MASTER_KEY, Gateway

PACKAGES = PROGRAMS.parent
pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (PACKAGES / "@librechat").exists(), reason="make clients installs LibreChat's packages"),
]


@pytest.fixture(scope="module")
def read_batch(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadBatch]:
    """The program of LibreChat's packages, with the settings of the page in a file as LibreChat reads it."""
    settings = tmp_path_factory.mktemp("librechat") / "librechat.yaml"
    settings.write_text(read_block("LibreChat", "yaml", gateway.address, "quick"), encoding="utf-8")
    folder = PACKAGES.parent  # a program finds packages from where it lies
    for name in ("batches.mjs", "librechat.mjs"):
        shutil.copy(HERE / "node" / name, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNER_KEY", MASTER_KEY)
        with run_program("node", folder / "librechat.mjs", gateway.address, MASTER_KEY, settings) as read:
            yield read


@pytest.mark.parametrize("way", ["whole", "stream"])
def test_it_shows_the_corrected_text(read_batch: ReadBatch, way: str) -> None:
    expected = {mode: texts[way == "stream"] for mode, texts in MODES.items()}
    readings = read_batch([Case(way, mode, f"rude {uuid.uuid4().hex}") for mode in expected])
    assert dict(zip(expected, (reading.text for reading in readings), strict=True)) == expected, readings
    assert all(reading.events > 1 for reading in readings) == (way == "stream"), readings


@pytest.mark.parametrize("mode", ["quick", "sentence"])
def test_its_tool_is_called_and_both_texts_are_corrected(read_batch: ReadBatch, mode: str) -> None:
    [reading] = read_batch([Case("tools", f"{mode}-agent", f"Where? {uuid.uuid4().hex}")])
    assert (reading.text, reading.finish) == (f"{KIND}\n{KIND}", "get_current_timestamp: It is noon."), reading


def test_the_title_of_a_conversation_is_text_and_corrected(read_batch: ReadBatch) -> None:
    [reading] = read_batch([Case("title", "quick-agent", f"Where? {uuid.uuid4().hex}")])
    assert reading.text == KIND, reading


def test_a_refused_answer_is_an_error_that_is_not_repeated(read_batch: ReadBatch, upstream: str) -> None:
    marker = uuid.uuid4().hex
    [reading] = read_batch([Case("whole", "refusing", f"rude {marker}")])
    assert (reading.status, reading.text) == (422, ""), reading
    bodies = httpx.get(f"{upstream}/seen", params={"n": 20}, trust_env=False, verify=False).json()
    assert sum(marker in json.dumps(body) for body in bodies) == 1
