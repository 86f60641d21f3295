"""`python -m bench [--only PART] [--requests N] [--answers N] [--rounds N] [--model M] [--data FOLDER] [--out FOLDER]`.

Prints tables while it runs, writes plots into FOLDER, and prints one JSON object with the ratios as the last line.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aligner_proxy import __version__
from aligner_proxy.errors import AlignerProxyError
from bench.isolation import start_worker
from bench.registry import KEYS, PARTS


def main() -> int:
    """Run the selected parts; report the parts that cannot run here."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=list(PARTS))
    parser.add_argument("--requests", type=int, default=160, help="requests to each proxy, of each sort")
    parser.add_argument("--answers", type=int, default=3, help="answers corrected one at a time, in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, help="folder with the research data: real answers where they matter")
    parser.add_argument("--out", type=Path, help="folder for plots and for everything that was measured, as JSON")
    options = parser.parse_args()
    console = Console()
    results = {name: _run_part(console, name, options) for name in PARTS if options.only in (None, name)}
    if options.out:
        _write(options.out, results)
    print(
        json.dumps(
            _describe_machine() | {key: value for part in results.values() for key, value in _list_figures(part)}
        )
    )
    return int(any("error" in part for part in results.values()))


def _run_part(console: Console, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a part in its own process and print its table; on failure return the reason instead of the rows."""
    console.rule(name)
    began = time.perf_counter()
    try:
        with start_worker() as process:
            result = process.submit(PARTS[name], options).result()
    except Exception as error:  # noqa: BLE001 - keep what was measured before, whatever fails here
        reason = str(error) if isinstance(error, AlignerProxyError) else f"{type(error).__name__}: {error}"
        console.print(f"{name} not measured: {reason}", style="yellow", markup=False)
        return {**dict.fromkeys(KEYS[name]), "error": reason, f"without_{name}": reason}
    result[f"{name}_s"] = round(time.perf_counter() - began)
    if result.get("rows"):
        console.print(_TextTable(result["rows"]))
    console.print(dict(_list_figures(result)))
    return result


def _TextTable(rows: list[dict[str, Any]]) -> Table:
    """A table of the rows, with nested values flattened."""
    flat = [
        {f"{k} {i}" if isinstance(v, dict) else k: w for k, v in row.items() for i, w in _list_items(v)} for row in rows
    ]
    table = Table(*flat[0])
    for row in flat:
        table.add_row(*map(str, row.values()))
    return table


def _list_items(value: object) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else [("", value)]


def _list_figures(part: dict[str, Any]) -> list[tuple[str, Any]]:
    """The content of the last line: plain figures; a figure that could not be measured is null, with the reason."""
    plain = (int, float, str, type(None))
    return [(key, value) for key, value in part.items() if isinstance(value, plain) and key not in ("n", "threads")]


def _describe_machine() -> dict[str, Any]:
    return {"version": __version__, "machine": platform.machine(), "python": platform.python_version()}


def _write(folder: Path, results: dict[str, Any]) -> None:
    from bench import plots

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(_describe_machine() | results, indent=1) + "\n")
    plots.draw_parts(results, folder)


if __name__ == "__main__":
    sys.exit(main())
