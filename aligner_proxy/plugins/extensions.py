"""All extensions of the installed plugins, applied to the way of a request.

Whatever an extension raises stays here: before and after the correction it costs only what the extension would have
added, and a wrapper's failure is a failure of the correction, like one of the engine. A stranger's coroutines run in a
thread of their own (isolation.py); what they ask of the gateway runs in the gateway's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from aligner_proxy.errors import BadRequest, CorrectionError, DeadlineExceeded, ForbiddenError, PluginFault
from aligner_proxy.gate.judge import Verdict
from aligner_proxy.plugins.api import Corrected, Extension, Inner, RequestField, TextEncoder
from aligner_proxy.plugins.isolation import InlineRunner, Runner, boundary
from aligner_proxy.policy.resolver import RequestFacts
from aligner_proxy.types import Correction, Objective, Outcome, Policy, Turn

log = logging.getLogger(__name__)
_T = TypeVar("_T")

SELECT_S = 2.0
"""How long choosing objectives may take: it reads one prompt, and mostly does so while the upstream writes."""
SELECTION_REASON = "selection_reason"
"""The extension value of a policy whose objectives were chosen; where that failed, the reason."""


@dataclass(frozen=True, slots=True)
class Member:
    """An extension, and where its coroutines run: `None` is the gateway's own loop."""

    extension: Extension
    caller: Runner | None = None


