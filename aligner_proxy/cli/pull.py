"""`aligner-proxy pull`: download an aligner's weights, quantise them once, and store them with hashes.

Every step can be interrupted and repeated: a download resumes, and quantisation starts again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape

from aligner_proxy.cli.gpu_fit import describe_fit
from aligner_proxy.cli.options import weight_options, weight_settings
from aligner_proxy.cli.terminal import Terminal, echo
from aligner_proxy.engine.weights import manifest
from aligner_proxy.errors import WeightsError
from aligner_proxy.policy import config

if TYPE_CHECKING:
    from aligner_proxy.engine.loader import EngineSettings


@click.command("pull")
@click.argument("model", default="embedded")
@click.option("--judge", is_flag=True, help="MODEL is a token classifier (aligner.judges): only download it.")
@weight_options
def command(model: str, judge: bool, **options: Any) -> None:
    """Download, quantise and store the weights of MODEL (embedded, a Hugging Face id, or a folder).

    For example: aligner-proxy pull embedded
    """
    console = Terminal(stderr=True)
    weights = weight_settings(options | {"model": model})
    _fetch(console, weights)
    if not judge:
        _prepare(console, weights)


def _fetch(console: Console, weights: EngineSettings) -> None:
    """Download missing weights with the Hugging Face hub's progress bars; do nothing if prepared weights are stored."""
    from aligner_proxy.engine.weights import sources
    from aligner_proxy.engine.weights.store import WeightStore

    model = str(weights.model)
    if WeightStore(config.home_folder()).find_prepared(model, weights.quantization):
        return
    for name in sources.list_missing(model):
        console.print(f"fetching [bold]{escape(name)}[/bold]")
        folder = sources.fetch(name)
        if "@" not in name:
            console.print(f"to stay with this version, write {escape(name)}@{escape(folder.name)}")


def _prepare(console: Console, weights: EngineSettings) -> None:
    """Quantise and store the weights, and print what they need on this machine's GPU and where they are."""
    from aligner_proxy.engine.loader import prepare

    prepared, folder = prepare(weights, config.home_folder(), lambda step: console.print(escape(step)))
    console.print(f"[green]ready[/green] {escape(prepared.model)} {prepared.content_hash[:12]} {prepared.quantization}")
    for line in _describe_gpu(folder, weights.quantization):
        console.print(escape(line))
    echo(str(folder))


def _describe_gpu(folder: Path, quantization: str) -> list[str]:
    """Return lines on what the prepared weights in `folder` would do on this machine's GPU; empty without a GPU."""
    from aligner_proxy.engine.model import acceleration, probe

    card = probe.describe_device()
    if card["device"] != "cuda":
        return []
    missing_part = acceleration.find_missing_part()
    aligner = probe.examine_aligner(str(folder))
    has_head = (folder / manifest.HEAD).exists()
    try:
        lines = describe_fit(card, aligner, quantization, has_head=has_head, has_kernels=missing_part is None)
    except WeightsError as error:
        return [str(error)]  # and no failure, since the weights may be for another machine
    reason = missing_part or aligner.get("obstacle")
    if reason:
        lines.append(f"the library computes it, which is slower than the engine's own kernels: {reason}")
    return lines
