"""The promotion page: a change of policy, its replay, its evidence from reviews, its diff, and the button to write it.

Only the operator may use it; it does what `aligner-proxy promote` does. Between two forms only a replay is stored. Each
form contains the whole change, and the last one also the digest of the diff that was shown.
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
from aligner_proxy.errors import AuditError, ConfigError
from aligner_proxy.policy import shares
from aligner_proxy.policy.resolver import entry_name
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_file import Value
from aligner_proxy.teaching.store import path_of
from aligner_proxy.types import DEFAULT_ALIGNER, Mode
from aligner_proxy_review.console.answer import AnswerView
from aligner_proxy_review.console.changing.known_objectives import list_objectives
from aligner_proxy_review.console.forms import PageError
from aligner_proxy_review.console.jobs import ConsoleJob
from aligner_proxy_review.console.pages import Visit, refuse_reviewers
from aligner_proxy_review.promotion import (
    PERIOD_S,
    Proposal,
    Ruling,
    SettingChanges,
    Target,
    make_proposal,
    make_ruling,
)
from aligner_proxy_review.review_queue import find_entry

log = logging.getLogger(__name__)

PATH = "/promote"
LIMITS = (100, 300, 1000)
"""Choices for the number of replayed answers."""
_FIELDS = ("where", "mode", "sample", "caution", "objective", "aligner", "shadow_aligner")
_MAX_LISTED = 20
"""Limit on the answers of a replay that are listed."""
_SAME = "the same"
"""How the replay's report names an answer without a difference."""
_CHANGED = "The policies file, or the change, is not what the page showed any more; look at it again."


@dataclass(frozen=True, slots=True)
class _ShownChange:
    """A change as the page shows it."""

    change: Proposal
    ruling: Ruling | None
    """What reviews say about it; None if it lets no more edits out."""

    @property
    def digest(self) -> str:
        """A hash that identifies this change of this version of the file."""
        texts = self.change.before + "\0" + self.change.after
        return hashlib.sha256(texts.encode(errors="replace")).hexdigest()

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The lines of the diff, each with its kind: added, removed or kept."""
        kinds = {"+": "added", "-": "removed"}
        # without the two lines with the file's names
        return [(kinds.get(line[:1], "kept"), line) for line in self.change.diff[2:]]


async def show_form(visit: Visit) -> Response:
    """Show the page with an empty form."""
    refuse_reviewers(visit)
    return await asyncio.to_thread(_render_page, visit, {}, None)


async def take_form(visit: Visit, form: dict[str, str]) -> Response:
    """Show a change, replay answers under it, or write it."""
    refuse_reviewers(visit)
    act = form.get("act")
    fields = {name: form.get(name, "").strip() for name in _FIELDS}
    try:
        proposed = await asyncio.to_thread(_read_change, visit, fields)
    except (ConfigError, AuditError) as error:
        return await asyncio.to_thread(_render_page, visit, fields, None, problem=str(error))
    if act == "replay":
        _start_replay(visit, proposed, form.get("limit", ""))
    elif act == "write":
        # only the diff that was shown may be written
        if form.get("digest") != proposed.digest:
            raise PageError(409, _CHANGED)
        return await asyncio.to_thread(_write_change, visit, fields, proposed)
    return await asyncio.to_thread(_render_page, visit, fields, proposed)


async def show_replay(visit: Visit) -> Response:
    """Show the progress of the replay; the page polls this."""
    refuse_reviewers(visit)
    job = visit.services.jobs.find(_job_name(visit))
    answers = await asyncio.to_thread(_differing_answers, visit, job)
    return visit.render_page("replayed.html", work=job, listed=answers, limits=LIMITS)


def _render_page(visit: Visit, fields: Mapping[str, str], proposed: _ShownChange | None, **extra: Any) -> Response:
    """Render the page with its form, the proposed change, if any, and its replay; `extra` goes to the template."""
    file = visit.services.files.current().policies
    job = visit.services.jobs.find(_job_name(visit))
    # Do not show the replay of another change.
    is_same_change = proposed is not None and job is not None and job.subject == proposed.digest
    values = {
        "problem": None,
        "written": None,
        "places": _change_places(file),
        "objectives": sorted({objective.name for objective in list_objectives(file)}),
        "aligners": (DEFAULT_ALIGNER, *file.aligner.adapters),
        "modes": [mode.value for mode in Mode],
        "limits": LIMITS,
        "work": job if is_same_change else None,
        "listed": _differing_answers(visit, job if is_same_change else None),
        "canaries": _list_canaries(file),
    }
    return visit.render_page(
        "promote.html", given={name: fields.get(name, "") for name in _FIELDS}, shown=proposed, **values | extra
    )


def _change_places(file: PolicyFile) -> list[tuple[str, str]]:
    """The places where a change may be made: value in the form, and label."""
    routes = [entry_name(route, n) for n, route in enumerate(file.routes)]
    tenants = [entry_name(tenant, n) for n, tenant in enumerate(file.tenants)]
    return [
        *((f"route/{name}", f"route {name}") for name in routes),
        *((f"tenant/{name}", f"tenant {name}") for name in tenants),
        ("defaults/", "the defaults"),
    ]


def _list_canaries(file: PolicyFile) -> list[tuple[str, str, str]]:
    """Where several aligners share the traffic or a shadow aligner runs: (line, shares, shadow aligner)."""
    canaries = []
    for path, block in file.blocks():
        setting = block.aligner
        shares_text = (
            ", ".join(f"{name} {percent} %" for name, percent in setting) if isinstance(setting, tuple) else ""
        )
        if shares_text or block.shadow_aligner:
            canaries.append((file.source.place_of(*path), shares_text, block.shadow_aligner or ""))
    return canaries


def _read_change(visit: Visit, fields: Mapping[str, str]) -> _ShownChange:
    """Return the change that a form describes; raises `ConfigError`, and `AuditError` if reviews cannot be read."""
    kind, _, name = fields["where"].partition("/")
    target = Target(name if kind == "route" else None, name if kind == "tenant" else None)
    # empty fields change nothing
    settings = _parse_settings(fields)
    if not settings or kind not in ("route", "tenant", "defaults"):
        raise ConfigError("say where and what is to be changed")
    path = path_of(visit.services.files.current().policies).resolve()
    change = make_proposal(path, target, settings)
    return _ShownChange(change, make_ruling(change))


def _parse_settings(fields: Mapping[str, str]) -> SettingChanges:
    """The settings that the form changes; raises `ConfigError`."""
    values: dict[str, Value] = {}
    if fields["mode"]:
        values["mode"] = fields["mode"]
    for name in ("sample", "caution"):
        if fields[name]:
            values[name] = _parse_number(name, fields[name])
    if fields["aligner"]:
        values["aligner"] = shares.parse_shares(fields["aligner"])
    if fields["shadow_aligner"]:
        values["shadow_aligner"] = fields["shadow_aligner"]
    return SettingChanges(values, (fields["objective"],) if fields["objective"] else ())


def _parse_number(name: str, text: str) -> float:
    """Parse the number in a field; raises `ConfigError`."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number") from None


