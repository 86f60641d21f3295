"""Does every case hold? No exception but the upstream's own, no item lost, the original wherever nothing is corrected.

`python -m tests.fuzz.fuzzing --cases 100000 --seed 1` runs many and says how far it is (`make fuzz`). A case that fails
is named by its seed; put that into seeds.txt, and the ordinary test run keeps it from coming back.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aligner_proxy import formats
from aligner_proxy.formats.responses_objects import kind_of
from aligner_proxy.gateway.guardrail import Blocked
from aligner_proxy.gateway.streaming.event_queue import PACKED_FROM
from aligner_proxy.types import Outcome
from tests.e2e.scripted_answers import GOOD, RUDE
from tests.fuzz import released
from tests.fuzz.cases import Case, case
from tests.fuzz.observed import events, frozen, only_texts_differ
from tests.fuzz.wreck import ODD_TEXTS
from tests.support.harness import Rig, rigged
from tests.support.stream_fixtures import decoded

SEEDS = Path(__file__).with_name("seeds.txt")
_TEXTS = [text for text in (*ODD_TEXTS, *GOOD.split(". "), *RUDE.split(". ")) if len(text) > 4]
"""What may not be in a log line."""
_COMMENT = b": aligner status="


def kept_seeds() -> list[int]:
    """The seeds of cases that failed once."""
    return [int(line.split()[0]) for line in SEEDS.read_text().splitlines() if line and not line.startswith("#")]


class Eavesdropper(logging.Handler):
    """Everything that our modules log while it listens."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it; what cannot be formatted is a failure, too."""
        self.lines.append(record.getMessage())

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear, and let nobody else hear."""
        root = logging.getLogger("aligner_proxy")
        kept = root.propagate, root.level
        root.propagate = False
        root.setLevel(logging.DEBUG)
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)
            root.propagate = kept[0]
            root.setLevel(kept[1])


def check(rig: Rig, one: Case) -> None:
    """Raises if a case does not hold."""
    ear = Eavesdropper()
    with ear.listening():
        if one.items is None:
            _check_whole(rig, one)
        else:
            _check_stream(rig, one, one.items)
            released.check(rig, one)
    told = [line for line in ear.lines if any(text in line for text in _TEXTS)]
    assert not told, f"text in the log: {told[:1]!r}"


def _check_whole(rig: Rig, one: Case) -> None:
    before = frozen(one.response)
    try:
        result, statuses = rig.whole(one.engine, one.request, one.route, one.response)
    except Blocked:
        assert one.request["model"] == "strict", "blocked without being asked to"
        assert frozen(one.response) == before
        return
    assert frozen(one.response) == before, "the upstream's own object was changed"
    assert rig.ledger is not None
    assert rig.ledger.is_final
    if "corrected" not in statuses:
        assert result is None or result is one.response, "not corrected, and another object"
        return
    only_texts_differ(frozen(result), before)
    wire = formats.wire(one.route)
    assert wire is not None
    _says([e.answer for e in wire.exchanges(one.request, result)], rig.ledger.outcomes)


def _check_stream(rig: Rig, one: Case, items: list[Any]) -> None:
    before = frozen(items)
    played = list[Any]()
    try:
        statuses = rig.stream_into(played, one.engine, one.request, one.route, items, one.error, one.leaves)
    except Blocked:
        assert one.request["model"] == "strict", "blocked without being asked to"
        # a stream of Responses is begun, since LiteLLM says in an event of it that it failed
        assert {str(kind_of(item)) for item in played} <= {"response.created"}
        assert frozen(items) == before
        return
    except Exception as error:
        if error is not one.error:
            raise
        statuses = {outcome.status.value for outcome in rig.ledger.outcomes} if rig.ledger else set()
    else:
        assert one.error is None or one.leaves is not None, "the upstream broke off and nobody was told"
    assert frozen(items) == before, "the upstream's own items were changed"
    assert rig.ledger is not None
    assert rig.ledger.is_final
    ours = [item for item in played if not (isinstance(item, bytes) and item.startswith(_COMMENT))]
    assert len(played) - len(ours) <= 1, "more than one comment"
    if "corrected" not in statuses:
        expected = items if one.leaves is None else items[: one.leaves]
        first = [id(item) for item in expected[:PACKED_FROM]]
        assert [id(item) for item in ours[:PACKED_FROM]] == first, "not corrected, and other items"
        assert frozen(ours) == frozen(expected), "not corrected, and items that differ"
    elif one.leaves is None:
        _corrected_stream(one, ours, items, rig.ledger.outcomes)


def _corrected_stream(one: Case, ours: list[Any], theirs: list[Any], outcomes: list[Outcome]) -> None:
    wire = formats.wire(one.route)
    assert wire is not None
    cut = events if one.route == "/v1/messages" else list
    only_texts_differ(frozen(cut(ours)), frozen(cut(theirs)))
    told = decoded(wire, one.request, ours, safely=True)
    assert not any(exchange.inconsistent for exchange in told)
    _says([exchange.answer for exchange in told], outcomes)


def _says(answers: list[str | None], outcomes: list[Outcome]) -> None:
    """What is read from a corrected response is what the pipeline decided."""
    assert answers == [outcome.text for outcome in outcomes], "a text was lost or misplaced"


def run(rig: Rig, seeds: Iterable[int], kinds: Counter[str], failed: dict[int, str]) -> None:
    """All cases of some seeds, counted by kind; failures by seed."""
    for seed in seeds:
        one = case(seed)
        kinds[one.kind] += 1
        try:
            check(rig, one)
        except Exception:  # noqa: BLE001 - what is looked for
            failed[seed] = traceback.format_exc()


def main() -> int:
    """Many cases, with a line of progress a thousand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first case; case n has seed + n")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    kinds = Counter[str]()
    failed = dict[int, str]()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, rigged(Path(folder)) as rig:
        for first in range(args.seed, args.seed + args.cases, 1000):
            run(rig, range(first, min(first + 1000, args.seed + args.cases)), kinds, failed)
            took = time.monotonic() - started
            sys.stderr.write(f"{kinds.total()} cases, {len(failed)} failed, {took:.0f} s\n")
        seen = rig.seen
    for seed, why in list(failed.items())[:20]:
        sys.stdout.write(f"--- seed {seed}\n{why}\n")
    for name, counts in (("kind", kinds), ("outcome", seen)):
        sys.stdout.writelines(f"{name:8} {count:8} {what}\n" for what, count in counts.most_common())
    sys.stdout.write(f"{kinds.total()} cases from seed {args.seed}: {len(failed)} failed {sorted(failed)[:50]}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
