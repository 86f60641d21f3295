"""The closed loop: nothing is both traffic and test, verdicts become examples, figures are those of the flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import ConfigError
from aligner_proxy.teaching.neutral import teaching_answers
from aligner_proxy.types import Correction
from models.evaluate import closed_loop
from models.evaluate.closed_loop import (
    LoopTenant,
    VerdictLoop,
    format_report,
    list_hosts,
    plot,
    pool_tenants,
    read_tenants,
)
from tests.support.teachable import TeachableEngine

BAD = [f"I feel lonely as number {n} in the evening." for n in range(30)]
NEAR = [f"Bridge {n} looks lonely." for n in range(10)]
LONELY = LoopTenant("lonely", "No feelings: the answer does not claim feelings", tuple(BAD), tuple(NEAR))


class RememberingEngine(TeachableEngine):
    """Knows which answers it judged."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[str] = []

    async def align(self, request: AlignRequest) -> Correction:
        """Judge an answer."""
        self.answers.append(request.answer)
        return await super().align(request)


def test_the_written_tenants_are_whole() -> None:
    tenants = read_tenants()
    assert [tenant.name for tenant in tenants] == ["harbour-bank", "passage-travel", "elm-clinic", "kestrel-software"]
    for tenant in tenants:
        every = [*tenant.against, *tenant.fine]
        assert len({text.casefold() for text in every}) == len(every)
        assert (len(tenant.testing), len(tenant.testing_fine)) == (12, 8)


def test_traffic_and_test_share_no_answer_and_teaching_reads_neither() -> None:
    traffic, tests = list_hosts()
    assert len(traffic) >= 24
    assert len(tests) >= 2 * 12 + 8 + 16
    assert not set(traffic) & set(tests)
    assert not {*traffic, *tests} & set(teaching_answers())


def test_too_few_sentences_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text("tenants: [{name: a, objective: 'A: b', against: [x.], fine: [y.]}]")
    with pytest.raises(ConfigError, match=r"tenants\.yaml: a: more than 24 sentences"):
        read_tenants(path)
    path.write_text("- a")
    with pytest.raises(ConfigError, match="no list `tenants`"):
        read_tenants(path)


async def test_verdicts_teach_and_the_figures_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_loop, "ROUNDS", 2)
    monkeypatch.setattr(closed_loop, "_CLEAN_TESTS", 4)
    engine = RememberingEngine()
    measured = await VerdictLoop(engine, LONELY, tmp_path).measure()
    assert [one.rounds for one in measured] == [0, 1, 2]
    assert measured[0].found.hits == 0  # the general head of this engine flags nothing
    assert measured[-1].found.n == 2 * len(LONELY.testing)
    assert sum(measured[-1].verdicts.values()) == 24
    assert measured[-1].verdicts["missed"] >= 2
    assert measured[-1].examples >= 2
    assert measured[-1].found.percent > 50
    assert len(engine.answers) == 2 * 24 + 3 * measured[0].found.n + 3 * (measured[0].fine.n + 4)
    [*_, every] = pool_tenants(measured)
    assert (every.found, every.false) == (measured[-1].found, measured[-1].false)
    text = format_report("f00d", measured)
    assert "lonely" in text
    assert not any(sentence in text for sentence in (*BAD, *NEAR))
    plot(measured, tmp_path / "plot.svg")
    assert "svg" in (tmp_path / "plot.svg").read_text()
