"""Store of prepared weights on disk, which are prepared once and checked before every use. No torch.

`<home>/models/<content hash>-<quantization>/` holds the files to load, and `stored.json` with every file's hash. A
folder appears by a single rename, under a lock. Therefore an interrupted or simultaneous preparation never leaves an
incomplete folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from aligner_proxy.engine.weights import manifest
from aligner_proxy.errors import WeightsError

STORED = "stored.json"
"""Description of the prepared weights in their folder, with the hashes of its files."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Weights ready to be loaded; `files` are the hashes of the files by name, `window` is in tokens."""

    model: str
    content_hash: str
    template: str
    window: int
    quantization: str
    files: dict[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = ()


_PREPARED = TypeAdapter(Prepared)


class WeightStore:
    """The prepared weights under one home folder."""

    def __init__(self, home: Path) -> None:
        self.root = home / "models"

    def folder(self, prepared: Prepared) -> Path:
        """Return the folder where these weights are or will be."""
        # half of the hash keeps the path short; `find` compares all of it
        return self.root / f"{prepared.content_hash[:32]}-{prepared.quantization}"

    def costs(self, prepared: Prepared) -> Path:
        """Return the file, beside the weights' folder, for the measured costs of forward passes."""
        return self.root / f"{self.folder(prepared).name}.costs.json"

    def check_room(self, need_bytes: float) -> None:
        """Raise `WeightsError` if the disk has less than `need_bytes` free for weights that are to be prepared."""
        self.root.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(self.root).free
        if free_bytes < need_bytes:
            raise WeightsError(
                f"the disk of {self.root} is too small: preparing the weights, which happens once, needs "
                f"{need_bytes / 2**30:.1f} GB and there are {free_bytes / 2**30:.1f} GB; make room on it, or set "
                "ALIGNER_PROXY_HOME to a folder elsewhere"
            )

    def find(self, prepared: Prepared) -> Path | None:
        """Return the folder of these weights; None if not prepared yet. Raises `WeightsError` if a file differs."""
        folder = self.folder(prepared)
        if not folder.exists():
            return None
        fix = f"remove {folder} and start again, which makes it again"
        stored = _read_prepared(folder / STORED, fix)
        if stored.content_hash != prepared.content_hash:
            raise WeightsError(f"{folder / STORED} was made from other weights; {fix}")
        manifest.verify(folder, stored.files, fix)
        return folder

    def make(self, prepared: Prepared, fill: Callable[[Path], None]) -> Path:
        """Prepare weights, unless another process has done so meanwhile, and return their folder.

        `fill` is called with a temporary folder, into which it writes the files; the folder is renamed when complete.
        """
        folder = self.folder(prepared)
        with self._lock(folder.name):
            # another process may have held the lock before
            if self.find(prepared):
                return folder
            partial_folder = folder.with_name(f".partial-{folder.name}")
            # we hold the lock, so an existing partial folder was left by an interrupted preparation
            shutil.rmtree(partial_folder, ignore_errors=True)
            partial_folder.mkdir()
            fill(partial_folder)
            description = asdict(prepared) | {"files": manifest.hash_files(partial_folder)}
            (partial_folder / STORED).write_text(json.dumps(description, indent=2) + "\n")
            partial_folder.rename(folder)
        return folder

    def remember(self, name: str, prepared: Prepared) -> None:
        """Record the prepared weights of the hub id `name`, so that the download itself may be deleted."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._locate_record(name, prepared.quantization).write_text(json.dumps(asdict(prepared)) + "\n")

    def find_prepared(self, name: str, quantization: str) -> Prepared | None:
        """Return the weights that `remember` recorded for a hub id; None if there is no record, or they are gone."""
        path = self._locate_record(name, quantization)
        if not path.exists():
            return None
        prepared = _read_prepared(path, f"remove it and run: aligner-proxy pull {name}")
        return prepared if self.folder(prepared).exists() else None

    def _locate_record(self, name: str, quantization: str) -> Path:
        """Return the path of the record that `remember` writes about the hub id `name`."""
        return self.root / f"{name.replace('/', '--')}@{quantization}.json"

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Let only one process prepare these weights; the lock is released if its process dies."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{name}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _read_prepared(path: Path, fix: str) -> Prepared:
    """Read a description of prepared weights; raises `WeightsError`, which ends with `fix` (what to do)."""
    try:
        return _PREPARED.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise WeightsError(f"{path} is missing or corrupt; {fix}") from None
