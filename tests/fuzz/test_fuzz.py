"""A few of the cases that `make fuzz` tries in great number, and every one that failed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fuzz.cases import case
from tests.fuzz.fuzzing import check, kept_seeds, run
from tests.support.harness import Rig, rigged
from tests.support.sampling import examples

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CASES = examples(1024)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rigged(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


@pytest.mark.parametrize("seed", kept_seeds())
def test_what_failed_once(rig: Rig, seed: int) -> None:
    check(rig, case(seed))


@pytest.mark.slow
def test_wrecked_responses_and_streams(rig: Rig) -> None:
    kinds = Counter[str]()
    failed = dict[int, str]()
    run(rig, range(1, CASES + 1), kinds, failed)
    assert not failed, f"seeds {sorted(failed)}; the first:\n{next(iter(failed.values()))}"
    assert set(kinds.values()) == {CASES // 8}
    assert {"corrected None", "failed internal_error", "failed engine_error", "failed cancelled"} <= set(rig.seen)
    assert {"skipped inconsistent", "skipped upstream_error", "shadow None"} <= set(rig.seen)
