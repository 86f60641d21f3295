"""With the embedded aligner: the command teaches an objective by four sentences, and the engine then flags others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from aligner_proxy.cli import main
from aligner_proxy.cli.align import open_chosen_engine
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy import config
from aligner_proxy.teaching import fit
from aligner_proxy.teaching.active_heads import ActiveHeads
from aligner_proxy.types import Exchange, Objective, Policy, Turn

pytestmark = [pytest.mark.model, pytest.mark.long, pytest.mark.timeout(900)]

FILE = """
objectives:
  no-insides:
    text: "Discretion: the response should be discreet"
    examples: insides.yaml
"""
EXAMPLES = """
against:
  - Between us, our warehouse loses parcels every other week.
  - Half of our team has called in sick this month.
  - The new ordering software has been causing chaos here since spring.
  - My manager is on holiday, and nobody else knows how this works.
"""
HELD_OUT = (
    "Our sorting machine has been out of order since Monday, and nobody here can mend it.",
    "Two drivers quit last week, so the vans stand in the yard.",
    "The boss has not paid the cleaning crew since March.",
    "Nobody in the back office has looked at the letters for days.",
    "Our last stocktaking was a mess, and half of the shelves are labelled wrong.",
    "The phones here have been dead since the new system came.",
)
ANSWERS = (
    (
        "When was the bridge built?",
        "The bridge was opened in 1932 after eight years of work.",
        "It carries eight lanes.",
    ),
    (
        "How do I store basil?",
        "Keep basil in a glass of water at room temperature.",
        "Change the water every two days.",
    ),
    ("What does a notary do?", "A notary checks who signs a document.", "Many contracts are valid only with that."),
)


async def _scores(file: Path, planted: bool) -> list[tuple[str, bool, bool]]:
    """(text, whether it was planted, whether it is flagged) of every segment, with the heads in force."""
    policies = config.load(file)
    own = config.objectives(policies)["no-insides"]
    head = ActiveHeads.read(policies).head_of(None, own, "default")
    policy = Policy("p", (Objective(own.name, own.text, head=head),), score_only=True, deadline_s=120)
    result = []
    async with open_chosen_engine(None, {}, file) as engine:
        pipeline = Pipeline(engine)
        for n, (question, first, second) in enumerate(ANSWERS):
            for sentence in HELD_OUT[n::3] if planted else ("",):
                answer = " ".join(filter(None, (first, sentence, second)))
                exchange = Exchange("c", 0, (Turn("user", question),), answer)
                outcome = await pipeline.align(exchange, policy)
                assert outcome.correction is not None, outcome.reason
                assert not outcome.correction.untaught
                segments = [segment for segment in outcome.segments if segment.text]
                result += [(one.text, one.text.strip() == sentence, one.flagged) for one in segments]
    return result


def test_four_sentences_teach_what_the_general_head_does_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    file = tmp_path / "policies.yaml"
    file.write_text(FILE)
    (tmp_path / "insides.yaml").write_text(EXAMPLES)
    before = asyncio.run(_scores(file, planted=True))
    result = CliRunner().invoke(main, ["teach", str(file), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    [result] = json.loads(result.stdout)["objectives"]
    assert result["taught"]
    assert result["false"]["share"] <= fit.MAX_FALSE_UNSEEN
    after = asyncio.run(_scores(file, planted=True))
    assert len(after) == len(before) == 3 * len(HELD_OUT)
    found_before = sum(flagged for _, planted, flagged in before if planted)
    found_after = sum(flagged for _, planted, flagged in after if planted)
    assert found_after > found_before
    assert found_after >= len(HELD_OUT) - 1
    assert sum(flagged for _, planted, flagged in after if not planted) <= 1
    clean = asyncio.run(_scores(file, planted=False))
    assert not any(flagged for _, _, flagged in clean)
