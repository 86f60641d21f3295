"""Extensions of the installed plugins, applied to requests.

This module catches the errors of extensions. An error before or after the correction only costs what the extension
would have added. An error of a wrapper fails the correction, like an error of the engine. `Boundary` lets our own
errors and cancellations pass, and replaces all other errors by one without their text. Third-party coroutines run in
their own thread (isolation.py); their calls into the gateway run in the gateway's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from operator import methodcaller
from types import NoneType
from typing import Any, Protocol, TypeVar

from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.errors import BadRequest, CorrectionError, DeadlineExceeded, ForbiddenError, PluginFault
from aligner_proxy.plugins.api import BodyField, CheckTable, Corrected, Extension, Inner, RequestField, TextEncoder
from aligner_proxy.plugins.inner import InnerWrapper
from aligner_proxy.plugins.stage import (
    LAST,
    AnswerSoFar,
    Hold,
    Outgoing,
    PolicyEditor,
    PolicyJudge,
    Stage,
    StageModels,
    Stop,
)
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Objective, Outcome, Policy, Turn

log = logging.getLogger(__name__)
_T = TypeVar("_T")

SELECT_S = 2.0
"""Time limit in seconds for choosing objectives, which mostly happens while the upstream writes."""
SELECTION_REASON = "selection_reason"
"""Extension value of a policy whose objectives were chosen: None, or the reason why choosing failed."""


Work = Callable[[], Coroutine[Any, Any, _T]]
"""Makes the coroutine that a `Runner` runs."""


class Runner(Protocol):
    """Runs plugin code in some thread or loop."""

    async def call(self, work: Work[_T]) -> _T:
        """Run the coroutine that `work` makes and return its result; raises `CorrectionError` and `CancelledError`."""


class Boundary:
    """Context manager around plugin code; lets our errors and cancellations pass, and replaces all other errors."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            _raise_as_ours(error)


def _raise_as_ours(error: BaseException) -> None:
    """Raise an error of this package in place of an error in plugin code; return if the error itself may pass."""
    if isinstance(error, CorrectionError):
        # Policies know no class of errors that a plugin defined itself, and its reason could be anything.
        if type(error).__module__.partition(".")[0] != "aligner_proxy":
            raise PluginFault(f"a plugin raised {type(error).__name__}") from None
    elif isinstance(error, TimeoutError):
        raise DeadlineExceeded("a plugin ran out of time") from None
    elif isinstance(error, Exception | SystemExit):  # the message of a foreign exception may quote answers
        raise PluginFault(f"a plugin raised {type(error).__name__}") from None


class InlineRunner:
    """Runs the code of our own plugins in the gateway's event loop. Satisfies `Runner`."""

    async def call(self, work: Work[_T]) -> _T:
        with Boundary():
            return await work()


@dataclass(frozen=True, slots=True)
class ExtensionWithRunner:
    """An extension, and what runs its coroutines."""

    extension: Extension
    runner: Runner | None = None
    """None runs them in the gateway's own loop."""


