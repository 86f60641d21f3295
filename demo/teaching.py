"""The teaching in the demo: `aligner-proxy teach`, run as an operator would, with its progress."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching.store import WHOLE_FILE, HeadStore
from aligner_proxy.types import DEFAULT_ALIGNER
from demo.processes import DemoError


def forget_teaching(policies: PolicyFile, objective: str) -> None:
    """Forget what an earlier run taught, so that this one begins without, and `serve` does not teach it by itself."""
    store = HeadStore.for_file(policies)
    store.forget(WHOLE_FILE, objective)
    store.block_auto_teaching(WHOLE_FILE, objective, [DEFAULT_ALIGNER])


def teach(console: Console, policies: Path, objective: str, sockets: Path) -> dict[str, Any]:
    """Teach an objective with the engine that serves, and return the report; raises `DemoError`."""
    engine = max(sockets.glob("engine-*.sock"), key=lambda path: path.stat().st_mtime)
    options = ["--quick", "--engine", f"unix:{engine}", "--json-lines"]
    command = [sys.executable, "-m", "aligner_proxy", "teach", str(policies), objective, *options]
    columns = (TextColumn("     {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("the engine reads answers with and without these sentences", total=None)
        lines = map(json.loads, child.stdout or ())
        result: dict[str, Any] = {}
        for line in lines:
            if "done" in line:
                progress.update(bar, completed=line["done"], total=line["of"])
            else:
                result = line
    [report] = result.get("objectives") or [{"taught": False, "why": "the command failed"}]
    if not report["taught"]:
        raise DemoError(f"{objective} was not taught: {report['why']}")
    return dict(report)
