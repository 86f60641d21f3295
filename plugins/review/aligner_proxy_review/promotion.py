"""Promotion: a change of the policies file, and the evidence from reviews for and against it.

A change edits the file's text, so comments and layout stay. It is refused if `check` would refuse the result or if
other settings would change. A change that lets more edits out is also refused if reviews prove that too many of the
edits under that route are wrong.
"""

from __future__ import annotations

import difflib
import re
import sqlite3
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aligner_proxy.audit import writer
from aligner_proxy.audit.entry import SHADOW_SUFFIX
from aligner_proxy.errors import AuditError, ConfigError
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy import config
from aligner_proxy.policy.losses import refuse_losses
from aligner_proxy.policy.resolver import entry_name
from aligner_proxy.policy.schema import PolicyFile, Route, Tenant
from aligner_proxy.policy.yaml_file import (
    KeyPath,
    Value,
    append_item,
    apply_checked_edit,
    parse_yaml,
    put_value,
    quote_name,
    read_text,
    replace_file,
    suggest_name,
)
from aligner_proxy.types import Mode
from aligner_proxy_review.evidence import Share, compute_evidence, find_agreed_verdict, select_reviewed_entries
from aligner_proxy_review.replay import ReplayCase, ReplayChange
from aligner_proxy_review.review_queue import AnswerFilter, group_reviews
from aligner_proxy_review.reviews import Review, Reviews, ReviewVerdict

BOUND = 0.01
"""Highest share of reviewed edits that may be wrong."""
PERIOD_S = 30 * 86_400.0
"""How far back reviewed answers count."""
_MAX_NEEDED = 1_000_000
"""Upper end of the search for the number of reviews needed."""
_COMMENT = re.compile(r"^(?:[^'\"#]|'[^']*'|\"[^\"]*\"|(?<=\S)#)*(?:^|\s)#")
"""A line of YAML with a comment, which is no part of a quoted value."""
_BAD_EDITS = (ReviewVerdict.WRONG, ReviewVerdict.HARM)
"""Verdicts on edits that should not have been made."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to make a change: a route or a tenant, by name; without either, in the defaults."""

    route: str | None = None
    tenant: str | None = None

    def find_place(self, file: PolicyFile) -> KeyPath:
        """The keys that lead to it in the file, such as ("routes", 0); raises `ConfigError` for an unknown name."""
        if self.route is not None:
            return "routes", _entry_position("route", self.route, file.routes)
        if self.tenant is not None:
            return "tenants", _entry_position("tenant", self.tenant, file.tenants)
        return ("defaults",)

    def covers(self, entry: Entry) -> bool:
        """Whether this route or tenant was in the policy of a recorded answer; False for a shadow aligner's entries."""
        policy = entry.policy
        if policy.endswith(SHADOW_SUFFIX):
            return False
        # a policy is named ROUTE+TENANT
        route, _, tenant = policy.partition("+")
        return self.route in (None, route) and self.tenant in (None, tenant)


@dataclass(frozen=True, slots=True)
class SettingChanges:
    """New values by key, and names of objectives to add; false (as in `if changes:`) if both are empty."""

    values: Mapping[str, Value] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.values or self.objectives)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change of the policies file that `check` would accept."""

    path: Path
    target: Target
    before: str
    after: str
    """The text of the file before and after the change."""
    file: PolicyFile
    """The current file."""
    lets_more_out: bool
    """Whether clients may get edits that they did not get before the change."""

    @property
    def diff(self) -> list[str]:
        """The lines of a unified diff; empty if nothing changes."""
        name = self.path.name
        return list(difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), name, name, lineterm=""))

    @property
    def doubtful_comments(self) -> list[int]:
        """Lines of the changed file with a comment about a setting that changed: at its end, or on the line above."""
        old_lines = self.before.splitlines()
        new_lines = self.after.splitlines()
        numbers = set[int]()
        for kind, _, _, first, end in difflib.SequenceMatcher(None, old_lines, new_lines, False).get_opcodes():
            if kind != "equal":
                numbers.update(n for n in range(first, end) if _COMMENT.search(new_lines[n]))
                # a comment on the line above the change may be about the changed setting
                if first and new_lines[first - 1].lstrip().startswith("#"):
                    numbers.add(first - 1)
        return [n + 1 for n in sorted(numbers)]

    def write(self) -> Path | None:
        """Write the change and return the path of the backup; None if nothing changes. Raises `ConfigError`."""
        return None if self.after == self.before else replace_file(self.path, self.before, self.after, backup=True)


def make_proposal(path: Path, target: Target, settings: SettingChanges) -> Proposal:
    """Return a proposal for the file at `path`; raises `ConfigError` if `check` would refuse the result."""
    before = read_text(path)
    file = registry.parse_policies(before, path)
    place = target.find_place(file)
    after = apply_changes(before, path, place, settings)
    new_file = registry.parse_policies(after, path)
    # only for the error that a wrong keys file raises
    config.known_keys(new_file)
    refuse_losses(file, new_file)
    return Proposal(path, target, before, after, file, _lets_more_out(file, new_file, place))


def apply_changes(text: str, path: Path, place: KeyPath, settings: SettingChanges) -> str:
    """Return the file's text with `settings` at `place`; raises `ConfigError` if anything else would change."""
    # a tenant lists its objectives under another key than a route
    list_key = "enforce" if place[0] == "tenants" else "objectives"
    settings = _missing_changes(settings, _find_block(parse_yaml(text, path)[0], place), list_key)
    # the defaults have no list of objectives
    if settings.objectives and place[0] == "defaults":
        raise ConfigError("objectives are added to a route or a tenant; say which")

    def edit(text: str) -> str:
        for name, value in settings.values.items():
            text = put_value(text, place, name, value)
        for name in settings.objectives:
            text = append_item(text, place, list_key, name)
        return text

    def change(data: dict[str, Any]) -> None:
        block = _find_block(data, place)
        for name, value in settings.values.items():
            block[name] = dict(value) if isinstance(value, Mapping) else value
        if settings.objectives:
            block[list_key] = [*_list_names(block.get(list_key), place), *settings.objectives]

    return apply_checked_edit(text, path, edit, change)


