"""Promotion: a checked change of the policies file, and the evidence from reviews for and against it.

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
from aligner_proxy.policy.yaml_edit import Value, append_item, apply_checked_edit, put_value, replace_file
from aligner_proxy.policy.yaml_file import KeyPath, parse_yaml, quote_name, read_text, suggest_name
from aligner_proxy.types import Mode
from aligner_proxy_review.evidence import Share, compute_evidence, find_agreed_verdict, select_reviewed_entries
from aligner_proxy_review.replay import ReplayCase, ReplayDifference
from aligner_proxy_review.review_queue import AnswerFilter, group_reviews
from aligner_proxy_review.reviews import Review, Reviews, ReviewVerdict

BOUND = 0.01
"""Highest share of reviewed edits that may be wrong."""
PERIOD_S = 30 * 86_400.0
"""Only reviewed answers that are not older than this count, in seconds."""
_MAX_REVIEWS = 1_000_000
"""Upper end of the search for the number of reviews needed."""
_LINE_WITH_COMMENT = re.compile(r"^(?:[^'\"#]|'[^']*'|\"[^\"]*\"|(?<=\S)#)*(?:^|\s)#")
"""A line of YAML with a comment; a "#" in a quoted value does not begin one."""
_BAD_EDITS = (ReviewVerdict.WRONG, ReviewVerdict.HARM)
"""Verdicts on edits that should not have been made."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to make a change in the policies file: at a route or a tenant, by name; without either, in the defaults."""

    route: str | None = None
    tenant: str | None = None

    def find_place(self, file: PolicyFile) -> KeyPath:
        """The keys of the target in the file, such as ("routes", 0); raises `ConfigError` for an unknown name."""
        if self.route is not None:
            return "routes", _entry_position("route", self.route, file.routes)
        if self.tenant is not None:
            return "tenants", _entry_position("tenant", self.tenant, file.tenants)
        return ("defaults",)

    def covers(self, entry: Entry) -> bool:
        """Whether the policy of a recorded answer came from this route and tenant; without either, covers all answers.

        False for an entry of a shadow aligner, whose edits were not delivered, so they say nothing about the policy.
        """
        policy_name = entry.policy
        if policy_name.endswith(SHADOW_SUFFIX):
            return False
        # a policy is named ROUTE+TENANT
        route, _, tenant = policy_name.partition("+")
        return self.route in (None, route) and self.tenant in (None, tenant)


