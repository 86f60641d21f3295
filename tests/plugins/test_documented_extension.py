"""The extension that docs/guides/plugins.md shows: installed as it stands there, it does what is said of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.types import Exchange, Turn
from tests.support.installed import install
from tests.support.scripted import ScriptedEngine

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "plugins.md"
GOOD = "Water boils at sea level and earlier in the mountains."
FILE = """
routes:
  - match: {model: twice}
    objectives: [harmless]
    second_look: true
  - match: {model: once}
    objectives: [harmless]
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The documented module, where an installation would put it."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.syspath_prepend(
        install(tmp_path / "site", "second_look", source, entries={"second_look": "second_look"})
    )
    registry.load_plugins.cache_clear()
    yield
    registry.load_plugins.cache_clear()
    sys.modules.pop("second_look", None)


def shorter(request: AlignRequest) -> str:
    """Every correction takes one insult away."""
    return request.answer.replace(" You fool.", "", 1)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("model", "text", "removed"), [("twice", GOOD, "20"), ("once", f"{GOOD} You fool.", None)])
async def test_the_example_does_what_the_page_says(model: str, text: str, removed: str | None) -> None:
    file = registry.parse_policies(FILE, Path("policies.yaml"))
    extensions = registry.load_extensions(file)
    policy = PolicyResolver(file).resolve(RequestFacts(model=model))
    engine = ScriptedEngine(shorter)
    exchange = Exchange("c", 0, (Turn("user", "So?"),), f"{GOOD} You fool. You fool.")
    outcome = await Pipeline(engine, extensions=extensions).align(exchange, policy)
    assert outcome.text == text
    assert extensions.headers(policy, [outcome]).get("second-look") == removed


@pytest.mark.usefixtures("installed")
async def test_what_needs_no_correction_is_looked_at_once() -> None:
    file = registry.parse_policies(FILE, Path("policies.yaml"))
    engine = ScriptedEngine()
    policy = PolicyResolver(file).resolve(RequestFacts(model="twice"))
    pipeline = Pipeline(engine, extensions=registry.load_extensions(file))
    await pipeline.align(Exchange("c", 0, (Turn("user", "So?"),), "So."), policy)
    assert len(engine.seen) == 1