def _missing_changes(settings: SettingChanges, present: Mapping[str, Any], list_key: str) -> SettingChanges:
    """Return `settings` without what the block `present` of the policies file already says."""
    values = {name: value for name, value in settings.values.items() if present.get(name) != value}
    present_names = present.get(list_key) or ()
    return SettingChanges(values, tuple(name for name in settings.objectives if name not in present_names))


def _list_names(present: object, place: KeyPath) -> list[Any]:
    """The names of a list of objectives; raises `ConfigError` if the file has something else there."""
    if present is not None and not isinstance(present, list):
        raise ConfigError(f"the objectives of {place[0]}[{place[1]}] are no plain list; edit the file by hand")
    return list(present or ())


def _find_block(data: Any, place: KeyPath) -> dict[str, Any]:
    """The block of the parsed file at a position such as ("routes", 0); missing defaults are created."""
    block = data
    for key in place:
        if key == "defaults":
            block[key] = block.get(key) or {}
        block = block[key]
    result: dict[str, Any] = block
    return result


def _entry_position(kind: str, name: str, entries: Sequence[Route | Tenant]) -> int:
    """The index of a route or tenant in the file; raises `ConfigError` for an unknown name."""
    names = [entry_name(entry, i) for i, entry in enumerate(entries)]
    if name not in names:
        raise ConfigError(f"no {kind} {quote_name(name)} in this file; {suggest_name(name, names)}")
    return names.index(name)


def _lets_more_out(before: PolicyFile, after: PolicyFile, place: KeyPath) -> bool:
    """Whether the settings at `place` may deliver edits that were not delivered before."""
    old = _effective_settings(before, place)
    new = _effective_settings(after, place)
    # in the other modes clients get no edits
    if new["mode"] is not Mode.ENFORCE:
        return False
    return (
        old["mode"] is not Mode.ENFORCE
        or new["sample"] > old["sample"]
        or new["caution"] < old["caution"]
        or bool(set(new["objectives"]) - set(old["objectives"]))
        or new["aligner"] != old["aligner"]
    )


def _effective_settings(file: PolicyFile, place: KeyPath) -> dict[str, Any]:
    """The effective settings at `place`: its own, else the defaults, else the built-in ones."""
    entry: Any = file.defaults if place == ("defaults",) else getattr(file, str(place[0]))[int(place[1])]
    settings: dict[str, Any] = {}
    for name, built_in in (("mode", Mode.ENFORCE), ("sample", 1.0), ("caution", 0.0), ("aligner", "default")):
        value = getattr(entry, name)
        if value is None:
            value = getattr(file.defaults, name)
        settings[name] = built_in if value is None else value
    settings["objectives"] = entry.enforce if isinstance(entry, Tenant) else getattr(entry, "objectives", ())
    return settings


