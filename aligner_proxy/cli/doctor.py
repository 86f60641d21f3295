"""`aligner-proxy doctor`: what this machine can run and what to fix. Exit status 1 when a gateway cannot run here."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aligner_proxy.doctor import Finding, Verdict, examine

_STYLE = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.FAULT: "bold red"}


@click.command("doctor")
@click.option("--port", default=4000, show_default=True, type=click.IntRange(1, 65535), help="The gateway's port.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="A policies file whose engine is asked, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(port: int, file: Path | None, as_json: bool) -> None:
    """Say what this machine can run, and what to fix."""
    with Console(stderr=True).status("looking ..."):
        findings = list(examine(port, file))
    runs = all(finding.verdict is not Verdict.FAULT for finding in findings)
    if as_json:
        click.echo(json.dumps({"runs": runs, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print(Console(), findings, runs)
    sys.exit(0 if runs else 1)


def _print(console: Console, findings: Sequence[Finding], runs: bool) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for finding in findings:
        text = escape(finding.found) + (f"\n[dim]{escape(finding.fix)}[/dim]" if finding.fix else "")
        table.add_row(f"[{_STYLE[finding.verdict]}]{finding.verdict}[/]", finding.check, text)
    console.print(table)
    console.print("a gateway can run here" if runs else "a gateway cannot run here yet", style="bold")
