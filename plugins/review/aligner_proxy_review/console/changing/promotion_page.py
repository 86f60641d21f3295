"""The promotion page: a change of policy, its replay, its evidence from reviews, its diff, and the button to write it.

Only the operator may use it; it does what `aligner-proxy promote` does. The server keeps nothing between two forms but
the replay. Each form contains the whole change, and the form that writes it also the digest of the diff that was shown.
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
from aligner_proxy.policy.yaml_edit import Value
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
from aligner_proxy_review.replay import ReplayDifference
from aligner_proxy_review.review_queue import find_entry

log = logging.getLogger(__name__)

PATH = "/promote"
LIMITS = (100, 300, 1000)
"""Choices for the number of replayed answers."""
_FIELDS = ("where", "mode", "sample", "caution", "objective", "aligner", "shadow_aligner")
_MAX_LISTED = 20
"""At most this many answers of a replay are listed."""
_POLICIES_CHANGED = "The policies file, or the change, is not what the page showed any more; look at it again."


@dataclass(frozen=True, slots=True)
class _ShownChange:
    """A change of the policies file as the page shows it: its proposal, and what reviews say about it."""

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
        """(kind, text) of the lines of the diff; the kind is added, removed or kept."""
        kinds = {"+": "added", "-": "removed"}
        # the first two lines have the file's name
        return [(kinds.get(line[:1], "kept"), line) for line in self.change.diff[2:]]


async def show_form(visit: Visit) -> Response:
    """Show the page with an empty form."""
    refuse_reviewers(visit)
    return await asyncio.to_thread(_render_page, visit, {}, None)


async def take_form(visit: Visit, form: dict[str, str]) -> Response:
    """Do what the button of a form says: show the change, replay answers under it, or write it."""
    refuse_reviewers(visit)
    button = form.get("act")
    fields = {name: form.get(name, "").strip() for name in _FIELDS}
    try:
        shown_change = await asyncio.to_thread(_read_change, visit, fields)
    except (ConfigError, AuditError) as error:
        return await asyncio.to_thread(_render_page, visit, fields, None, problem=str(error))
    if button == "replay":
        _start_replay(visit, shown_change, form.get("limit", ""))
    elif button == "write":
        # only the diff that was shown may be written
        if form.get("digest") != shown_change.digest:
            raise PageError(409, _POLICIES_CHANGED)
        return await asyncio.to_thread(_write_change, visit, fields, shown_change)
    return await asyncio.to_thread(_render_page, visit, fields, shown_change)


async def show_replay(visit: Visit) -> Response:
    """Show the progress of the replay; the page polls this."""
    refuse_reviewers(visit)
    job = visit.services.jobs.find(_job_name(visit))
    answers = await asyncio.to_thread(_differing_answers, visit, job)
    return visit.render_page("replayed.html", job=job, differing_answers=answers, limits=LIMITS)


def _render_page(visit: Visit, fields: Mapping[str, str], shown_change: _ShownChange | None, **extra: Any) -> Response:
    """Render the page with the fields of its form, and with the change and its replay unless `shown_change` is None.

    `extra` has values for the template, such as `problem`, in place of their defaults below.
    """
    file = visit.services.files.current().policies
    job = visit.services.jobs.find(_job_name(visit))
    # the last replay may have been of another change
    if shown_change is None or job is None or job.subject != shown_change.digest:
        job = None
    values = {
        "problem": None,
        "written": None,
        "places": _change_places(file),
        "objectives": sorted({objective.name for objective in list_objectives(file)}),
        "aligners": (DEFAULT_ALIGNER, *file.aligner.adapters),
        "modes": [mode.value for mode in Mode],
        "limits": LIMITS,
        "job": job,
        "differing_answers": _differing_answers(visit, job),
        "canaries": _list_canaries(file),
    }
    given_fields = {name: fields.get(name, "") for name in _FIELDS}
    return visit.render_page("promote.html", given=given_fields, shown=shown_change, **values | extra)


def _change_places(file: PolicyFile) -> list[tuple[str, str]]:
    """(value in the form, label on the page) of each place of a change: the routes, the tenants and the defaults."""
    routes = [entry_name(route, index) for index, route in enumerate(file.routes)]
    tenants = [entry_name(tenant, index) for index, tenant in enumerate(file.tenants)]
    return [
        *((f"route/{name}", f"route {name}") for name in routes),
        *((f"tenant/{name}", f"tenant {name}") for name in tenants),
        ("defaults/", "the defaults"),
    ]


def _list_canaries(file: PolicyFile) -> list[tuple[str, str, str]]:
    """(place in the file, shares, shadow aligner) of each block that tries out another aligner.

    `shares` says how several aligners share the traffic; a shadow aligner only scores the same answers, for comparison.
    Either is empty if the block has none.
    """
    canaries = []
    for path, block in file.blocks():
        shares_text = ""
        # an aligner alone is a string
        if isinstance(block.aligner, tuple):
            shares_text = ", ".join(f"{name} {percent} %" for name, percent in block.aligner)
        if shares_text or block.shadow_aligner:
            canaries.append((file.source.place_of(*path), shares_text, block.shadow_aligner or ""))
    return canaries


def _read_change(visit: Visit, fields: Mapping[str, str]) -> _ShownChange:
    """Return the change that a form describes; raises `ConfigError`, and `AuditError` if reviews cannot be read."""
    # "route/NAME", "tenant/NAME" or "defaults/"
    kind, _, name = fields["where"].partition("/")
    target = Target(route=name if kind == "route" else None, tenant=name if kind == "tenant" else None)
    changes = _parse_changes(fields)
    if not changes or kind not in ("route", "tenant", "defaults"):
        raise ConfigError("say where and what is to be changed")
    path = path_of(visit.services.files.current().policies).resolve()
    proposal = make_proposal(path, target, changes)
    return _ShownChange(proposal, make_ruling(proposal))


def _parse_changes(fields: Mapping[str, str]) -> SettingChanges:
    """Read the changes of settings from a form, whose empty fields change nothing; raises `ConfigError`."""
    new_values: dict[str, Value] = {}
    if fields["mode"]:
        new_values["mode"] = fields["mode"]
    for name in ("sample", "caution"):
        if fields[name]:
            new_values[name] = _parse_number(name, fields[name])
    if fields["aligner"]:
        new_values["aligner"] = shares.parse_shares(fields["aligner"])
    if fields["shadow_aligner"]:
        new_values["shadow_aligner"] = fields["shadow_aligner"]
    return SettingChanges(new_values, (fields["objective"],) if fields["objective"] else ())


def _parse_number(name: str, text: str) -> float:
    """Parse the number in the field `name`; raises `ConfigError` if it is none."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number") from None