def _start_replay(visit: Visit, proposed: _ShownChange, limit: str) -> None:
    """Start a replay of the latest answers under the change; raises `PageError` 409 without an audit store."""
    services = visit.services
    configured = services.files.current()
    if not writer.has_store(configured.policies):
        raise PageError(409, "There is no audit store, so there are no answers to replay.")
    target = proposed.change.target
    place_options: list[str] = []
    if target.route:
        place_options = ["--route", target.route]
    elif target.tenant:
        place_options = ["--tenant", target.tenant]
    count = limit if limit in map(str, LIMITS) else str(LIMITS[0])
    since = f"{PERIOD_S:.0f}s"
    # Taught heads belong to the path as configured, with links unresolved.
    file = str(path_of(configured.policies))
    arguments = ["replay", "--policy", file, "--candidate", "-", "--json-lines", "--since", since]
    services.jobs.begin(
        _job_name(visit),
        [*arguments, "--limit", count, *place_options, *services.files.engine_options()],
        stdin_text=proposed.change.after,
        subject=proposed.digest,
    )


def _job_name(visit: Visit) -> str:
    """The name of the job that replays answers for a session."""
    return f"replay {visit.session.id}"


def _differing_answers(visit: Visit, job: ConsoleJob | None) -> list[tuple[str, AnswerView]]:
    """(how it differs, the recorded answer) for the first answers with a different result in the replay."""
    if job is None or job.result is None:
        return []
    answers: list[tuple[str, AnswerView]] = []
    with closing(visit.services.files.current().store()) as store:
        for case in job.result["cases"]:
            if len(answers) == _MAX_LISTED:
                break
            # without an id an entry cannot be found again
            if case["change"] == _SAME or not case["aligner_id"]:
                continue
            entry = find_entry(store, (case["aligner_id"], case["choice"]))
            if entry is not None:
                answers.append((str(case["change"]), AnswerView(entry)))
    return answers


def _write_change(visit: Visit, fields: Mapping[str, str], proposed: _ShownChange) -> Response:
    """Write the change and show the page; raises `PageError` 409 if reviews refuse it or the file has changed."""
    if proposed.ruling is not None and proposed.ruling.refusal:
        raise PageError(409, f"Not promoted: {proposed.ruling.refusal}.")
    try:
        backup = proposed.change.write()
    except ConfigError as error:
        raise PageError(409, f"Nothing was written: {error}.") from None
    visit.services.jobs.forget(_job_name(visit))
    log.info("console: %s changed %s: %s", visit.viewer.name, proposed.change.path.name, fields["where"])
    return _render_page(visit, {}, None, written=backup.name if backup else "")
