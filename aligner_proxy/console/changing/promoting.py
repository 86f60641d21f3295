"""The page of promotion: a change of policy, what a replay and the reviews say of it, its difference, and the button.

It is the operator's alone, and does what `aligner-proxy promote` does. Nothing is kept between two forms but a replay:
each form says the whole change, and the last one also which difference it was shown.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from aligner_proxy.audit import writer
from aligner_proxy.audit.promotion import PERIOD_S, Proposal, Ruling, Settings, Target, proposal, ruling
from aligner_proxy.audit.review_queue import entry_at
from aligner_proxy.console.answer import Shown
from aligner_proxy.console.changing.known_objectives import known_objectives
from aligner_proxy.console.forms import PageError
from aligner_proxy.console.long_work import Work
from aligner_proxy.console.pages import Visit, refuse_reviewers
from aligner_proxy.errors import AuditError, ConfigError
from aligner_proxy.policy import shares
from aligner_proxy.policy.resolver import entry_name
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_file import Value
from aligner_proxy.teaching.store import path_of
from aligner_proxy.types import DEFAULT_ALIGNER, Mode

log = logging.getLogger(__name__)

PATH = "/promote"
LIMITS = (100, 300, 1000)
"""Answers of a replay."""
_FIELDS = ("where", "mode", "sample", "caution", "objective", "aligner", "shadow_aligner")
_MOST_LISTED = 20
_SAME = "the same"
_CHANGED = "The policies file, or the change, is not what the page showed any more; look at it again."


@dataclass(frozen=True, slots=True)
class _Shown:
    """A change as the page shows it."""

    change: Proposal
    ruling: Ruling | None

    @property
    def digest(self) -> str:
        """What tells this change of this file from any other."""
        both = self.change.before + "\0" + self.change.after
        return hashlib.sha256(both.encode(errors="replace")).hexdigest()

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The lines of the difference: added, removed, or neither."""
        kinds = {"+": "added", "-": "removed"}
        return [(kinds.get(line[:1], "kept"), line) for line in self.change.diff[2:]]


async def promote(visit: Visit) -> Response:
    """The form of a change."""
    refuse_reviewers(visit)
    return await asyncio.to_thread(_page, visit, {}, None)


async def change(visit: Visit, form: dict[str, str]) -> Response:
    """Show a change, replay answers under it, or write it."""
    refuse_reviewers(visit)
    act = form.get("act")
    given = {name: form.get(name, "").strip() for name in _FIELDS}
    try:
        shown = await asyncio.to_thread(_shown, visit, given)
    except (ConfigError, AuditError) as error:
        return await asyncio.to_thread(_page, visit, given, None, problem=str(error))
    if act == "replay":
        _replay(visit, shown, form.get("limit", ""))
    elif act == "write":
        if form.get("digest") != shown.digest:
            raise PageError(409, _CHANGED)
        return await asyncio.to_thread(_written, visit, given, shown)
    return await asyncio.to_thread(_page, visit, given, shown)


async def replayed(visit: Visit) -> Response:
    """How far the replay is, which the page asks for by itself."""
    refuse_reviewers(visit)
    work = visit.services.works.of(_work_name(visit))
    listed = await asyncio.to_thread(_differing, visit, work)
    return visit.page("replayed.html", work=work, listed=listed, limits=LIMITS)


def _page(visit: Visit, given: Mapping[str, str], shown: _Shown | None, **more: Any) -> Response:
    file = visit.services.files.current().policies
    work = visit.services.works.of(_work_name(visit))
    # A replay of another change says nothing of this one.
    is_its = shown is not None and work is not None and work.about == shown.digest
    values = {
        "problem": None,
        "written": None,
        "places": _places(file),
        "objectives": sorted({one.name for one in known_objectives(file)}),
        "aligners": (DEFAULT_ALIGNER, *file.aligner.adapters),
        "modes": [mode.value for mode in Mode],
        "limits": LIMITS,
        "work": work if is_its else None,
        "listed": _differing(visit, work if is_its else None),
        "canaries": _canaries(file),
    }
    return visit.page(
        "promote.html", given={name: given.get(name, "") for name in _FIELDS}, shown=shown, **values | more
    )