@dataclass(frozen=True, slots=True)
class Ruling:
    """The verdict of reviews on a change.

    With `strict` the change is also refused if reviews do not prove that few edits are wrong.
    """

    wrong: Share | None
    """Share of reviewed edits that are wrong or harmful; None without an audit store."""
    bound: float
    """Highest share of wrong edits that is allowed."""
    strict: bool

    @property
    def reviews_needed(self) -> int:
        """How many more reviews with the verdict "right" would prove that the share is within the bound."""
        wrong = self.wrong or Share(0, 0)
        # found by binary search, since each further right review lowers the upper end of the interval
        counts = range(wrong.total, _MAX_NEEDED)
        return bisect_left(counts, True, key=lambda count: Share(wrong.count, count).interval[2] <= self.bound)

    @property
    def refusal(self) -> str | None:
        """Why the change is refused; None if it is allowed."""
        bound = f"{100 * self.bound:g} %"
        # even the lower end is too high, so the reviews prove too many wrong edits
        if self.wrong is not None and self.wrong.interval[1] > self.bound:
            return f"{_share_text(self.wrong)} reviewed edits are wrong; the whole interval lies above {bound}"
        if self.strict and (self.wrong is None or self.wrong.interval[2] > self.bound):
            return (
                f"{_share_text(self.wrong)} reviewed edits are wrong, which does not prove a share of at most {bound}; "
                + (f"{self.reviews_needed:,} more reviews with the verdict right would")
            )
        return None

    @property
    def warning(self) -> str | None:
        """What the reviews do not prove yet about an allowed change; None if they prove enough."""
        if self.refusal or (self.wrong is not None and self.wrong.interval[2] <= self.bound):
            return None
        more = (
            f"{self.reviews_needed:,} more reviews with the verdict right would prove a share of at most "
            f"{100 * self.bound:g} %"
        )
        if self.wrong is None:
            return f"there is no audit store, so nobody has reviewed edits like these; {more}"
        return f"{_share_text(self.wrong)} reviewed edits are wrong; {more}"


def _share_text(wrong: Share | None) -> str:
    """A share and its interval as text, as in "2 of 100 (0.6 to 7.0 %)"; "none of 0" without reviews."""
    if wrong is None or not wrong.total:
        return "none of 0"
    _, low, high = (100 * part for part in wrong.interval)
    return f"{wrong.count} of {wrong.total} ({low:.1f} to {high:.1f} %)"


def make_ruling(change: Proposal, bound: float = BOUND, *, strict: bool = False) -> Ruling | None:
    """Return the ruling of the reviews of the last 30 days; None if the change lets no more edits out.

    Raises `ConfigError` and `AuditError` if the audit store cannot be read.
    """
    if not change.lets_more_out:
        return None
    file = change.file
    # without a store there are no reviews, which refuses only a strict change
    if not writer.has_store(file):
        return Ruling(None, bound, strict)
    try:
        with closing(writer.open_for_reading(file)) as store:
            entries = select_reviewed_entries(
                store, AnswerFilter(policy=change.target.route, since=time.time() - PERIOD_S)
            )
            reviewed = compute_evidence(filter(change.target.covers, entries), Reviews(store).all())
    except sqlite3.Error as error:
        raise AuditError(f"the audit store cannot be read ({type(error).__name__}); try again") from None
    return Ruling(reviewed.wrong, bound, strict)


@dataclass(frozen=True, slots=True)
class ReviewedReplay:
    """Results of a replay on reviewed answers."""

    answers: int
    damaged: int
    """Answers that were right without an edit before, and are edited now."""
    lost: int
    """Answers that were rightly edited before, and are not edited now."""
    repaired: int
    """Answers that were wrongly edited before, and are not edited now."""
    caught: int
    """Answers in which something was missed before, and which are edited now."""


def compare_with_reviews(cases: Iterable[ReplayCase], reviews: Iterable[Review]) -> ReviewedReplay:
    """Compare the answers of a replay with the agreed verdicts; feedback does not count.

    A verdict is about the recorded edit, so it does not count if the run before the change gave another result.
    """
    reviews_by_place = group_reviews(reviews, feedback=False)
    counts = {"answers": 0, "damaged": 0, "lost": 0, "repaired": 0, "caught": 0}
    for case in cases:
        verdict = find_agreed_verdict(reviews_by_place.get((case.entry.aligner_id, case.entry.choice), ()))
        # not reviewed, without agreement, or of another result
        if verdict is None or not case.is_as_recorded:
            continue
        counts["answers"] += 1
        counts["damaged"] += verdict is ReviewVerdict.RIGHT and case.change is ReplayChange.NEWLY
        counts["lost"] += verdict is ReviewVerdict.RIGHT and case.change is ReplayChange.NO_LONGER
        counts["repaired"] += verdict in _BAD_EDITS and case.change is ReplayChange.NO_LONGER
        counts["caught"] += verdict is ReviewVerdict.MISSED and case.change is ReplayChange.NEWLY
    return ReviewedReplay(**counts)