@dataclass(frozen=True, slots=True)
class SettingChanges:
    """New values of settings, and names of objectives to add; false (as in `if changes:`) if both are empty."""

    new_values: Mapping[str, Value] = field(default_factory=dict)
    """The new value of each setting that changes, by its key."""
    added_objectives: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new_values or self.added_objectives)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change of the policies file that `aligner-proxy check` would accept, and that is not written yet."""

    path: Path
    target: Target
    before: str
    """The text of the file before the change."""
    after: str
    """The text of the file after the change."""
    file: PolicyFile
    """The parsed file before the change."""
    lets_more_out: bool
    """Whether clients may get edits that they did not get before the change."""

    @property
    def diff(self) -> list[str]:
        """The lines of a unified diff; empty if nothing changes."""
        name = self.path.name
        return list(difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), name, name, lineterm=""))

    @property
    def doubtful_comments(self) -> list[int]:
        """Numbers, from 1, of lines with a comment that may no longer be right.

        They are the changed lines with a comment, and lines of comment right above a changed line.
        """
        old_lines = self.before.splitlines()
        new_lines = self.after.splitlines()
        matcher = difflib.SequenceMatcher(None, old_lines, new_lines, autojunk=False)
        indexes = set[int]()
        for kind, _, _, new_start, new_end in matcher.get_opcodes():
            if kind != "equal":
                changed_indexes = range(new_start, new_end)
                indexes.update(index for index in changed_indexes if _LINE_WITH_COMMENT.search(new_lines[index]))
                if new_start > 0 and new_lines[new_start - 1].lstrip().startswith("#"):
                    indexes.add(new_start - 1)
        return [index + 1 for index in sorted(indexes)]

    def write(self) -> Path | None:
        """Write the change and return the path of the backup; None if nothing changes. Raises `ConfigError`."""
        return None if self.after == self.before else replace_file(self.path, self.before, self.after, backup=True)


def make_proposal(path: Path, target: Target, changes: SettingChanges) -> Proposal:
    """Return the proposal to make `changes` at `target` in the policies file at `path`.

    Raises `ConfigError` if `check` would refuse the result.
    """
    before = read_text(path)
    file = registry.parse_policies(before, path)
    place = target.find_place(file)
    after = apply_changes(before, path, place, changes)
    new_file = registry.parse_policies(after, path)
    # called only because it raises an error for a wrong keys file
    config.known_keys(new_file)
    # as the gateway, refuses a change by which a tenant would lose what is enforced
    refuse_losses(file, new_file)
    return Proposal(path, target, before, after, file, _lets_more_out(file, new_file, place))


def apply_changes(text: str, path: Path, place: KeyPath, changes: SettingChanges) -> str:
    """Return the policies file's text with `changes` made in the block at `place` (a route, a tenant or the defaults).

    Raises `ConfigError` if anything else would change.
    """
    # a tenant lists its objectives under another key than a route
    objectives_key = "enforce" if place[0] == "tenants" else "objectives"
    data, _ = parse_yaml(text, path)
    needed_changes = _without_present(changes, _find_block(data, place), objectives_key)
    if needed_changes.added_objectives and place[0] == "defaults":
        raise ConfigError("objectives are added to a route or a tenant; say which")

    def edit_text(text: str) -> str:
        for name, value in needed_changes.new_values.items():
            text = put_value(text, place, name, value)
        for objective in needed_changes.added_objectives:
            text = append_item(text, place, objectives_key, objective)
        return text

    def change_data(data: dict[str, Any]) -> None:
        block = _find_block(data, place)
        for name, value in needed_changes.new_values.items():
            block[name] = dict(value) if isinstance(value, Mapping) else value
        if needed_changes.added_objectives:
            names = _copy_names(block.get(objectives_key), place)
            block[objectives_key] = [*names, *needed_changes.added_objectives]

    # raises if the edited text does not parse to the changed data
    return apply_checked_edit(text, path, edit_text, change_data)


def _without_present(changes: SettingChanges, block: Mapping[str, Any], objectives_key: str) -> SettingChanges:
    """Return the changes without those that a block of the policies file already has."""
    new_values = {name: value for name, value in changes.new_values.items() if block.get(name) != value}
    present_objectives = block.get(objectives_key) or ()
    added_objectives = tuple(name for name in changes.added_objectives if name not in present_objectives)
    return SettingChanges(new_values, added_objectives)


def _copy_names(names: object, place: KeyPath) -> list[Any]:
    """Copy a block's list of objectives, None if it has none; raises `ConfigError` if the file has something else."""
    if names is not None and not isinstance(names, list):
        raise ConfigError(f"the objectives of {place[0]}[{place[1]}] are no plain list; edit the file by hand")
    return list(names or ())


def _find_block(data: Any, place: KeyPath) -> dict[str, Any]:
    """The block of the parsed file at keys such as ("routes", 0); if the file has no defaults, they are created."""
    block = data
    for key in place:
        if key == "defaults":
            block[key] = block.get(key) or {}
        block = block[key]
    found_block: dict[str, Any] = block
    return found_block


def _entry_position(kind: str, name: str, entries: Sequence[Route | Tenant]) -> int:
    """The index of a route or tenant in its list in the file; raises `ConfigError` for an unknown name.

    `kind` is "route" or "tenant", for the error.
    """
    names = [entry_name(entry, index) for index, entry in enumerate(entries)]
    if name not in names:
        raise ConfigError(f"no {kind} {quote_name(name)} in this file; {suggest_name(name, names)}")
    return names.index(name)


def _lets_more_out(before: PolicyFile, after: PolicyFile, place: KeyPath) -> bool:
    """Whether the settings at `place` may deliver edits that were not delivered before."""
    old_settings = _effective_settings(before, place)
    new_settings = _effective_settings(after, place)
    # in the other modes clients get no edits
    if new_settings["mode"] is not Mode.ENFORCE:
        return False
    return (
        old_settings["mode"] is not Mode.ENFORCE
        or new_settings["sample"] > old_settings["sample"]
        or new_settings["caution"] < old_settings["caution"]
        or bool(set(new_settings["objectives"]) - set(old_settings["objectives"]))
        or new_settings["aligner"] != old_settings["aligner"]
    )


