"""The quality of an aligner by one command: every row of docs/reference/quality.md, beside another aligner if asked.

    python -m models.evaluate.all aligner_proxy/embedded --data DATA --out runs/quality --sample 200 --page

Each row is measured by a module of this folder, with n, intervals, and what must hold. Results are kept under `--out`
by the hashes of the aligner and of the data and by the sample: a stopped run goes on, and a row that was measured with
a larger sample is not measured again. `--page` writes docs/reference/quality.md and its figure, of all rows that are
kept there. Texts of others lie only in `--out`/texts, which git does not see.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from aligner_proxy.errors import ConfigError, WeightsError
from models.data.preference_sets import PreferenceError
from models.reporting import output

from .quality.page import FIGURE, PAGE, Sheet, format_misses, format_page, format_table, plot
from .quality.results import HASH_CHARS, ResultFolder, RowResult, hash_aligner, hash_data
from .quality.rows import ROWS, QualityBench, QualityRow

SAMPLE = 200


def measure_rows(aligner: Path, data: Path, out: Path, rows: Sequence[QualityRow], sample: int) -> None:
    """Measure the rows of which no result is stored yet, and store each result at once."""
    result_folder = ResultFolder(out / "rows")
    hashes = hash_aligner(aligner), hash_data(data)
    texts = out / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    (texts / ".gitignore").write_text("*\n", encoding="utf-8")
    bench = QualityBench(
        aligner, data, texts / hashes[0][:HASH_CHARS], texts / f"sets-{hashes[1][:HASH_CHARS]}", sample
    )
    for number, row in enumerate(rows, 1):
        title = f"{number} of {len(rows)}: {row.name}"
        if result := result_folder.find(row.name, *hashes, sample):
            print(f"{title}: kept, sample {result.sample}", flush=True)
            continue
        print(f"{title}: {row.title}", flush=True)
        start = monotonic()
        figures, scorer = asyncio.run(row.measure(bench))
        result = RowResult(row.name, *hashes, sample, figures, scorer, round(monotonic() - start, 1))
        result_folder.write(result)
        for name, figure in figures.items():
            bound = row.bounds.get(name)
            print(f"  {name}: {figure}" + (f"; must be {bound}: {bound.judge(figure)}" if bound else ""), flush=True)


def read_sheet(aligner: Path, data: Path, out: Path) -> Sheet:
    """All stored results of an aligner; of each row that of the largest sample."""
    result_folder = ResultFolder(out / "rows")
    name = hash_aligner(aligner)
    hashes = name, hash_data(data)
    results = {row.name: result for row in ROWS if (result := result_folder.find(row.name, *hashes))}
    return Sheet(aligner.as_posix(), name, results)


def select_rows(names: Sequence[str]) -> list[QualityRow]:
    """The rows of these names in their order, all rows if none is named. Raises `ConfigError`."""
    by_name = {row.name: row for row in ROWS}
    if unknown_names := [name for name in names if name not in by_name]:
        raise ConfigError(f"unknown row {unknown_names[0]!r}; known: {', '.join(by_name)}")
    return [row for row in ROWS if not names or row.name in names]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluate.all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--beside", type=Path, help="a second aligner folder, measured and shown beside the first")
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=", ".join(row.name for row in ROWS))
    parser.add_argument("--sample", type=int, default=SAMPLE, help="answers a row")
    parser.add_argument("--page", action="store_true", help="write docs/reference/quality.md, too")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.sample < 1:
        parser.error("--sample: must be 1 or more")
    aligners = [arguments.aligner, *([arguments.beside] if arguments.beside else [])]
    try:
        rows = select_rows(arguments.only)
        for aligner in aligners:
            measure_rows(aligner, arguments.data, arguments.out, rows, arguments.sample)
        sheets = [read_sheet(aligner, arguments.data, arguments.out) for aligner in aligners]
    except (ConfigError, PreferenceError, WeightsError) as problem:
        sys.exit(str(problem))
    text = f"{format_table(ROWS, *sheets)}\n\n{format_misses(ROWS, sheets[0])}"
    output.write(arguments.out, "quality", text, {sheet.folder: sheet.results for sheet in sheets})
    plot(arguments.out / FIGURE, ROWS, *sheets)
    if arguments.page:
        PAGE.write_text(format_page(ROWS, *sheets), encoding="utf-8")
        plot(PAGE.with_name(FIGURE), ROWS, *sheets)
    print(text)


if __name__ == "__main__":
    main()
