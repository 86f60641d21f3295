"""Store of prepared weights on disk: made once, complete or absent, checked before every use. No torch.

`<home>/models/<content hash>-<quantization>/` holds what is loaded, with `stored.json` naming every file's hash. A
folder appears by one rename, under a lock, so neither an interrupted nor a second preparation leaves a half one.
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """Weights ready to be loaded; `files` are their hashes, `window` is in tokens."""

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
        """Where these weights are or will be."""
        return self.root / f"{prepared.content_hash[:32]}-{prepared.quantization}"

    def costs(self, prepared: Prepared) -> Path:
        """The file beside that folder that says what a forward costs on the machines that use it."""
        return self.root / f"{self.folder(prepared).name}.costs.json"

    def find(self, prepared: Prepared) -> Path | None:
        """The folder of these weights, checked against its hashes; None when they are not prepared yet."""
        folder = self.folder(prepared)
        if not folder.exists():
            return None
        fix = f"remove {folder} and start again, it is made anew"
        stored = _read(folder / STORED, fix)
        if stored.content_hash != prepared.content_hash:
            raise WeightsError(f"{folder / STORED} is of other weights; {fix}")
        manifest.verify(folder, stored.files, fix)
        return folder

    def make(self, prepared: Prepared, fill: Callable[[Path], None]) -> Path:
        """Prepare: `fill` writes into a folder that takes its place only when all is written."""
        final = self.folder(prepared)
        with self._lock(final.name):
            if ready := self.find(prepared):
                return ready
            partial = final.with_name(f".partial-{final.name}")
            # The lock is ours, so what lies there was left by a preparation that was interrupted.
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            fill(partial)
            stored = asdict(prepared) | {"files": manifest.hashes(partial)}
            (partial / STORED).write_text(json.dumps(stored, indent=2) + "\n")
            partial.rename(final)
        return final

    def remember(self, name: str, prepared: Prepared) -> None:
        """Note what a hub id was prepared to, so that the download itself may be deleted."""
        self.root.mkdir(parents=True, exist_ok=True)
        _ref(self.root, name, prepared.quantization).write_text(json.dumps(asdict(prepared)) + "\n")

    def recall(self, name: str, quantization: str) -> Prepared | None:
        """What `remember` noted, if that is still here."""
        path = _ref(self.root, name, quantization)
        if not path.exists():
            return None
        prepared = _read(path, f"remove it and run: aligner-proxy pull {name}")
        return prepared if self.folder(prepared).exists() else None

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Only one process prepares these weights; the lock goes with the process that holds it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{name}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _ref(root: Path, name: str, quantization: str) -> Path:
    return root / f"{name.replace('/', '--')}@{quantization}.json"


def _read(path: Path, fix: str) -> Prepared:
    try:
        return _PREPARED.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise WeightsError(f"{path} is missing or corrupt; {fix}") from None