def _effective_settings(file: PolicyFile, place: KeyPath) -> dict[str, Any]:
    """The effective settings at `place`, by name: the block's own, else the defaults', else the built-in ones.

    Only the settings that `_lets_more_out` compares are returned; "objectives" are the block's own.
    """
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
    """What reviews say about a change that may deliver more edits: whether the share of wrong edits is small enough."""

    wrong: Share | None
    """Share of reviewed edits that are wrong or harmful; None without an audit store."""
    bound: float
    """Highest share of wrong edits that is allowed, from 0 to 1."""
    strict: bool
    """Whether the change is also refused if reviews do not prove that the share is within the bound."""

    @property
    def reviews_needed(self) -> int:
        """How many more reviews with the verdict "right" would prove that the share is within the bound."""
        wrong = self.wrong or Share(0, 0)
        # Each further right review lowers the upper end of the interval. So the index of the first total in the range
        # that suffices is the number of further reviews.
        totals = range(wrong.total, _MAX_REVIEWS)
        return bisect_left(totals, True, key=lambda total: Share(wrong.count, total).upper_end <= self.bound)

    @property
    def refusal(self) -> str | None:
        """Why the change is refused; None if it is allowed."""
        bound = f"{100 * self.bound:g} %"
        # even the lower end is too high, so the reviews prove too many wrong edits
        if self.wrong is not None and self.wrong.lower_end > self.bound:
            return f"{_share_text(self.wrong)} reviewed edits are wrong; the whole interval lies above {bound}"
        if self.strict and (self.wrong is None or self.wrong.upper_end > self.bound):
            return (
                f"{_share_text(self.wrong)} reviewed edits are wrong, which does not prove a share of at most {bound}; "
                f"{self.reviews_needed:,} more reviews with the verdict right would"
            )
        return None

    @property
    def warning(self) -> str | None:
        """What the reviews do not prove yet about an allowed change; None if they prove enough."""
        if self.refusal or (self.wrong is not None and self.wrong.upper_end <= self.bound):
            return None
        needed_reviews = (
            f"{self.reviews_needed:,} more reviews with the verdict right would prove a share of at most "
            f"{100 * self.bound:g} %"
        )
        if self.wrong is None:
            return f"there is no audit store, so nobody has reviewed edits like these; {needed_reviews}"
        return f"{_share_text(self.wrong)} reviewed edits are wrong; {needed_reviews}"


def _share_text(wrong: Share | None) -> str:
    """A share and its interval as text, as in "2 of 100 (0.6 to 7.0 %)"; "none of 0" without reviews."""
    if wrong is None or not wrong.total:
        return "none of 0"
    return f"{wrong.count} of {wrong.total} ({100 * wrong.lower_end:.1f} to {100 * wrong.upper_end:.1f} %)"


def make_ruling(proposal: Proposal, bound: float = BOUND, *, strict: bool = False) -> Ruling | None:
    """Return what the reviews of the last `PERIOD_S` seconds say about a proposal; None if it delivers no more edits.

    `bound` and `strict` are those of `Ruling`. Raises `ConfigError` and `AuditError` if the audit store cannot be read.
    """
    if not proposal.lets_more_out:
        return None
    file = proposal.file
    # without a store there are no reviews, which refuses only a strict change
    if not writer.has_store(file):
        return Ruling(None, bound, strict)
    answer_filter = AnswerFilter(policy=proposal.target.route, since=time.time() - PERIOD_S)
    try:
        with closing(writer.open_for_reading(file)) as store:
            entries = filter(proposal.target.covers, select_reviewed_entries(store, answer_filter))
            evidence = compute_evidence(entries, Reviews(store).all())
    except sqlite3.Error as error:
        raise AuditError(f"the audit store cannot be read ({type(error).__name__}); try again") from None
    return Ruling(evidence.wrong, bound, strict)


@dataclass(frozen=True, slots=True)
class ReviewedReplay:
    """Results of a replay on reviewed answers."""

    answers: int
    """Number of answers with an agreed verdict."""
    damaged: int
    """Number of answers that were right without an edit before, and are edited now."""
    lost: int
    """Number of answers that were rightly edited before, and are not edited now."""
    repaired: int
    """Number of answers that were wrongly edited before, and are not edited now."""
    caught: int
    """Number of answers in which something was missed before, and which are edited now."""


def compare_with_reviews(cases: Iterable[ReplayCase], reviews: Iterable[Review]) -> ReviewedReplay:
    """Count what a change does to replayed answers on whose verdict reviewers agree; feedback does not count.

    A verdict is about the recorded edit, so it does not count if the run before the change gave another result.
    """
    reviews_by_place = group_reviews(reviews, with_feedback=False)
    counts = {"answers": 0, "damaged": 0, "lost": 0, "repaired": 0, "caught": 0}
    for case in cases:
        verdict = find_agreed_verdict(reviews_by_place.get((case.entry.aligner_id, case.entry.choice), ()))
        if verdict is None or not case.is_as_recorded:
            continue
        is_newly_changed = case.difference is ReplayDifference.NEWLY_CHANGED
        is_no_longer_changed = case.difference is ReplayDifference.NO_LONGER_CHANGED
        counts["answers"] += 1
        counts["damaged"] += verdict is ReviewVerdict.RIGHT and is_newly_changed
        counts["lost"] += verdict is ReviewVerdict.RIGHT and is_no_longer_changed
        counts["repaired"] += verdict in _BAD_EDITS and is_no_longer_changed
        counts["caught"] += verdict is ReviewVerdict.MISSED and is_newly_changed
    return ReviewedReplay(**counts)