def _places(file: PolicyFile) -> list[tuple[str, str]]:
    """Where a change may be made: the name in the form, and the words for it."""
    routes = [entry_name(route, n) for n, route in enumerate(file.routes)]
    tenants = [entry_name(tenant, n) for n, tenant in enumerate(file.tenants)]
    return [
        *((f"route/{name}", f"route {name}") for name in routes),
        *((f"tenant/{name}", f"tenant {name}") for name in tenants),
        ("defaults/", "the defaults"),
    ]


def _canaries(file: PolicyFile) -> list[tuple[str, str, str]]:
    """Where several aligners share the traffic, or one judges beside: the line, the shares, the one beside."""
    found = []
    for path, block in file.blocks():
        given = block.aligner
        told = ", ".join(f"{name} {percent} %" for name, percent in given) if isinstance(given, tuple) else ""
        if told or block.shadow_aligner:
            found.append((file.source.at(*path), told, block.shadow_aligner or ""))
    return found


def _shown(visit: Visit, given: Mapping[str, str]) -> _Shown:
    """The change that a form says; raises `ConfigError` and `AuditError`."""
    kind, _, name = given["where"].partition("/")
    target = Target(name if kind == "route" else None, name if kind == "tenant" else None)
    settings = _settings(given)
    if not settings or kind not in ("route", "tenant", "defaults"):
        raise ConfigError("say where and what is to be changed")
    path = path_of(visit.services.files.current().policies).resolve()
    change = proposal(path, target, settings)
    return _Shown(change, ruling(change))


def _settings(given: Mapping[str, str]) -> Settings:
    values: dict[str, Value] = {}
    if given["mode"]:
        values["mode"] = given["mode"]
    for name in ("sample", "caution"):
        if given[name]:
            values[name] = _number(name, given[name])
    if given["aligner"]:
        values["aligner"] = shares.written(given["aligner"])
    if given["shadow_aligner"]:
        values["shadow_aligner"] = given["shadow_aligner"]
    return Settings(values, (given["objective"],) if given["objective"] else ())


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number") from None


def _replay(visit: Visit, shown: _Shown, limit: str) -> None:
    """Begin a replay of the last answers under the change."""
    services = visit.services
    configured = services.files.current()
    if not writer.has_store(configured.policies):
        raise PageError(409, "There is no audit store, so there are no answers to replay.")
    target = shown.change.target
    where = ["--route", target.route] if target.route else ["--tenant", target.tenant] if target.tenant else []
    count = limit if limit in map(str, LIMITS) else str(LIMITS[0])
    since = f"{PERIOD_S:.0f}s"
    # Taught heads belong to the path as it is given, with its links.
    file = str(path_of(configured.policies))
    arguments = ["replay", "--policy", file, "--candidate", "-", "--json-lines", "--since", since]
    services.works.begin(
        _work_name(visit),
        [*arguments, "--limit", count, *where, *services.files.engine_options()],
        given=shown.change.after,
        about=shown.digest,
    )


def _work_name(visit: Visit) -> str:
    return f"replay {visit.session.id}"


def _differing(visit: Visit, work: Work | None) -> list[tuple[str, Shown]]:
    """The first answers that a replay treats otherwise, as they were recorded, and how."""
    if work is None or work.result is None:
        return []
    found: list[tuple[str, Shown]] = []
    with closing(visit.services.files.current().store()) as store:
        for case in work.result["cases"]:
            if len(found) == _MOST_LISTED:
                break
            if case["change"] == _SAME or not case["aligner_id"]:
                continue
            entry = entry_at(store, (case["aligner_id"], case["choice"]))
            if entry is not None:
                found.append((str(case["change"]), Shown(entry)))
    return found


def _written(visit: Visit, given: Mapping[str, str], shown: _Shown) -> Response:
    """Write the change, unless reviews are against it."""
    if shown.ruling is not None and shown.ruling.refused:
        raise PageError(409, f"Not promoted: {shown.ruling.refused}.")
    try:
        backup = shown.change.write()
    except ConfigError as error:
        raise PageError(409, f"Nothing was written: {error}.") from None
    visit.services.works.forget(_work_name(visit))
    log.info("console: %s changed %s: %s", visit.viewer.name, shown.change.path.name, given["where"])
    return _page(visit, {}, None, written=backup.name if backup else "")
