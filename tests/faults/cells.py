"""One cell: a fault, a failure policy and a stream mode. What must the client get, what did it get, and the page of it.

docs/reference/faults.md is what the cells gave. Each test compares its cell with the page; a run of all cells
with ALIGNER_PROXY_WRITE_DOCS=1 writes it. What a cell may give at all does not come from the page but from `expected`.
A further stream mode is a line in `MODES`, and a word in `expected` where it promises something else.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from aligner_proxy.errors import DeadlineExceeded
from aligner_proxy.types import FailureClass, OnError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"
WRITE = os.environ.get("ALIGNER_PROXY_WRITE_DOCS") == "1"
POLICIES = tuple(OnError)
DEADLINES = {"short": 0.8, "middle": 4.0, "long": 60.0}
"""Seconds. Short where the fault outlasts any deadline, long where an answer, good or bad, comes by itself."""

CORRECTED = "corrected"
ORIGINAL = "the original"
ERROR = "error 503"
"""For what may pass: official clients ask again."""
FINAL_ERROR = "error 422"
"""For what will not pass."""
REFUSED = "error 403"
INSIDE = "an error inside the stream"
ALONE = "as LiteLLM alone"
JUDGED = "corrected as the judge says"
NOBODY = "nobody is there; the work is given up"
FOR_THE_RECORD = "nobody is there; the work is done for the record"


@dataclass(frozen=True, slots=True)
class Mode:
    """How an answer is delivered."""

    name: str
    stream: str | None = None
    """The route's stream mode; None where the client asks for a whole response."""


MODES = (Mode("whole"), Mode("hold", "hold"), Mode("sentence", "sentence"), Mode("passthrough", "passthrough"))


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong; `kind` None: no correction fails by it. `word` begins the question and makes it happen."""

    title: str
    kind: FailureClass | None
    word: str = "rude"
    heals: bool = False
    """A later try finds it gone."""
    deadline: str = "long"
    retry_deadline: str | None = None
    otherwise: str = CORRECTED
    """What the client gets where no correction fails."""
    until_deadline: bool = False
    """Each try takes time, and more follow while there is any: whether the last one failed or was cut off is a matter
    of milliseconds."""
    pieces: bool = False
    """Tried on a stream that is released, too: each way in which one can fail, but not each fault again."""
    released: str | FailureClass | None = None
    """For a stream that is released, where it is not as for others: what its client gets, or what fails."""
    through: str = "proxy"
    """The real LiteLLM proxy over sockets, or the hooks in the test's own process."""

    def within(self, policy: OnError) -> str:
        """Which deadline the route has."""
        return (self.retry_deadline if policy is OnError.RETRY else None) or self.deadline


@dataclass(frozen=True, slots=True)
class Cell:
    """One request."""

    fault: Fault
    policy: OnError
    mode: Mode

    @property
    def model(self) -> str:
        """The model that it asks for, by which its route is found."""
        return model(self.policy, self.mode, self.fault.within(self.policy))

    @property
    def name(self) -> str:
        """In test reports."""
        return f"{self.fault.title}-{self.policy.value}-{self.mode.name}"

    def expected(self) -> str:
        """What a failure of this class means under this policy, whatever the fault.

        It holds for modes that deliver nothing before the verdict; one that does has to say here what it can promise.
        """
        if self.mode.stream == "passthrough":
            return self._passthrough()
        if self.fault.kind is FailureClass.JUDGE:
            return self._judged()
        if self.mode.stream == "sentence":
            return self._released()
        if self.fault.kind is None:
            return self.fault.otherwise
        if self.policy is OnError.RETRY:
            return CORRECTED if self.fault.heals else ORIGINAL
        if self.policy is not OnError.BLOCK:
            return ORIGINAL
        return ERROR if self.fault.kind in _PASSING else FINAL_ERROR

    def _passthrough(self) -> str:
        """The client has the original before anybody judges it, and nothing that fails later reaches it."""
        told = self.fault.otherwise if self.fault.kind is None else ORIGINAL
        return {CORRECTED: ORIGINAL, JUDGED: ORIGINAL, NOBODY: FOR_THE_RECORD}.get(told, told)

    def _judged(self) -> str:
        """Without a judge the head's verdicts stand, unless the policy blocks then."""
        if self.policy is OnError.BLOCK:
            return INSIDE if self.mode.stream == "sentence" else ERROR
        return JUDGED if self.policy is OnError.RETRY and self.fault.heals else CORRECTED

    def _released(self) -> str:
        """Its events have begun to go out, so an error is told inside it, and nothing is tried again in mid-stream.

        What the engine does not read, because it is full or away, is held: a second question may find it healed.
        """
        kind = self.fault.released or self.fault.kind
        if not isinstance(kind, FailureClass):
            return kind or self.fault.otherwise
        if self.policy is OnError.RETRY and self.fault.heals and kind in _HELD:
            return CORRECTED
        return INSIDE if self.policy is OnError.BLOCK else ORIGINAL