class Extensions:
    """Applies extensions in the order of their `order`, then as they were given."""

    def __init__(self, extensions: Iterable[Extension | Member] = ()) -> None:
        members = [given if isinstance(given, Member) else Member(given) for given in extensions]
        self._members = tuple(sorted(members, key=lambda member: member.extension.order))
        self._overriding = {name: self._with_own(name) for name in vars(Extension) if not name.startswith("_")}

    def _with_own(self, name: str) -> tuple[Member, ...]:
        """The extensions that have a method of their own: of the others nothing is asked."""
        return tuple(m for m in self._members if getattr(type(m.extension), name) is not getattr(Extension, name))

    def __deepcopy__(self, memo: object) -> Extensions:
        """LiteLLM copies a request's metadata, where the ledger is; extensions are the worker's, not the request's."""
        return self

    @property
    def request_fields(self) -> tuple[RequestField, ...]:
        """What requests may say beside the gateway's own fields."""
        return tuple(field for member in self._members for field in member.extension.request_fields)

    def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
        """The policy with what the request asks for; raises `BadRequest` and `ForbiddenError`."""
        for member in self._overriding["resolve"]:
            policy = _resolved(member.extension, policy, request)
        return policy

    def selects(self, policy: Policy) -> bool:
        """Whether the objectives of this policy are still to be chosen."""
        if not self._overriding["select"] or any(name == SELECTION_REASON for name, _ in policy.extensions):
            return False
        return bool(self._selecting(policy))

    async def select(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        """The policy with its objectives chosen for this conversation; itself where nothing is to be chosen.

        Where that fails, or takes longer than `SELECT_S`, `unselected` says what holds, and the policy keeps the
        reason. Only `CancelledError` leaves this.
        """
        if not self.selects(policy):
            return policy
        work = asyncio.create_task(self._selected(policy, turns, encoder))
        try:
            # A task, so that work that does not heed its cancellation keeps nobody waiting.
            await asyncio.wait({work}, timeout=min(SELECT_S, policy.deadline_s))
            error = work.exception() if work.done() and not work.cancelled() else TimeoutError()
            if error is None:
                return work.result().with_extension(SELECTION_REASON, None)
        finally:
            work.cancel()
        reason = error.reason if isinstance(error, CorrectionError) else DeadlineExceeded.reason
        log.warning("objectives are not chosen by prompt (%s): %s", policy.name, reason)
        for member in self._selecting(policy):
            stated = _quietly(member.extension, "unselected", policy, reason)
            policy = stated if isinstance(stated, Policy) else policy
        return policy.with_extension(SELECTION_REASON, reason)

    def prefill(self, policy: Policy) -> Policy:
        """The policy by which the engine reads an answer that is still being written."""
        for member in self._overriding["prefill"]:
            policy = _policy(member.extension, _call(member.extension.prefill, policy))
        return policy

    def wraps(self, policy: Policy) -> bool:
        """Whether some extension stands around the corrections under this policy."""
        return bool(self._wrapping(policy))

    def wrap(self, policy: Policy, core: Inner) -> Inner:
        """What corrects under this policy: `core`, and around it the extensions that want to be there."""
        inner = core
        for member in reversed(self._wrapping(policy)):
            inner = _Wrapper(member, inner, core)
        return inner

    def report(self, policy: Policy, answer: str, delivered: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """What the extensions say of an answer that was judged, each under its name."""
        given = (
            (member.extension.name, _quietly(member.extension, "report", policy, answer, delivered))
            for member in self._overriding["report"]
        )
        return tuple((name, report) for name, report in given if isinstance(report, Mapping))

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> dict[str, str]:
        """Headers of a response, named without `x-aligner-`."""
        return self._merged("headers", policy, outcomes)

    def trailer(self, policy: Policy, outcomes: Sequence[Outcome]) -> dict[str, str]:
        """Words of the comment that closes a stream."""
        return self._merged("trailer", policy, outcomes)

    def record(self, policy: Policy) -> dict[str, Any]:
        """What records say of the policy."""
        return self._merged("record", policy)

    def observe(self, outcome: Outcome) -> None:
        """Let every extension count an outcome."""
        for member in self._overriding["observe"]:
            _quietly(member.extension, "observe", outcome)

    def explain(self, policy: Policy, request: RequestFacts) -> list[str]:
        """Notes on a policy for `aligner-proxy check`."""
        given = (_quietly(member.extension, "explain", policy, request) for member in self._overriding["explain"])
        return [str(note) for notes in given for note in notes or ()]

    def describe(self, objective: Objective) -> str | None:
        """How an objective of an extension is met; None for all others."""
        given = (_quietly(member.extension, "describe", objective) for member in self._overriding["describe"])
        return next((str(text) for text in given if text), None)

    def _selecting(self, policy: Policy) -> list[Member]:
        return [m for m in self._overriding["select"] if _quietly(m.extension, "selects", policy)]

    def _wrapping(self, policy: Policy) -> list[Member]:
        return [m for m in self._overriding["correct"] if _call(m.extension.wraps, policy)]

    async def _selected(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        for member in self._selecting(policy):
            reachable = encoder if member.caller is None else _EncoderFromThread(encoder)
            policy = _policy(member.extension, await _select(member, policy, turns, reachable))
        return policy

    def _merged(self, method: str, *given: object) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for member in self._overriding[method]:
            merged |= _quietly(member.extension, method, *given) or {}
        return merged


NO_EXTENSIONS = Extensions()


class Selecting:
    """One request's objectives, chosen while the upstream works; whoever needs the policy waits here.

    `otherwise` is the policy where the work is lost; its objectives are then chosen where it is used.
    """

    def __init__(self, work: Coroutine[Any, Any, Policy], otherwise: Policy) -> None:
        self._task = asyncio.create_task(work)
        self._otherwise = otherwise

    async def policy(self) -> Policy:
        """The policy with its objectives chosen. Several may wait, and one that leaves leaves the others alone."""
        await asyncio.wait({self._task})
        lost = self._task.cancelled() or self._task.exception() is not None
        return self._otherwise if lost else self._task.result()

    def __deepcopy__(self, memo: object) -> Selecting:
        """LiteLLM copies metadata for its own records; a task belongs to its loop and is the same in every copy."""
        return self


class _Wrapper:
    """Satisfies `Inner`: an extension around what stands further inside."""

    def __init__(self, member: Member, inner: Inner, core: Inner) -> None:
        self._extension = member.extension
        self._caller = member.caller or InlineRunner()
        self._inner = inner if member.caller is None else _InnerFromThread(inner)
        self._core = core

    @property
    def deadline(self) -> float:
        return self._core.deadline

    async def correct(self, text: str, policy: Policy) -> Corrected:
        corrected = await self._caller.call(lambda: self._extension.correct(text, policy, self._inner))
        if not isinstance(corrected, Corrected):
            raise PluginFault(f"extension {self._extension.name} returned something that is no correction")
        return corrected

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        return await self._core.judge(text, correction, policy)

    async def has_detector(self, policy: Policy) -> bool:
        return await self._core.has_detector(policy)


class _InnerFromThread:
    """Satisfies `Inner` in a plugin's thread: what it asks runs in the gateway's loop."""

    def __init__(self, inner: Inner) -> None:
        self._inner = inner
        self._loop = asyncio.get_running_loop()

    @property
    def deadline(self) -> float:
        return self._inner.deadline

    async def correct(self, text: str, policy: Policy) -> Corrected:
        return await _in(self._loop, self._inner.correct(text, policy))

    async def judge(self, text: str, correction: Correction, policy: Policy) -> Verdict:
        return await _in(self._loop, self._inner.judge(text, correction, policy))

    async def has_detector(self, policy: Policy) -> bool:
        return await _in(self._loop, self._inner.has_detector(policy))


class _EncoderFromThread:
    """Satisfies `TextEncoder` in a plugin's thread."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._loop = asyncio.get_running_loop()

    async def identity(self) -> str:
        return await _in(self._loop, self._encoder.identity())

    async def states(self, texts: Sequence[str], layers: Sequence[int]) -> list[list[float]]:
        return await _in(self._loop, self._encoder.states(texts, layers))


async def _in(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of work in another thread's loop."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


def _select(member: Member, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Coroutine[Any, Any, Policy]:
    caller = member.caller or InlineRunner()
    return caller.call(lambda: member.extension.select(policy, turns, encoder))


def _resolved(extension: Extension, policy: Policy, request: RequestFacts) -> Policy:
    """The policy after one extension; a fault leaves it as it was, so that the operator's objectives still hold."""
    refusal: BadRequest | ForbiddenError | None = None
    try:
        with boundary():
            try:
                return _policy(extension, extension.resolve(policy, request))
            except (BadRequest, ForbiddenError) as error:
                refusal = error
    except CorrectionError as error:
        _warn(extension.name, "resolve", str(error))
        return policy
    raise refusal


def _call(method: Callable[..., _T], *given: object) -> _T:
    with boundary():
        return method(*given)


def _quietly(extension: Extension, method: str, *given: object) -> Any:
    """What a method returns; None, and a warning, where it fails."""
    try:
        return _call(getattr(extension, method), *given)
    except CorrectionError as error:
        _warn(extension.name, method, str(error))
        return None


def _policy(extension: Extension, policy: object) -> Policy:
    if not isinstance(policy, Policy):
        raise PluginFault(f"extension {extension.name} returned something that is no policy")
    return policy


@lru_cache(maxsize=1024)
def _warn(name: str, method: str, what: str) -> None:
    """Once for each kind of fault: it would otherwise fill the log with every request."""
    log.warning("extension %s: %s failed and was left out: %s", name, method, what)
