"""Reloads policies and keys when their files change; the last good ones stay in force.

A change counts when the files have been still from one look to the next (nobody is writing any more) and when they can
be read as a whole. The value is swapped in one assignment: whoever asks gets the old one or the new one, never a part
of each. Looked at by a thread of its own, because a file may be slow to read and LiteLLM's workers share no signal.

Policies and keys are read and refused together. What was refused, and what will only count after a restart, is logged
once, counted, and left in the run folder, where `aligner-proxy doctor` finds it. Nothing about a request is known here.
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
from typing import Any, Generic, TypeVar

from aligner_proxy.errors import AlignerProxyError, ConfigError
from aligner_proxy.gateway import metrics
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.config import load_keys
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.policy.schema import KeyEntry, PolicyFile, corrector_names, rule_names
from aligner_proxy.policy.yaml_file import short

LOOK_S = 1.0
"""Seconds between two looks; a change counts after one to two of them."""


# What a file can do to whoever parses it (a deep nest, say); nothing in a file may end the watching.
_PARSERS_STUMBLE = (OSError, RuntimeError, MemoryError, ValueError, TypeError, LookupError, AttributeError)


_T = TypeVar("_T")
Signature = tuple[tuple[int, int, int] | None, ...]
Listener = Callable[[str | None], None]
log = logging.getLogger(__name__)


_FIXED = ("aligner", "cache", "shadow", "audit", "plugins")
"""Blocks of the file that engine, cache, shadows, audit and plugins were started with."""
_PLACE = re.compile(r"[^:\n]+:\d+(?=:)")


class Watched(Generic[_T]):
    """`read` returns the value and the files that it came from; what it raises refuses the value.

    `changed` is told what became of a change: None for a value that was taken, else why it was refused, once.
    """

    def __init__(self, read: Callable[[], tuple[_T, tuple[Path, ...]]], changed: Listener = lambda _: None) -> None:
        self._read = read
        self._changed = changed
        self.current, self._files = read()
        self.refusal: str | None = None
        # Nothing is taken for read yet: the files may have changed between being read and being looked at.
        self._taken: Signature = ()
        self._seen = self._signature()

    def look(self) -> None:
        """Take a change that has settled. Called by one thread at a time."""
        now = self._signature()
        still = now == self._seen
        self._seen = now
        # What was refused is read again: it may have named a file that was not there yet.
        if still and (now != self._taken or self.refusal):
            self._take(now)

    def _take(self, now: Signature) -> None:
        try:
            value, files = self._read()
        except AlignerProxyError as error:
            self._refuse(str(error))
            return
        except _PARSERS_STUMBLE as error:
            self._refuse(f"cannot be read: {type(error).__name__}")
            return
        if self._signature() != now:
            return  # written to while it was read; the next looks see
        new = value != self.current or self.refusal is not None
        self.current = value
        self._files = files
        self.refusal = None
        self._taken = self._seen = self._signature()
        if new:
            self._changed(None)

    def _refuse(self, why: str) -> None:
        if why != self.refusal:
            self.refusal = why
            self._changed(why)

    def keep_looking(self, every_s: float = LOOK_S) -> None:
        """Look from now on, for as long as anybody holds this."""
        watching = threading.Thread(
            target=_look_again_and_again, args=(weakref.ref(self), every_s), name="aligner-proxy-watch", daemon=True
        )
        watching.start()

    def _signature(self) -> Signature:
        return tuple(_signed(path) for path in self._files)


def _look_again_and_again(watched: weakref.ref[Watched[_T]], every_s: float) -> None:
    pause = threading.Event()
    while not pause.wait(every_s):
        there = watched()
        if there is None:
            return
        there.look()
        del there


def _signed(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from what it was: a new inode is a new file even if size and time were kept."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@dataclass(frozen=True, slots=True)
class ActiveConfig:
    """One configuration, whole: what a request that begins now goes by."""

    file: PolicyFile
    keys: Mapping[str, KeyEntry]
    resolver: PolicyResolver = field(compare=False)


@dataclass(frozen=True, slots=True)
class Report:
    """What one process says about its configuration; times are seconds since the epoch."""

    pid: int
    path: str
    since: float
    refused: str | None = None
    refused_at: float | None = None
    restart: tuple[str, ...] = ()


class Policies:
    """The policies file at `path` with its keys, as they are now. Raises `ConfigError` when they are bad at first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._watched = Watched(self._read, self._changed)
        self._started = self.current.file
        self._report = Report(os.getpid(), str(path), time.time())
        self._leave_report()

    @property
    def current(self) -> ActiveConfig:
        """What is in force. Ask once a request and keep the answer."""
        return self._watched.current

    def look(self) -> None:
        """Take a changed file now, if it has settled."""
        self._watched.look()

    def keep_looking(self) -> None:
        """Look from now on."""
        self._watched.keep_looking()

    def _read(self) -> tuple[ActiveConfig, tuple[Path, ...]]:
        file = registry.load_policies(self.path)
        registry.configured(file)
        for warning in file.warnings:
            _warn_once(warning)
        keys = config.keys_path(file)
        known = load_keys_quietly(keys) if keys else {}
        return ActiveConfig(file, known, PolicyResolver(file)), (self.path, *((keys,) if keys else ()))

    def _changed(self, refused: str | None) -> None:
        now = time.time()
        metrics.policies(refused=refused is not None)
        if refused is not None:
            log.error("%s: refused, what was before stays in force: %s", self.path.name, refused)
            self._report = replace(self._report, refused=refused, refused_at=now)
        else:
            restart = tuple(_fixed_changes(self._started, self.current.file))
            log.info("%s: taken, counts for requests from now on", self.path.name)
            for change in restart:
                log.warning("%s", change)
            self._report = Report(self._report.pid, self._report.path, now, restart=restart)
        self._leave_report()

    def _leave_report(self) -> None:
        try:
            leave(self._report)
        except (ConfigError, OSError) as error:
            log.warning("doctor will not see what this process refuses (%s)", type(error).__name__)