_HELD = (FailureClass.ENGINE_DOWN, FailureClass.OVERLOAD)
_PASSING = (*_HELD, FailureClass.TIMEOUT)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the client got, and why, as far as it is told."""

    what: str
    why: str | None = None

    def __str__(self) -> str:
        return f"{self.what} ({self.why})" if self.why else self.what


def model(policy: OnError, mode: Mode, deadline: str) -> str:
    """A model of its own for each route, so that one proxy has them all."""
    return f"{policy.value}-{mode.name}-{deadline}"


def cells(faults: tuple[Fault, ...]) -> list[Cell]:
    """All cells of these faults."""
    return [Cell(fault, policy, mode) for fault in faults for policy in POLICIES for mode in tried(fault)]


every_kind = pytest.mark.covering("cell.fault.title", "cell.fault.kind cell.policy cell.mode.name")
"""Of a test with these cells `make test` runs each fault once, and each kind of failure under each policy and mode."""
each_pair = pytest.mark.covering(
    "cell.fault.title", "cell.fault.kind cell.policy", "cell.fault.kind cell.mode.name", "cell.policy cell.mode.name"
)
"""Fewer of them, for the real proxy: each kind under each policy, and in each mode, and each policy in each mode."""


def tried(fault: Fault) -> list[Mode]:
    """The modes on which a fault is tried."""
    return [mode for mode in MODES if mode.stream not in ("sentence", "passthrough") or fault.pieces]


_UNTRIED = "-"
SEEN: dict[tuple[str, str, str], Seen] = {}
"""By fault, policy and mode; filled while the tests run."""


def check(cell: Cell, seen: Seen) -> None:
    """Compare with what must be and with the page."""
    assert seen.what == cell.expected(), str(seen)
    place = (cell.fault.title, cell.policy.value, cell.mode.name)
    if cell.fault.kind and cell.fault.until_deadline and cell.policy is OnError.RETRY:
        either = (cell.fault.kind.value, DeadlineExceeded.reason)
        seen = Seen(seen.what, " or ".join(either)) if seen.why in either else seen
    SEEN[place] = seen
    if not WRITE:
        assert told().get(place) == str(seen), f"{PAGE.name} is stale; write it with ALIGNER_PROXY_WRITE_DOCS=1"


FLEET = "fleet"
"""Through a whole fleet (tests/fleet): those rows of the page are that folder's."""


@functools.cache
def told(*, of_fleet: bool = False) -> dict[tuple[str, str, str], str]:
    """The cells of the page, without those of the fleet or these alone."""
    found = {}
    modes: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else ():
        columns = [column.strip() for column in line.strip("|").split("|")]
        if columns[0] == "fault":
            modes = columns[3:]
        elif modes and _is_row(line) and (columns[1] == FLEET) == of_fleet:
            cells_of = zip(modes, columns[3:], strict=True)
            found.update({(columns[0], columns[2], mode): said for mode, said in cells_of if said != _UNTRIED})
    return found