def _start_replay(visit: Visit, shown_change: _ShownChange, limit: str) -> None:
    """Start a replay of the newest answers under the change; raises `PageError` 409 without an audit store.

    `limit` is the number of answers, one of `LIMITS`; anything else counts as the first of them.
    """
    services = visit.services
    policies = services.files.current().policies
    if not writer.has_store(policies):
        raise PageError(409, "There is no audit store, so there are no answers to replay.")
    target = shown_change.change.target
    place_options: list[str] = []
    if target.route:
        place_options = ["--route", target.route]
    elif target.tenant:
        place_options = ["--tenant", target.tenant]
    answer_count = limit if limit in map(str, LIMITS) else str(LIMITS[0])
    since = f"{PERIOD_S:.0f}s"
    # taught heads belong to the path as configured, so its links are not resolved
    file = str(path_of(policies))
    arguments = ["replay", "--policy", file, "--candidate", "-", "--json-lines", "--since", since]
    services.jobs.begin(
        _job_name(visit),
        [*arguments, "--limit", answer_count, *place_options, *services.files.engine_options()],
        stdin_text=shown_change.change.after,
        subject=shown_change.digest,
    )


def _job_name(visit: Visit) -> str:
    """The name of the job that replays answers for the visit's session."""
    return f"replay {visit.session.id}"


def _differing_answers(visit: Visit, job: ConsoleJob | None) -> list[tuple[str, AnswerView]]:
    """(difference, recorded answer) of the first `_MAX_LISTED` answers with another result in the replay of a job."""
    if job is None or job.result is None:
        return []
    answers: list[tuple[str, AnswerView]] = []
    with closing(visit.services.files.current().store()) as store:
        for case in job.result["cases"]:
            if len(answers) == _MAX_LISTED:
                break
            # an entry without an id cannot be found again
            if case["change"] == ReplayDifference.SAME or not case["aligner_id"]:
                continue
            entry = find_entry(store, (case["aligner_id"], case["choice"]))
            if entry is not None:
                answers.append((str(case["change"]), AnswerView(entry)))
    return answers


def _write_change(visit: Visit, fields: Mapping[str, str], shown_change: _ShownChange) -> Response:
    """Write the change and show the page; raises `PageError` 409 if reviews refuse it or the file has changed."""
    if shown_change.ruling is not None and shown_change.ruling.refusal:
        raise PageError(409, f"Not promoted: {shown_change.ruling.refusal}.")
    try:
        backup = shown_change.change.write()
    except ConfigError as error:
        raise PageError(409, f"Nothing was written: {error}.") from None
    visit.services.jobs.forget(_job_name(visit))
    log.info("console: %s changed %s: %s", visit.viewer.name, shown_change.change.path.name, fields["where"])
    return _render_page(visit, {}, None, written=backup.name if backup else "")
