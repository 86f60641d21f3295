"""Steps that are remembered by what they were made from: a second run skips what is done and goes on from there."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RecipeStep:
    """One step: what it makes, and everything that decides its result."""

    name: str
    output: Path
    settings: Mapping[str, object]
    """All that decides the result, besides the results of the steps in `needs`."""
    needs: tuple[str, ...]
    """The names of the steps that must be done before."""
    run: Callable[[], object]


def run_steps(steps: Sequence[RecipeStep], memory: Path, say: Callable[[str], None] = print) -> None:
    """Run the steps that are not done, each after the steps that it needs.

    `memory` is the folder of their records. An interrupted step goes on with what it left; a step whose settings have
    changed starts anew.
    """
    memory.mkdir(parents=True, exist_ok=True)
    keys: dict[str, str] = {}
    for number, step in enumerate(steps, 1):
        key = _make_key(step, keys)
        keys[step.name] = key
        record = memory / f"{step.name.replace(' ', '_')}.json"
        line = f"step {number} of {len(steps)}: {step.name}"
        former = _read_record(record)
        if former == {"key": key, "done": True} and step.output.exists():
            say(f"{line} (done before)")
            continue
        if former.get("key") != key or former.get("done"):
            _remove(step.output)
        _write_record(record, key, done=False)
        say(line)
        began = time.monotonic()
        step.run()
        _write_record(record, key, done=True)
        say(f"{line}, {time.monotonic() - began:.0f} s")


def _make_key(step: RecipeStep, keys: Mapping[str, str]) -> str:
    document = {"settings": step.settings, "needs": {name: keys[name] for name in step.needs}}
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def _read_record(path: Path) -> dict[str, object]:
    """The record of a step; empty where it is missing or torn."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _write_record(path: Path, key: str, *, done: bool) -> None:
    """Write a step's record, whole or not at all."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps({"key": key, "done": done}), encoding="utf-8")
    draft.replace(path)


def _remove(output: Path) -> None:
    """Remove a file or folder."""
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)