def _is_row(line: str) -> bool:
    return line.startswith("| ") and not line.startswith("| fault ")


def row(columns: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(columns)} |"


_PAGE = """# What a client gets when something fails

Each cell says what the client got for one request under a fault, or, in rows with *fleet* in the column *through*, for
many requests to a fleet. The tests in tests/faults/ and tests/fleet/ write this page, and fail if a client gets
anything else than the page says. To write the page again, run `ALIGNER_PROXY_WRITE_DOCS=1 python -m pytest
tests/faults`, and `make fleet-test` with the same variable. In none of the {count} cells, the client waited without
an end (a test would fail), and in none an answer of the upstream was lost. The client always got the correction, the
original, or an error that names the failure. For example, with `on_error: block`, an engine that never
answers leads to *error 503 (timeout)*.

- **whole** is a response that is not streamed. **hold** and **sentence** are streams under `stream: hold` and
  `stream: sentence`; in **sentence**, the fault comes before the first segment or during the edit. **passthrough** is
  a stream under `stream: passthrough`, which is delivered unchanged and corrected only for the record. *Policy* is
  the route's `on_error`. If *retry* does not help, the client gets the original (`after_retry: passthrough`).
- **proxy** means that the request went through the real LiteLLM proxy over sockets, with the engine and the upstream in
  separate processes. **hooks** means that the test itself called the hooks that LiteLLM calls, in the test's own
  process, with a real store. **fleet** means that many requests of all tenants went to two gateways behind HAProxy on
  separate hosts ([fleet.md](fleet.md)); such a cell lists everything that a client may get.
- The brackets hold the class of the failure ([operations](../guides/operations.md)) or, if no correction failed, the
  reason.
- *once* and *for a moment* mean that the fault is over at the second try. All other faults last longer than the
  deadline, or come with every try.
- In rows about a **judge**, the policy is `on_error: {{judge: ...}}`. *Corrected* then means the correction by the head
  alone, and *corrected as the judge says* means that a sentence that only the judge flags is also removed. Rows about a
  **token classifier** are about a judge in the engine. In rows about a **judge of facts**, the answer has one wrong
  fact that the comparison of words corrects, and one wrong fact that only the judge finds.
- *the original* is the upstream's answer, with its text and form unchanged. *error 503* and *error 422* are errors in
  OpenAI's format with the type `aligner_error`; clients do not repeat a request after a 422. *as LiteLLM alone* means
  that the client gets the same bytes as from a route with `mode: off`, except for ids and names.

| fault | through | policy | {modes} |
|---|---|---|{lines}|
{rows}
"""


def page(faults: tuple[Fault, ...]) -> str:
    """The page of what was seen, with the rows of the fleet as they are."""
    rows = []
    for fault in faults:
        for policy in POLICIES:
            said = [str(SEEN.get((fault.title, policy.value, mode.name), _UNTRIED)) for mode in MODES]
            rows.append(row([fault.title, fault.through, policy.value, *said]))
    known = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    of_fleet = [line for line in known if _is_row(line) and f" | {FLEET} | " in line]
    modes = " | ".join(mode.name for mode in MODES)
    lines = "|".join("---" for _ in MODES)
    count = len(SEEN) + len(of_fleet) * len(MODES)
    return _PAGE.format(count=count, modes=modes, lines=lines, rows="\n".join([*rows, *of_fleet]))


def with_fleet(rows: Sequence[str]) -> str:
    """The page as it is, with these rows of the fleet."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    others = [line for line in lines if not (_is_row(line) and f" | {FLEET} | " in line)]
    count = len(told()) + len(rows) * len(MODES)
    return re.sub(r"\d+ cells:", f"{count} cells:", "\n".join([*others, *rows, ""]))
