"""Does an enforced objective hold, whatever client and upstream do? No answer with its defect may reach the client.

`python -m tests.fuzz.enforced --cases 20000 --seed 1` tries many hostile requests on the guardrail of the gateway, with
an engine that always finds the defect and takes it out. What the client gets must be corrected, blocked, or an error
that the policy names. A case that fails is named by its seed, and by what was tried.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import json
import logging
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from pydantic import BaseModel

from aligner_proxy.engine.api import AlignerInfo, AlignRequest, DeferredSession, Engine, Session
from aligner_proxy.errors import AnswerTooLong, CorrectionError, EngineFault, EngineOverloaded, NotPutIn, QuotaSpent
from aligner_proxy.gateway import litellm_internals, reload, request_state
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy.schema import PolicySettings
from aligner_proxy.types import Correction, SegmentScore
from tests.fuzz.hostile import Case, case, defective
from tests.support.scripted import SegmentEngine

ROUTES: dict[str, dict[str, Any]] = {
    "hold": {},
    "sentence": {"stream": "sentence"},
    "json": {"json_strings": "correct"},
    "always": {"verify": "always"},
    "short": {"max_answer_chars": 200},
    "sampled": {"sample": 0.5},
    "careful": {"caution": 1.0, "stream": "sentence"},
    "patient": {"on_error": {"timeout": "retry", "overload": "retry"}, "after_retry": "block"},
    "skip judged": {"on_skip": "judge"},
    "skip blocked": {"on_skip": "block", "stream": "sentence"},
}
"""Routes by the model that names them, beside the tenant that enforces and blocks."""
POLICIES = tuple(name for name, settings in ROUTES.items() if settings.keys() <= PolicySettings.model_fields.keys())
REFUSALS = (400, 403, 413, 422, 429, 503)
"""Statuses of errors that are ours, by which a client learns that there is no answer."""


def policies(enforced: str | None) -> dict[str, Any]:
    """The policies file: one tenant, for which this objective is enforced and every failure blocks; None: for none."""
    routes = [{"match": {"model": name}, "name": f"r{n}", **ROUTES[name]} for n, name in enumerate(POLICIES)]
    tenant = {"match": {"team": "acme"}, "mode": "enforce", "enforce": [enforced], "on_error": "block"}
    objective = "Kindness: the response should never insult the reader"
    if enforced is None:
        return {"objectives": {"kind": objective}, "routes": [{"match": {"model": "*"}, "objectives": ["kind"]}]}
    return {"objectives": {"kind": objective}, "routes": routes, "tenants": [tenant]}


@lru_cache(maxsize=10_000)
def _score(segment: str) -> float:
    return 5.0 if defective(segment) else -5.0


class Delivered(AssertionError):
    """The original reached the client. `outcomes` says what the pipeline made of its texts."""

    def __init__(self, outcomes: tuple[str, ...], text: str) -> None:
        super().__init__(f"the original was delivered ({', '.join(outcomes)}): {text[:200]!r}")
        self.outcomes = outcomes


class FailingEngine:
    """An engine that does what another one does, or fails in the way that a case says. Satisfies `Engine`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.way = "correct"

    async def info(self) -> AlignerInfo:
        """The other's."""
        return await self._engine.info()

    async def align(self, request: AlignRequest) -> Correction:
        """The correction, or the failure of the case."""
        errors: dict[str, Exception] = {
            "too long": AnswerTooLong("scripted"),
            "quota": QuotaSpent("scripted"),
            "fail": EngineFault("scripted"),
            "bug": KeyError("scripted"),
            "overload": EngineOverloaded("scripted", 0.0),
        }
        if self.way in errors:
            raise errors[self.way]
        if self.way == "empty":
            return Correction("", (SegmentScore(request.answer, 5.0, True, 0),))
        if self.way == "noise":
            return Correction("\ud800 noise", (SegmentScore("not there", float("nan"), True, 99),))
        return await self._engine.align(request)

    async def read(self, request: AlignRequest) -> Session:
        """A session that reads along, where the engine does not fail."""
        return await self._engine.read(request) if self.way == "correct" else DeferredSession(self)

    async def aclose(self) -> None:
        """The other is closed by whoever made it."""


