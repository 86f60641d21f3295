"""The policies file in force, as all processes of one `serve` share it: the last text that was valid and took nothing.

`serve` keeps it in its run folder. A worker that starts again, or a second generation, therefore has what the others
have, even where the file on disk is refused now, and all decide alike which change is one. LiteLLM started without
`serve` compares a change with what each process has itself.
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
from aligner_proxy.policy import config
from aligner_proxy.policy.losses import refuse_losses
from aligner_proxy.policy.schema import PolicyFile

log = logging.getLogger(__name__)
_PREFIX = "in-force-"


@dataclass(frozen=True, slots=True)
class ActivePolicies:
    """The policies file at `path` as it is in force; `state_file` is the file that keeps it, None without `serve`."""

    path: Path
    state_file: Path | None

    def read_text(self) -> str | None:
        """The text in force; None where nobody keeps it."""
        if self.state_file is None:
            return None
        try:
            text: str = json.loads(self.state_file.read_text(encoding="utf-8"))["text"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return text

    def read_file(self) -> PolicyFile | None:
        """The file in force, whole; raises `ConfigError`."""
        text = self.read_text()
        return None if text is None else registry.parse_policies(text, self.path)

    def refuse_losses(self, file: PolicyFile, current: PolicyFile | None = None) -> None:
        """Raise `ConfigError` for a file that takes from a tenant what is enforced; `current` is the caller's own."""
        before = self._file_to_compare(file, current)
        if before is not None:
            refuse_losses(before, file)

    def activate(self, file: PolicyFile, current: PolicyFile | None = None) -> None:
        """Put a file in force, unless it takes something away; raises `ConfigError`."""
        if self.state_file is None:
            self.refuse_losses(file, current)
            return
        with self._lock_state():
            self.refuse_losses(file, current)
            if self.read_text() != file.source.text:
                self.save(file)

    def save(self, file: PolicyFile) -> None:
        """Keep a file as the one in force. Where the disk takes nothing, every process goes by its own from now on."""
        assert self.state_file is not None
        new = self.state_file.with_suffix(".new")
        try:
            new.touch(mode=0o600)
            new.write_text(json.dumps({"path": os.path.abspath(self.path), "text": file.source.text}), encoding="utf-8")
            new.replace(self.state_file)
        except OSError as error:
            log.warning("the policies in force cannot be kept for processes to come (%s)", error.strerror)
            for path in (new, self.state_file):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _file_to_compare(self, file: PolicyFile, current: PolicyFile | None) -> PolicyFile | None:
        """What is in force, to compare with; None where nobody knows, or it is this very text."""
        text = self.read_text()
        if text == file.source.text:
            return None
        if text is None or (current is not None and text == current.source.text):
            return current
        try:
            return registry.parse_policies(text, self.path, with_references=False)
        except ConfigError:
            # Another version of us took it, before an upgrade; `serve`, which is of that version, has compared.
            log.warning("%s: cannot be compared with what was in force: that is refused by now", self.path.name)
            return current

    @contextlib.contextmanager
    def _lock_state(self) -> Iterator[None]:
        """Let one process at a time decide."""
        assert self.state_file is not None
        try:
            lock = self.state_file.with_suffix(".lock").open("w")
        except OSError:
            yield  # the disk takes nothing; `save` says so
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def process_policies(path: Path) -> ActivePolicies:
    """What is in force for this process, which `serve` may have started."""
    return ActivePolicies(path, config.active_policies_file())


def state_file_path() -> Path:
    """The file in which this process, a `serve`, keeps its policies."""
    return config.default_socket().with_name(f"{_PREFIX}{os.getpid()}.json")


@contextlib.contextmanager
def keep_active(path: Path, file: PolicyFile) -> Iterator[ActivePolicies]:
    """Keep a file as long as this `serve` runs, and remove those of others that have ended."""
    for other in _state_files():
        if not is_running(other):
            _remove_state(other)
    active = ActivePolicies(path, state_file_path())
    active.save(file)
    try:
        yield active
    finally:
        _remove_state(state_file_path())


def running_policies(path: Path) -> Iterator[ActivePolicies]:
    """What is in force at each `serve` of this user and home that goes by the policies file at `path`."""
    for state_file in _state_files():
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            if is_running(state_file) and json.loads(state_file.read_text(encoding="utf-8"))["path"] == os.path.abspath(
                path
            ):
                yield ActivePolicies(path, state_file)


def is_running(path: Path) -> bool:
    """Whether the process runs whose id ends the name of a file."""
    try:
        os.kill(int(path.stem.rpartition("-")[2]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _state_files() -> list[Path]:
    return sorted(config.default_socket().parent.glob(f"{_PREFIX}*.json"))


def _remove_state(state_file: Path) -> None:
    for path in (state_file, state_file.with_suffix(".lock")):
        path.unlink(missing_ok=True)
