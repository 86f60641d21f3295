"""Mutation test: checks whether the sample of a folder's tests catches what all of its cases catch.

    python -m scripts.mutants TESTS CODE [--count 10] [--seed 1]

It changes lines of CODE at random, one at a time, in a copy of the checkout: a comparison, condition, number or sum
becomes a different one. The sample of TESTS (`pytest --sample`) runs against each mutant, and all cases do if the
sample passes. A mutant that only all cases catch shows a gap in the sample; the exit status counts these.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from scripts.imported_modules import PLACES, ROOT

LIMIT_S = 900
"""Time limit in seconds; a mutant that runs longer does not terminate, so it counts as caught."""
OPPOSITES: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Lt: ast.LtE(),
    ast.LtE: ast.Lt(),
    ast.Gt: ast.GtE(),
    ast.GtE: ast.Gt(),
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.In: ast.NotIn(),
    ast.NotIn: ast.In(),
    ast.Is: ast.IsNot(),
    ast.IsNot: ast.Is(),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one expression: its file, its position in the source (in bytes), and the new text."""

    file: Path
    line: int
    start: int
    end: int
    original: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.original!r} -> {self.text!r}"


def make_mutants(file: Path) -> Iterator[Mutant]:
    """Every change that can be made in a file."""
    source = (ROOT / file).read_text(encoding="utf-8")
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    encoded = source.encode()
    for node in ast.walk(ast.parse(source)):
        for changed in _changed_nodes(node):
            assert isinstance(node, ast.expr)
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            text = f"({ast.unparse(changed)})"
            yield Mutant(file, node.lineno, start, end, encoded[start:end].decode(), text)


def _changed_nodes(node: ast.AST) -> Iterator[ast.expr]:
    """The changed versions of one expression; none for other nodes."""
    match node:
        case ast.Compare(left, [operator], comparators) if type(operator) in OPPOSITES:
            yield ast.Compare(left, [OPPOSITES[type(operator)]], comparators)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.BinOp(left, ast.Add() | ast.Sub() as operator, right):
            yield ast.BinOp(left, ast.Sub() if isinstance(operator, ast.Add) else ast.Add(), right)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value)):
            yield ast.Constant(value + 1)


def is_caught(copy: Path, mutant: Mutant, tests: Sequence[str], options: Sequence[str]) -> bool:
    """Whether the tests fail with the mutant in place; restores the file afterwards."""
    file = copy / mutant.file
    before = file.read_bytes()
    file.write_bytes(before[: mutant.start] + mutant.text.encode() + before[mutant.end :])
    paths = os.pathsep.join(str(copy / place.relative_to(ROOT)) for place in PLACES)
    try:
        return run_tests(copy, paths, tests, options) != 0
    finally:
        file.write_bytes(before)


def run_tests(copy: Path, paths: str, tests: Sequence[str], options: Sequence[str]) -> int:
    """Run pytest in the copy and return its exit status; 1 on timeout."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *options, *tests]
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(
            command, cwd=copy, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=LIMIT_S
        ).returncode
    except subprocess.TimeoutExpired:
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants and print each result; return how many only all cases catch."""
    parser = argparse.ArgumentParser(prog="python -m scripts.mutants", description=__doc__)
    parser.add_argument("tests", help="a folder of tests")
    parser.add_argument("code", nargs="+", type=Path, help="files or folders that it covers")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    files = [file for path in options.code for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]
    every = [mutant for file in files for mutant in make_mutants(file)]
    sampled_mutants = random.Random(options.seed).sample(every, min(options.count, len(every)))
    caught = {"sample": 0, "every case": 0, "neither": 0}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
        for mutant in tqdm(sampled_mutants, unit="mutant", disable=None):
            if is_caught(copy, mutant, [options.tests], ["--sample"]):
                catcher = "sample"
            else:
                catcher = "every case" if is_caught(copy, mutant, [options.tests], []) else "neither"
            caught[catcher] += 1
            tqdm.write(f"{catcher:10} {mutant}")
    print(", ".join(f"{catcher} {count}" for catcher, count in caught.items()))
    return caught["every case"]


if __name__ == "__main__":
    sys.exit(main())