class Enforced:
    """The guardrail under the policies, one event loop, and what became of the cases."""

    def __init__(
        self, guard: AlignerGuardrail, runner: asyncio.Runner, engine: Engine, leaks: Callable[[str], bool]
    ) -> None:
        self.guard = guard
        self.runner = runner
        self.engine = FailingEngine(engine)
        self._leaks = leaks
        self.outcomes: tuple[str, ...] = ()
        """Of the last case."""
        self.guard.pipeline = Pipeline(self.engine, extensions=self.guard.pipeline.extensions)
        self.seen: Counter[str] = Counter()
        """Outcomes, and refusals without one."""

    def check(self, one: Case) -> None:
        """Raises `Delivered` if the defect of a case reaches its client."""
        got, error = self.play(one)
        leaked = next((text for text in texts(got) if self._leaks(text)), None)
        if leaked is not None:
            raise Delivered(self.outcomes, leaked)
        if error is None or acceptable(error):
            return
        raise error

    def play(self, one: Case) -> tuple[list[Any], Exception | None]:
        """Everything that reaches the client of a case, and the error that ends it."""
        return self.runner.run(self._play(one))

    async def _play(self, one: Case) -> tuple[list[Any], Exception | None]:
        """Everything that reaches the client, and the error that ends it."""
        self.outcomes = ()
        self.engine.way = one.draft.engine
        metadata = {"aligner": one.draft.settings} if one.draft.settings else {}
        user = UserAPIKeyAuth(api_key="a" * 64, request_route=one.endpoint, team_id="acme", metadata=metadata)
        data = copy.deepcopy(one.request)
        got: list[Any] = []
        error: Exception | None = None
        try:
            await self.guard.async_pre_call_hook(user, None, data, "acompletion")
            if one.items is None:
                answer = await self.guard.async_post_call_success_hook(data, user, one.response)
                got.append(one.response if answer is None else answer)
            else:
                source = self.guard.async_post_call_streaming_iterator_hook(user, _flow(one.items), data)
                async with contextlib.aclosing(source) as items:
                    async for item in items:
                        got.append(item)
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is looked at
            error = raised
        self._count(data, error)
        return got, error

    def _count(self, data: dict[str, Any], error: Exception | None) -> None:
        state = request_state.find_state(data)
        outcomes = [f"{outcome.status.value} {outcome.reason}" for outcome in state.outcomes] if state else []
        self.outcomes = tuple(outcomes)
        self.seen.update(outcomes or [f"refused {type(error).__name__}" if error else "no outcome"])


async def _flow(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0)
        if isinstance(item, Exception):
            raise item
        yield item


def acceptable(error: Exception) -> bool:
    """Whether an error tells the client that there is no answer, as a policy or a rule for requests says."""
    if isinstance(error, ProxyException):
        return str(error.code) in map(str, REFUSALS)
    return isinstance(error, NotPutIn | CorrectionError)


def texts(got: Iterable[Any]) -> Iterator[str]:
    """Every text that a client can read: each string alone, and the pieces of a stream put together."""
    joined: dict[tuple[object, ...], list[str]] = {}
    items = list(got)
    raw = b"".join(item for item in items if isinstance(item, bytes))
    for item in [*(item for item in items if not isinstance(item, bytes)), *_events(raw)]:
        value = item.model_dump() if isinstance(item, BaseModel) else item
        place = [value.get(name) for name in _PLACES] if isinstance(value, dict) else []
        for path, text in _strings(value):
            yield text
            joined.setdefault((*place, *path), []).append(text)
    yield from ("".join(pieces) for pieces in joined.values() if len(pieces) > 1)


