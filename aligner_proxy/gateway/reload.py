"""Reloads policies and keys when their files change; the last valid ones stay active.

A change applies once two checks have found the same files (so the writer is done) and all of them are valid. Two kinds
of valid changes are refused as well. One is an empty policies file, since a writer may have truncated it and then
failed (a full disk). The other takes all enforced objectives from a tenant (`active_policies.py`). The value is swapped
in one assignment, so readers get the old or the new value, never a mix. A thread checks the files, because reading may
be slow and LiteLLM's workers share no signal.

Keys are read and refused separately, so that a mistake in the policies file does not keep a revoked key valid. A
missing keys file means that no key is valid. A refusal, or a change that needs a restart, is logged once, counted, and
written to the run folder for `aligner-proxy doctor`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from aligner_proxy.errors import AlignerProxyError, ConfigError
from aligner_proxy.gateway import active_policies, metrics
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.keys_file import KeyEntry, load_keys
from aligner_proxy.policy.resolver import PolicyResolver, find_no_head
from aligner_proxy.policy.schema import PolicyFile, corrector_names, find_judges, find_outside_editor, rule_names
from aligner_proxy.policy.yaml_file import quote_name
from aligner_proxy.teaching.active_heads import ActiveHeads
from aligner_proxy.teaching.store import Version

CHECK_EVERY_S = 1.0
"""Seconds between two checks; a change applies after one or two checks."""
# Parser errors for hostile files (deep nesting, for example); none of them may stop the watcher.
_PARSER_ERRORS = (
    OSError,
    RuntimeError,
    MemoryError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    SystemError,  # Python 3.11, if two threads parse source at once, as pydantic does for field docs
)
_T = TypeVar("_T")
Signature = tuple[tuple[int, int, int] | None, ...]
"""What `file_signature` returns for each of some files; it differs whenever one of them changes."""
OnChange = Callable[[str | None], None]
"""Called after a change: with None if it was applied, else with the reason for its refusal."""
log = logging.getLogger(__name__)
_BLOCKS_READ_AT_START = ("aligner", "cache", "shadow", "streams", "audit", "plugins")
"""Blocks of the file that are read only when the process starts."""
_PLACE = re.compile(r"[^:\n]+:\d+(?=:)")
""""FILE:LINE" at the beginning of an error's message."""


class WatchedFiles(Generic[_T]):
    """A value that is read again when its files change. `read` returns the value and its files; if it raises, the
    change is refused. `on_change` is called once for each change: with None if it was applied, else with the reason for
    its refusal.
    """

    def __init__(self, read: Callable[[], tuple[_T, tuple[Path, ...]]], on_change: OnChange = lambda _: None) -> None:
        self._read = read
        self._on_change = on_change
        self.current, self._files = read()
        self.refusal: str | None = None
        """Why the files on disk are refused; None if they are the current ones."""
        # At first None, since the files may have changed between being read and being checked.
        self._applied_signature: Signature | None = None
        """Signature of the files with the current value; None to read them at the next check."""
        self._last_signature = self._compute_signature()

    def check_files(self) -> None:
        """Check the files and apply a completed change. Only one thread may call this at a time."""
        signature = self._compute_signature()
        is_stable = signature == self._last_signature
        self._last_signature = signature
        # After a refusal, the files are read again even if unchanged, since they may name a file that was missing.
        if is_stable and (signature != self._applied_signature or self.refusal):
            self._read_files(signature)

    def force_next_read(self) -> None:
        """Read again at the next check even if no file has changed, because `read` may use other files now."""
        self._applied_signature = None

    def _read_files(self, signature: Signature) -> None:
        """Read the files and make their value the current value, unless it is refused or they change meanwhile.

        `signature` is the signature of the files now; if it differs after reading, the files have changed.
        """
        try:
            value, files = self._read()
        except AlignerProxyError as error:
            self._reject_change(str(error))
            return
        except _PARSER_ERRORS as error:
            self._reject_change(f"cannot be read: {type(error).__name__}")
            return
        if self._compute_signature() != signature:
            return  # changed while it was read; the next check reads it again
        # An equal value is a change, too, if it ends a refusal.
        is_change = value != self.current or self.refusal is not None
        self.current = value
        self._files = files
        self.refusal = None
        self._last_signature = self._compute_signature()  # again, since the value may name other files than before
        self._applied_signature = self._last_signature
        if is_change:
            self._on_change(None)

    def _reject_change(self, reason: str) -> None:
        """Keep the current value, and report the reason unless it was reported already."""
        if reason != self.refusal:
            self.refusal = reason
            self._on_change(reason)

    def _compute_signature(self) -> Signature:
        # A list first: a tuple cannot grow while another thread's `gc.get_objects` holds it.
        return tuple([file_signature(path) for path in self._files])


