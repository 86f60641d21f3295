"""The active version of the policies file, shared by all processes of one `serve`: the last valid text that took no
enforced objective from a tenant. `serve` stores it in its run folder, in a state file.

A restarted worker or a second generation therefore has the same policies as the other processes, even if the file on
disk is refused now, and all processes detect the same changes. Without `serve`, each LiteLLM process compares a change
with its own policies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config, environment
from aligner_proxy.policy.losses import refuse_losses
from aligner_proxy.policy.schema import PolicyFile

log = logging.getLogger(__name__)
_STATE_FILE_PREFIX = "in-force-"


@dataclass(frozen=True, slots=True)
class ActivePolicies:
    """The active version of the policies file at `path`."""

    path: Path
    state_file: Path | None
    """Where `serve` stores the active version; None without `serve`."""

    def read_text(self) -> str | None:
        """The active text; None if none is stored, or the stored file cannot be read."""
        if self.state_file is None:
            return None
        try:
            text: str = json.loads(self.state_file.read_text(encoding="utf-8"))["text"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return text

    def read_file(self) -> PolicyFile | None:
        """The active file, parsed; raises `ConfigError`."""
        text = self.read_text()
        return None if text is None else registry.parse_policies(text, self.path)

    def refuse_losses(self, file: PolicyFile, current: PolicyFile | None = None) -> None:
        """Raise `ConfigError` if `file` lacks an objective that the active version enforces for a tenant.

        `current` is the file that the caller uses, with which `file` is compared if no active version is stored.
        """
        active_file = self._file_to_compare(file, current)
        if active_file is not None:
            refuse_losses(active_file, file)

    def activate(self, file: PolicyFile, current: PolicyFile | None = None) -> None:
        """Store a file as the active version; raise `ConfigError` if it takes enforced objectives from a tenant.

        `current` is the file that the caller uses, for the comparison if no active version is stored. Without a state
        file, this only compares.
        """
        if self.state_file is None:
            self.refuse_losses(file, current)
            return
        with self._lock_state():
            self.refuse_losses(file, current)
            if self.read_text() != file.source.text:
                self.save(file)

    def save(self, file: PolicyFile) -> None:
        """Store a file as the active version; if it cannot be stored, remove the old version instead, so that each
        process reads the policies file itself.
        """
        assert self.state_file is not None
        new_file = self.state_file.with_suffix(".new")
        state = {"path": os.path.abspath(self.path), "text": file.source.text}
        try:
            new_file.touch(mode=0o600)  # before the text is in it, so that no other user can read it
            new_file.write_text(json.dumps(state), encoding="utf-8")
            new_file.replace(self.state_file)
        except OSError as error:
            log.warning(
                "the active policies cannot be stored for new processes (%s); each reads the file itself",
                error.strerror,
            )
            for path in (new_file, self.state_file):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _file_to_compare(self, file: PolicyFile, current: PolicyFile | None) -> PolicyFile | None:
        """The active version with which `file` is compared; None if it is unknown or has the same text.

        `current` is the file that the caller uses, which is returned if no active version is stored or readable.
        """
        active_text = self.read_text()
        if active_text == file.source.text:
            return None
        if active_text is None or (current is not None and active_text == current.source.text):
            return current  # in the second case it is the active version, already parsed
        try:
            return registry.parse_policies(active_text, self.path, with_files=False)
        except ConfigError:
            # An earlier release accepted this text; the `serve` of that release still runs, and has compared the files.
            log.warning("%s: cannot be compared with the active version, which this release refuses", self.path.name)
            return current

    @contextlib.contextmanager
    def _lock_state(self) -> Iterator[None]:
        """Context manager that locks the stored file, so that only one process changes it at a time."""
        assert self.state_file is not None
        try:
            lock = self.state_file.with_suffix(".lock").open("w")
        except OSError:
            yield  # the disk cannot be written; `save` logs that
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def process_policies(path: Path) -> ActivePolicies:
    """The active policies for this process, shared if `serve` started it."""
    return ActivePolicies(path, environment.read_path_variable(environment.ACTIVE_POLICIES_FILE))


def state_file_path() -> Path:
    """The path at which this `serve` process stores its active policies."""
    return config.default_socket().with_name(f"{_STATE_FILE_PREFIX}{os.getpid()}.json")


@contextlib.contextmanager
def keep_active(path: Path, file: PolicyFile) -> Iterator[ActivePolicies]:
    """Context manager that stores `file` as the active version while this `serve` runs.

    It also removes state files that ended processes left.
    """
    for state_file in _state_files():
        if not is_writer_running(state_file):
            _remove_state(state_file)
    active_policies = ActivePolicies(path, state_file_path())
    active_policies.save(file)
    try:
        yield active_policies
    finally:
        _remove_state(state_file_path())


def running_policies(path: Path) -> Iterator[ActivePolicies]:
    """The active policies of each running `serve` of this user and home that uses the policies file at `path`."""
    for state_file in _state_files():
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            stored_path = json.loads(state_file.read_text(encoding="utf-8"))["path"]
            if is_writer_running(state_file) and stored_path == os.path.abspath(path):
                yield ActivePolicies(path, state_file)


def is_writer_running(path: Path) -> bool:
    """Whether the process that wrote a file still runs; its id ends the file's name, as in `policies-4711.json`."""
    _, _, process_id = path.stem.rpartition("-")
    try:
        os.kill(int(process_id), 0)  # signal 0 only asks whether the process exists
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:  # another user's process
        return True
    return True


def _state_files() -> list[Path]:
    """The files in which `serve` processes of this user and home store their active policies."""
    return sorted(config.default_socket().parent.glob(f"{_STATE_FILE_PREFIX}*.json"))


def _remove_state(state_file: Path) -> None:
    for path in (state_file, state_file.with_suffix(".lock")):
        path.unlink(missing_ok=True)