class Extensions:
    """The extensions of a worker, sorted by their `order`. An extension without a runner runs in the gateway's loop."""

    def __init__(self, extensions: Iterable[Extension | ExtensionWithRunner] = ()) -> None:
        members = [item if isinstance(item, ExtensionWithRunner) else ExtensionWithRunner(item) for item in extensions]
        self._members = tuple(sorted(members, key=lambda member: member.extension.order))
        self._members_by_method = {
            name: self._find_members_with(name) for name in vars(Extension) if not name.startswith("_")
        }
        """The extensions that override a method, by the method's name."""
        self.request_fields: tuple[RequestField, ...] = tuple(
            field for member in self._members for field in member.extension.request_fields
        )
        """Request fields that extensions add to the gateway's own."""

    def _find_members_with(self, name: str) -> tuple[ExtensionWithRunner, ...]:
        """The extensions that override the method with this name, so that it has to be called."""
        default = getattr(Extension, name)
        return tuple(member for member in self._members if getattr(type(member.extension), name) is not default)

    def __deepcopy__(self, memo: object) -> Extensions:
        """Return this object: LiteLLM copies a request's metadata and state, but extensions belong to the worker."""
        return self

    @property
    def body_fields(self) -> tuple[BodyField, ...]:
        """Fields that extensions add to the body of `POST /v1/align`."""
        return tuple(field for member in self._members for field in member.extension.body_fields)

    def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
        """The policy with the request's settings; raises `BadRequest` or `ForbiddenError` to refuse the request."""
        for member in self._members_by_method["resolve"]:
            policy = _call_resolve(member.extension, policy, request)
        return policy

    async def resolve_async(self, policy: Policy, request: RequestFacts) -> Policy:
        """Return what `resolve` returns, computed in a thread if the texts of the request are long."""
        if not self._members_by_method["resolve"]:
            return policy
        chars = len(request.system) + sum(len(str(value)) for value in request.fields.values())
        return await run_off_loop(chars, partial(self.resolve, policy, request))

    def selects(self, policy: Policy) -> bool:
        """Whether the objectives of this policy still have to be chosen."""
        # `select` stores this value, even if it is None, once the objectives have been chosen
        if not self._members_by_method["select"] or any(name == SELECTION_REASON for name, _ in policy.extensions):
            return False
        return bool(self._selecting_members(policy))

    async def select(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        """The policy with its objectives chosen for this conversation; unchanged if no extension chooses.

        If choosing fails, or takes longer than `SELECT_S`, the policy is that of the extensions' `unselected`, and the
        reason is logged and stored in it. Raises only `CancelledError`.
        """
        if not self.selects(policy):
            return policy
        selection = asyncio.create_task(self._run_selection(policy, turns, encoder))
        try:
            # `wait` returns at the timeout even if the task ignores a cancellation, so the request is not blocked
            await asyncio.wait({selection}, timeout=min(SELECT_S, policy.deadline_s))
            # a plugin may cancel its own work, which counts as a timeout
            error: BaseException | None = TimeoutError()
            if selection.done() and not selection.cancelled():
                error = selection.exception()
            if error is None:
                return selection.result().with_extension(SELECTION_REASON, None)
        finally:
            selection.cancel()
        reason = error.reason if isinstance(error, CorrectionError) else DeadlineExceeded.reason
        log.warning("choosing objectives by prompt failed, so policy %s uses its fallback: %s", policy.name, reason)
        for member in self._selecting_members(policy):
            fallback = _call_logging_errors(member.extension, "unselected", policy, reason)
            policy = fallback if isinstance(fallback, Policy) else policy
        return policy.with_extension(SELECTION_REASON, reason)

    def prefill(self, policy: Policy) -> Policy:
        """The policy under which the engine reads an answer ahead while it is being written."""
        for member in self._members_by_method["prefill"]:
            policy = _check_policy(member.extension, _call_guarded(member.extension.prefill, policy))
        return policy

    def wraps(self, policy: Policy) -> bool:
        """Whether an extension wraps corrections under this policy, so that streams are held."""
        return bool(self._wrapping_members(policy))

    def wrap(self, policy: Policy, core: Inner) -> Inner:
        """Return the correction `core` inside the wrappers of all extensions that wrap it under this policy."""
        wrapped = core
        # from the inside out, so that the extension with the lowest `order` ends up outermost
        for member in reversed(self._wrapping_members(policy)):
            # an extension changes only how `wrapped` corrects; all other calls go to `core` directly
            wrapped = _Wrapper(member, inner=wrapped, core=core)
        return wrapped

    def stages(self, policy: Policy) -> list[Stage]:
        """New stages of all extensions for one answer under this policy."""
        return [
            PluginStage(member, stage)
            for member in self._members_by_method["stages"]
            for stage in _plugin_stages(member.extension, policy)
        ]

    @property
    def has_reports(self) -> bool:
        """Whether any extension reports on answers."""
        return bool(self._members_by_method["report"])

    def report(self, policy: Policy, answer: str, delivered: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """(name of the extension, its report) for each report on a judged answer."""
        reports = (
            (member.extension.name, _call_logging_errors(member.extension, "report", policy, answer, delivered))
            for member in self._members_by_method["report"]
        )
        return tuple((name, report) for name, report in reports if isinstance(report, Mapping))

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> dict[str, str]:
        """The response headers of all extensions, by name without `x-aligner-`."""
        return self._merge_results("headers", policy, outcomes)

    def trailer(self, policy: Policy, outcomes: Sequence[Outcome]) -> dict[str, str]:
        """The fields, by name, that all extensions add to the comment at the end of a stream (`debug_trailer`)."""
        return self._merge_results("trailer", policy, outcomes)

    def record(self, policy: Policy) -> dict[str, Any]:
        """The fields about a policy that all extensions put into records and audit entries, by name."""
        return self._merge_results("record", policy)

    def observe(self, outcome: Outcome) -> None:
        """Let all extensions count an outcome in their metrics."""
        for member in self._members_by_method["observe"]:
            _call_logging_errors(member.extension, "observe", outcome)

    def explain(self, policy: Policy, request: RequestFacts) -> list[str]:
        """The notes of all extensions on a request's policy, for `aligner-proxy check`."""
        return [str(note) for notes in self._call_all("explain", policy, request) for note in notes or ()]

    def tables(self, policy: Policy) -> list[CheckTable]:
        """The tables of all extensions for `aligner-proxy check`."""
        table_lists = self._call_all("tables", policy)
        return [table for tables in table_lists for table in tables or () if isinstance(table, CheckTable)]

    def details(self, policy: Policy) -> dict[str, Any]:
        """The fields, by name, that all extensions add to `aligner-proxy check --json`."""
        return self._merge_results("details", policy)

    def describe(self, objective: Objective) -> str | None:
        """How an objective is met, by the first extension that says so; None if none does."""
        return next((str(text) for text in self._call_all("describe", objective) if text), None)

    def _selecting_members(self, policy: Policy) -> list[ExtensionWithRunner]:
        """The extensions that choose objectives under this policy."""
        members = self._members_by_method["select"]
        return [member for member in members if _call_logging_errors(member.extension, "selects", policy)]

    def _wrapping_members(self, policy: Policy) -> list[ExtensionWithRunner]:
        """The extensions that wrap corrections under this policy; raises `CorrectionError` if one cannot tell."""
        members = self._members_by_method["correct"]
        return [member for member in members if _call_guarded(member.extension.wraps, policy)]

    async def _run_selection(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        """The policy after the extensions have chosen one after another; raises `CorrectionError` if one fails."""
        for member in self._selecting_members(policy):
            runner = member.runner or InlineRunner()
            # the encoder belongs to the gateway's loop, which is not that of a thread
            usable_encoder = encoder if member.runner is None else _FromThread(encoder)
            select = partial(member.extension.select, policy, turns, usable_encoder)
            policy = _check_policy(member.extension, await runner.call(select))
        return policy

    def _merge_results(self, method: str, *arguments: object) -> dict[str, Any]:
        """Call a method of all extensions and merge the mappings that it returns; of equal keys the last one counts."""
        merged: dict[str, Any] = {}
        for member in self._members_by_method[method]:
            merged |= _call_logging_errors(member.extension, method, *arguments) or {}
        return merged

    def _call_all(self, method: str, *arguments: object) -> Iterator[Any]:
        """Yield the result of a method for each extension that overrides it; None for one that fails."""
        for member in self._members_by_method[method]:
            yield _call_logging_errors(member.extension, method, *arguments)


NO_EXTENSIONS = Extensions()


class RunningSelection:
    """Chooses the objectives of one request in a task, while the upstream works.

    `selection` returns the policy with its objectives chosen. `fallback` is the policy if `selection` fails; its
    objectives are then chosen when it is used.
    """

    def __init__(self, selection: Coroutine[Any, Any, Policy], fallback: Policy) -> None:
        self._task = asyncio.create_task(selection)
        self._fallback = fallback

    async def policy(self) -> Policy:
        """Wait for the policy with its objectives chosen. Cancelling one caller does not affect the others."""
        await asyncio.wait({self._task})
        has_failed = self._task.cancelled() or self._task.exception() is not None
        return self._fallback if has_failed else self._task.result()

    def __deepcopy__(self, memo: object) -> RunningSelection:
        """Return this object: LiteLLM copies metadata for its records, but a task belongs to its loop."""
        return self


class _Wrapper(InnerWrapper):
    """An extension's wrapper around `inner`. All calls but `correct` go to `core`, the innermost correction."""

    def __init__(self, member: ExtensionWithRunner, inner: Inner, core: Inner) -> None:
        super().__init__(core)
        self._extension = member.extension
        self._runner = member.runner or InlineRunner()
        self._next = inner if member.runner is None else _FromThread(inner)
        """The correction that the extension wraps, as the extension gets it; it runs in the gateway's loop."""

    async def correct(self, text: str, policy: Policy) -> Corrected:
        """Have the extension correct the text; raises `PluginFault` if it returns something other than a correction."""
        corrected = await self._runner.call(lambda: self._extension.correct(text, policy, self._next))
        if not isinstance(corrected, Corrected):
            raise PluginFault(f"extension {self._extension.name} returned something other than a correction")
        return corrected


class PluginStage(Stage):
    """A stage of a plugin. It runs in the plugin's thread, if it has one, and its results are type-checked."""

    def __init__(self, member: ExtensionWithRunner, stage: Stage) -> None:
        self.inner = stage
        order: object = getattr(stage, "order", None)
        # a plugin may have set no order, or one that is no number
        self.order = order if isinstance(order, int) else LAST
        self._extension = member.extension
        self._has_thread = member.runner is not None
        """Whether the stage runs in the plugin's thread instead of the gateway's loop."""
        self._runner = member.runner or InlineRunner()

    async def admit(self, answer: AnswerSoFar) -> Stop | Hold | None:
        answer = self._open_to_thread(answer)
        admission = await self._runner.call(lambda: self.inner.admit(answer))
        return self._check_type(admission, Stop, Hold, NoneType)

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        answer = self._open_to_thread(answer)
        new_outgoing = await self._runner.call(lambda: self.inner.release(outgoing, answer))
        return self._check_type(new_outgoing, Outgoing)

    async def finalize(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        answer = self._open_to_thread(answer)
        new_outcome = await self._runner.call(lambda: self.inner.finalize(outcome, answer))
        return self._check_type(new_outcome, Outcome)

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome with the report of the plugin's stage; if this fails, log a warning and return it unchanged."""
        try:
            return self._check_type(_call_guarded(self.inner.report, outcome, answer), Outcome)
        except CorrectionError as error:
            _warn(self._extension.name, "report", str(error))
            return outcome

    def _open_to_thread(self, answer: AnswerSoFar) -> AnswerSoFar:
        """The answer, whose models the plugin's thread can ask if the stage runs there."""
        return replace(answer, models=_ModelsFromThread(answer.models)) if self._has_thread else answer

    def _check_type(self, result: _T, *types: type) -> _T:
        """Return `result`; raises `PluginFault` if it is of none of these types."""
        if not isinstance(result, types):
            raise PluginFault(f"a stage of extension {self._extension.name} returned a {type(result).__name__}")
        return result


class FailedStages(Stage):
    """Stands in for the stages that an extension failed to create; makes the correction fail with this `error`."""

    def __init__(self, error: CorrectionError) -> None:
        self._error = error

    async def admit(self, answer: AnswerSoFar) -> None:
        raise self._error


class _FromThread:
    """Lets a plugin's thread use `target`, an object of the gateway's loop: its coroutines run in this loop.

    Must be created in the gateway's loop, unless `loop` is given.
    """

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._target = target
        self._loop = loop or asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        """The target's attribute; a method becomes a coroutine function that the plugin's thread can await."""
        value = getattr(self._target, name)
        return partial(self._call, value) if callable(value) else value

    async def _call(self, method: Callable[..., Coroutine[Any, Any, _T]], *values: Any, **keywords: Any) -> _T:
        """The result of `method`, run in the gateway's loop while the plugin's loop waits for it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(method(*values, **keywords), self._loop))


class _ModelsFromThread(StageModels):
    """Opens editor and judge for a plugin's thread; must be created in the gateway's loop."""

    def __init__(self, models: StageModels) -> None:
        self._models = models
        self._loop = asyncio.get_running_loop()

    def open_editor(self, answer: AnswerSoFar) -> PolicyEditor | None:
        editor = self._models.open_editor(answer)
        return None if editor is None else _FromThread(editor, self._loop)

    def open_judge(self, answer: AnswerSoFar) -> PolicyJudge | None:
        judge = self._models.open_judge(answer)
        return None if judge is None else _FromThread(judge, self._loop)


def _call_resolve(extension: Extension, policy: Policy, request: RequestFacts) -> Policy:
    """The policy that an extension's `resolve` returns; if the extension fails, `policy` itself, with its objectives.

    Raises `BadRequest` or `ForbiddenError` if the extension refuses the request.
    """
    # The boundary would turn these two errors into a fault of the plugin, so they are raised only after it is left.
    refusal: BadRequest | ForbiddenError | None = None
    try:
        with Boundary():
            try:
                return _check_policy(extension, extension.resolve(policy, request))
            except (BadRequest, ForbiddenError) as error:
                refusal = error
    except CorrectionError as error:
        _warn(extension.name, "resolve", str(error))
        return policy
    raise refusal


def _call_guarded(method: Callable[..., _T], *arguments: object) -> _T:
    """Call a plugin's method and return its result; raises `CorrectionError` in place of any error of the plugin."""
    try:  # faster than `Boundary`, for every request
        return method(*arguments)
    except BaseException as error:
        _raise_as_ours(error)
        raise


def _plugin_stages(extension: Extension, policy: Policy) -> Sequence[Stage]:
    """The stages that an extension creates; if it fails to create them, a single stage that always fails."""
    try:
        stages = _call_guarded(extension.stages, policy)
        # `settle` is the old name of `finalize`. Such a stage would silently decide nothing, so the correction fails.
        if any(hasattr(stage, "settle") for stage in stages):
            raise PluginFault(f"extension {extension.name} has a stage with `settle`, which is called `finalize` now")
    except CorrectionError as error:
        return [FailedStages(error)]
    return stages


def _call_logging_errors(extension: Extension, method: str, *arguments: object) -> Any:
    """Call the extension's method with this name and return its result; if it fails, log a warning and return None."""
    try:
        return _call_guarded(methodcaller(method, *arguments), extension)
    except CorrectionError as error:
        _warn(extension.name, method, str(error))
        return None


def _check_policy(extension: Extension, policy: object) -> Policy:
    """Return `policy`, which an extension returned; raises `PluginFault` if it is no policy."""
    if not isinstance(policy, Policy):
        raise PluginFault(f"extension {extension.name} returned something other than a policy")
    return policy


@lru_cache(maxsize=1024)
def _warn(name: str, method: str, fault: str) -> None:
    """Log that a method of the extension `name` failed; each fault only once per worker, as it may recur often."""
    log.warning("extension %s: %s failed and was skipped: %s", name, method, fault)