def keep_checking(watcher: WatchedFiles[Any], every_s: float = CHECK_EVERY_S) -> None:
    """Start a thread that checks for changes and ends with the watcher."""
    arguments = (weakref.ref(watcher), every_s)
    threading.Thread(target=_check_repeatedly, args=arguments, name="aligner-proxy-watch", daemon=True).start()


def _check_repeatedly(reference: weakref.ref[WatchedFiles[Any]], every_s: float) -> None:
    """Check files every `every_s` seconds until the watcher is freed; a pause keeps only a weak reference to it."""
    while True:
        time.sleep(every_s)
        watcher = reference()
        if watcher is None:
            return
        watcher.check_files()
        del watcher  # so that the watcher can be freed during the pause


def file_signature(path: Path) -> tuple[int, int, int] | None:
    """(inode, modification time in ns, bytes) of a file, to detect changes; None for a missing file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@dataclass(frozen=True, slots=True)
class ActiveConfig:
    """The active configuration, which applies to new requests."""

    file: PolicyFile
    resolver: PolicyResolver = field(compare=False)  # made from the file and the heads, which are compared
    heads: ActiveHeads
    """The active taught heads (learned from examples of one objective), which the resolver adds to policies."""
    head_versions: Mapping[str, Version] = field(compare=False)
    """The active heads' versions, by head hash."""
    asks_models: bool = False
    """Whether a model group rewrites or judges passages for some requests."""

    @classmethod
    def from_file(cls, file: PolicyFile) -> ActiveConfig:
        """Return the configuration that a policies file and its active taught heads make."""
        heads = ActiveHeads.read_or_empty(file)
        versions = heads.versions()
        # If nothing was taught, requests skip the look-up of heads.
        resolver = PolicyResolver(file, heads.head_of if versions else find_no_head)
        blocks = list(file.blocks())
        asks_models = find_outside_editor(blocks) is not None or bool(find_judges(blocks))
        return cls(file, resolver, heads, versions, asks_models=asks_models)


class PolicySource(Protocol):
    """Where the hooks get the policies and keys that apply to a request."""

    @property
    def current(self) -> ActiveConfig:
        """The active policies."""

    @property
    def keys(self) -> Mapping[str, KeyEntry]:
        """The active keys by sha256."""

    @property
    def is_outdated(self) -> bool:
        """Whether the file on disk is another one, whose change was refused."""


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """The keys in a keys file, by sha256."""

    entries: Mapping[str, KeyEntry]
    path: Path | None
    fault: str | None = None
    """A problem with the file that the operator should know; None if there is none."""


def read_keys(path: Path | None) -> tuple[ClientKeys, tuple[Path, ...]]:
    """The keys in this file and the files to watch; both empty if `path` is None. Raises `ConfigError`."""
    if path is None:
        return ClientKeys({}, None), ()
    if not path.exists():
        return ClientKeys({}, path, f"{path.name} does not exist, so none of its keys is accepted"), (path,)
    return ClientKeys(load_keys_quietly(path), path), (path,)


def log_keys_change(keys: ClientKeys, reason: str | None) -> None:
    """Log the result of a change of the keys file; `reason` says why it was refused, None that it was applied."""
    name = keys.path.name if keys.path else "keys"
    if reason is not None:
        log.error("%s: the change is invalid, the previous keys stay active: %s", name, reason)
    elif keys.fault is not None:
        log.error("%s", keys.fault)
    else:
        log.info("%s: reloaded, %d keys", name, len(keys.entries))


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """Report of one process about its configuration; times are seconds since the epoch."""

    pid: int
    path: str
    since: float
    """When the active policies were read."""
    refused: str | None = None
    """Why the file on disk is refused; None if it is active."""
    refused_at: float | None = None
    restart: tuple[str, ...] = ()
    """Messages about changes that need a restart."""
    keys: str | None = None
    """Problem with the keys file; None if there is none."""