_PLACES = ("type", "index", "item_id", "content_index")
"""What tells the texts of a stream apart, where its items say so."""


def _events(raw: bytes) -> Iterator[Any]:
    for line in raw.decode(errors="replace").splitlines():
        if line.startswith("data: {"):
            try:
                yield json.loads(line[6:])
            except ValueError:
                yield line


def _strings(value: Any, path: tuple[object, ...] = ()) -> Iterator[tuple[tuple[object, ...], str]]:
    """Every string in a value, with its path; a choice of a stream counts by its index, not by its place."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, BaseModel):
        yield from _strings(value.model_dump(), path)
    elif isinstance(value, dict):
        mark = (value["index"],) if isinstance(value.get("index"), int) else ()
        for name, inner in value.items():
            yield from _strings(inner, (*path, *mark, name))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            numbered = isinstance(inner, dict) and isinstance(inner.get("index"), int)
            yield from _strings(inner, path if numbered else (*path, number))


def run(enforced: Enforced, cases: Iterable[Case], tried: Counter[str], failed: dict[int, str]) -> None:
    """All of these cases, counted by trick; failures by seed."""
    for one in cases:
        tried.update(one.tricks)
        try:
            enforced.check(one)
        except Exception:  # noqa: BLE001 - what is looked for
            failed[one.seed] = f"{one.title}\n{traceback.format_exc(limit=-3)}"


@contextlib.contextmanager
def quiet_gateway(folder: Path, policies_file: Mapping[str, Any]) -> Iterator[AlignerGuardrail]:
    """A guardrail with these policies and its files in `folder`, and a quiet log."""
    logger = logging.getLogger("aligner_proxy")
    level = logger.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litellm_internals, "config_folder", lambda: folder)
        patch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
        logger.setLevel(logging.CRITICAL)
        (folder / "policies.yaml").write_text(yaml.safe_dump(policies_file))
        reload._watch_policies.cache_clear()
        try:
            yield AlignerGuardrail(guardrail_name="aligner", event_hook="post_call", default_on=True)
        finally:
            logger.setLevel(level)


@contextlib.contextmanager
def enforcing(
    folder: Path,
    engine: Engine | None = None,
    enforced: str | None = "kind",
    leaks: Callable[[str], bool] = defective,
) -> Iterator[Enforced]:
    """The guardrail, with its files in `folder` and a quiet log; by default with an engine that finds every defect.

    `leaks` says of a text that a client can read whether it should not have got it.
    """
    with quiet_gateway(folder, policies(enforced)) as guard, asyncio.Runner() as runner:
        yield Enforced(guard, runner, engine or SegmentEngine(_score), leaks)


def main() -> int:
    """Many cases, with a line of progress a thousand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first case; case n has seed + n")
    parser.add_argument("--show", type=int, default=20, help="how many failures are shown in full")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    tried = Counter[str]()
    failed = dict[int, str]()
    last = args.seed + args.cases
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, enforcing(Path(folder)) as enforced:
        for first in range(args.seed, last, 1000):
            cases = (case(seed, POLICIES) for seed in range(first, min(first + 1000, last)))
            run(enforced, cases, tried, failed)
            took = time.monotonic() - started
            sys.stderr.write(f"{min(first + 1000, last) - args.seed} cases, {len(failed)} failed, {took:.0f} s\n")
        seen = enforced.seen
    for seed, why in list(failed.items())[: args.show]:
        sys.stdout.write(f"--- seed {seed}\n{why}\n")
    blamed = Counter(trick for seed in failed for trick in case(seed, POLICIES).tricks)
    for name, counts in (("tried", tried), ("outcome", seen), ("in a failed case", blamed)):
        sys.stdout.writelines(f"{name:16} {count:8} {what}\n" for what, count in counts.most_common(40))
    sys.stdout.write(f"{args.cases} cases from seed {args.seed}: {len(failed)} failed {sorted(failed)[:50]}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