@lru_cache(maxsize=1024)
def _warn_once(warning: str) -> None:
    """A file that changes often would otherwise fill the log."""
    log.warning("%s", warning)


def at(path: Path) -> Policies:
    """The one watch of this process over the file at `path`, for everybody who asks.

    Links are not followed here: where a mounted file is changed by turning a link, the link is what has to be watched.
    """
    return _at(Path(os.path.abspath(path)))


@lru_cache(maxsize=4)
def _at(path: Path) -> Policies:
    made = Policies(path)
    made.keep_looking()
    return made


def load_keys_quietly(path: Path) -> dict[str, KeyEntry]:
    """The keys; of a refusal only the place, because the rest may quote a key that stands where it should not."""
    if not path.exists():
        raise ConfigError(f"{path.name}: there is no such keys file")
    try:
        return load_keys(path)
    except ConfigError as error:
        place = _PLACE.match(str(error))
        where = place[0] if place else path.name
        raise ConfigError(f"{where}: no valid keys file; `aligner-proxy check` says why") from None


def _fixed_changes(started: PolicyFile, now: PolicyFile) -> Iterator[str]:
    """What stands differently now and yet is as it was when the process started."""
    for block in _FIXED:
        before = getattr(started, block)
        after = getattr(now, block)
        for name in type(after).model_fields:
            if getattr(before, name) != getattr(after, name):
                yield f"{now.source.at(block, name)}: {block}.{name} counts after a restart"
    for names in (corrector_names, rule_names):
        for name in names(now).keys() - names(started).keys():
            place = now.source.at(*names(now)[name])
            yield f"{place}: {short(name)} is made after a restart; until then what it is asked fails"


def leave(report: Report) -> None:
    """Write the report into the run folder, whole or not at all, and remove those of processes that are gone."""
    folder = _folder()
    for path in folder.glob("policies-*.json"):
        if not _alive(path):
            path.unlink(missing_ok=True)
    path = folder / f"policies-{report.pid}.json"
    made = path.with_suffix(".new")
    made.write_text(json.dumps(asdict(report)))
    made.replace(path)


def reports() -> Iterator[Report]:
    """What the running processes of this user and home say."""
    for path in sorted(_folder().glob("policies-*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            told: dict[str, Any] = json.loads(path.read_text())
            report = Report(**{**told, "restart": tuple(told.get("restart", ()))})
            if _alive(path):
                yield report


def _folder() -> Path:
    return config.default_socket().parent


def _alive(path: Path) -> bool:
    """Whether the process that left a report still runs."""
    try:
        os.kill(int(path.stem.rpartition("-")[2]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