class Policies(WatchedFiles[ActiveConfig]):
    """The policies file at `path` and its keys, kept up to date; raises `ConfigError` if one is invalid at the start.
    If `serve` has stored an active version, an invalid file counts as a refused change of it, even when a process
    starts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._active = active_policies.process_policies(path)
        self._file_at_start: PolicyFile | None = None
        """The file with which the process started, to find changes that need a restart; None until it is read."""
        super().__init__(self._read_config, self._handle_change)
        self._keys_file = WatchedFiles(self._read_keys, self._handle_keys_change)
        self.keys = self._keys_file.current.entries
        self._file_at_start = self.current.file
        if self._keys_file.current.fault:
            log_keys_change(self._keys_file.current, None)
        self._report = ReloadReport(os.getpid(), str(path), time.time(), keys=self._keys_file.current.fault)
        self._write_report()

    @property
    def is_outdated(self) -> bool:
        return self.refusal is not None

    def check_files(self) -> None:
        super().check_files()
        self._keys_file.check_files()

    def _read_config(self) -> tuple[ActiveConfig, tuple[Path, ...]]:
        """The configuration in force, and the files to watch: policies file, files that it names, index of heads.

        Raises `ConfigError` if the files are invalid or the change is refused.
        """
        file = self._read_at_start() if self._file_at_start is None else self._read_disk()
        for warning in file.warnings:
            _warn_once(warning)
        active_config = ActiveConfig.from_file(file)
        metrics.record_taught(active_config.heads.index)
        return active_config, (self.path, active_config.heads.store.index_path, *file.file_paths)

    def _read_disk(self) -> PolicyFile:
        """Load the file on disk and make it the active version; raises `ConfigError` if it is invalid or refused."""
        file = registry.load_policies(self.path)
        config.refuse_without_policies(file)
        registry.configure_plugins(file)
        # At the start this process has no earlier file to compare with.
        self._active.activate(file, self.current.file if self._file_at_start else None)
        return file

    def _read_at_start(self) -> PolicyFile:
        """The file on disk or, if it is refused, the stored active version; raises `ConfigError` if none is stored."""
        try:
            return self._read_disk()
        except ConfigError:
            active_file = self._active.read_file()
            if active_file is None:
                raise
            return active_file

    def _adopt_other_process_version(self) -> None:
        """Adopt the version that another process has made active, if this process does not have it yet."""
        text = self._active.read_text()
        if text is None or text == self.current.file.source.text:
            return
        try:
            active_file = self._active.read_file()
            if active_file is not None:
                self.current = ActiveConfig.from_file(active_file)
        except (AlignerProxyError, *_PARSER_ERRORS) as error:  # such as a missing file that the version names
            log.warning(
                "%s: the version that another process made active cannot be read (%s)",
                self.path.name,
                type(error).__name__,
            )

    def _read_keys(self) -> tuple[ClientKeys, tuple[Path, ...]]:
        """The keys that the active policies name, and the files to watch; raises `ConfigError`."""
        return read_keys(config.keys_path(self.current.file))

    def _handle_change(self, reason: str | None) -> None:
        """Count, log and report a change of the policies file; `reason` says why it was refused, None if it was not."""
        now = time.time()
        self._count_change(reason)
        if reason is not None:
            log.error("%s: the change is invalid, the previous version stays active: %s", self.path.name, reason)
            # Another process may have read a valid version in between, which this process has missed.
            self._adopt_other_process_version()
            self._report = replace(self._report, refused=reason, refused_at=now)
        else:
            # No change happens before the start is complete, so the file of the start is known.
            assert self._file_at_start is not None
            restart_changes = tuple(_list_restart_changes(self._file_at_start, self.current.file))
            log.info("%s: reloaded, applies to new requests", self.path.name)
            for change in restart_changes:
                log.warning("%s", change)
            self._report = replace(self._report, since=now, refused=None, refused_at=None, restart=restart_changes)
            self._keys_file.force_next_read()  # the file may name another keys file now
        self._write_report()

    def _handle_keys_change(self, reason: str | None) -> None:
        """Count, log and report a change of the keys file; `reason` says why it was refused, None if it was not."""
        self._count_change(reason)
        self.keys = self._keys_file.current.entries
        log_keys_change(self._keys_file.current, reason)
        self._report = replace(self._report, keys=reason or self._keys_file.current.fault)
        self._write_report()

    def _count_change(self, reason: str | None) -> None:
        """Count a change of one of the files, and set whether either file is refused now."""
        stale = self.is_outdated or self._keys_file.refusal is not None
        metrics.record_policy_change(is_refused=reason is not None, stale=stale)

    def _write_report(self) -> None:
        """Write the report for `aligner-proxy doctor`; a failure is only logged."""
        try:
            write_report(self._report)
        except (ConfigError, OSError) as error:
            log.warning("the report for `aligner-proxy doctor` cannot be written (%s)", type(error).__name__)


@lru_cache(maxsize=1024)
def _warn_once(warning: str) -> None:
    """Log each warning once, since a file that changes often would fill the log."""
    log.warning("%s", warning)


def watched_policies(path: Path) -> Policies:
    """The watched policies file at `path`, one object per process."""
    # Symbolic links are not resolved, because a mounted file may be changed by replacing its link.
    return _watch_policies(Path(os.path.abspath(path)))


@lru_cache(maxsize=4)
def _watch_policies(path: Path) -> Policies:
    """The policies at an absolute path; created and watched by a thread at the first call."""
    policies = Policies(path)
    keep_checking(policies)
    return policies


def refer_to_file(policies: Policies) -> Callable[[], PolicyFile | None]:
    """Return a function that returns the active policies file, or None once no guardrail uses `policies` any more.

    LiteLLM's application keeps this function for ever, so it must not keep `policies`.
    """
    policies_reference = weakref.ref(policies)

    def find_file() -> PolicyFile | None:
        policies_in_use = policies_reference()
        return None if policies_in_use is None else policies_in_use.current.file

    return find_file


def load_keys_quietly(path: Path) -> dict[str, KeyEntry]:
    """Load the keys; an error names only the location, because its original text may quote a misplaced key."""
    try:
        return load_keys(path)
    except ConfigError as error:
        match = _PLACE.match(str(error))
        place = match[0] if match else path.name
        raise ConfigError(f"{place}: invalid keys file; run `aligner-proxy check` to see why") from None


def _list_restart_changes(file_at_start: PolicyFile, current_file: PolicyFile) -> Iterator[str]:
    """Yield a message about each change that takes effect only after a restart.

    These are changed settings in blocks that are read at the start, and names of new correctors and rules.
    """
    for block_name in _BLOCKS_READ_AT_START:
        old_block = getattr(file_at_start, block_name)
        new_block = getattr(current_file, block_name)
        for name in type(new_block).model_fields:
            if getattr(old_block, name) != getattr(new_block, name):
                place = current_file.source.place_of(block_name, name)
                yield f"{place}: {block_name}.{name} changed on disk; restart the gateway to apply it"
    for find_names in (corrector_names, rule_names):
        key_paths = find_names(current_file)
        for name in key_paths.keys() - find_names(file_at_start).keys():
            place = current_file.source.place_of(*key_paths[name])
            yield f"{place}: {quote_name(name)} is new; restart the gateway to load it, until then requests for it fail"


def write_report(report: ReloadReport) -> None:
    """Write the report atomically into the run folder, and remove reports of ended processes."""
    folder = _report_folder()
    for earlier_report in folder.glob("policies-*.json"):
        if not active_policies.is_writer_running(earlier_report):
            earlier_report.unlink(missing_ok=True)
    path = folder / f"policies-{report.pid}.json"
    new_file = path.with_suffix(".new")
    new_file.write_text(json.dumps(asdict(report)))
    new_file.replace(path)


def read_reports() -> Iterator[ReloadReport]:
    """Yield the reports of running processes of this user and home; a report that cannot be read is left out."""
    for path in sorted(_report_folder().glob("policies-*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            fields: dict[str, Any] = json.loads(path.read_text())
            fields["restart"] = tuple(fields.get("restart", ()))  # JSON has no tuples
            report = ReloadReport(**fields)
            if active_policies.is_writer_running(path):
                yield report


def _report_folder() -> Path:
    return config.default_socket().parent
