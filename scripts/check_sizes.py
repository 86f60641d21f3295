"""Checks that no linter makes: sizes, names of modules, and reasons for broad excepts; `make lint` runs it.

Sizes are those of functions, of classes and of folders. Errors end it with status 1. Packed assignments (`a, b = x, y`
that are not swaps), wide records and large folders are only reported.
"""

from __future__ import annotations

import ast
import gc
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKED = ("aligner_proxy", "models", "bench", "demo", "plugins", "scripts", "tests")
SHORT_FUNCTIONS = ("aligner_proxy", "models", "plugins")
FEW_MODULES = ("aligner_proxy", "models")
FUNCTION_LINES = 60
FEW_ATTRIBUTES = ("aligner_proxy", "plugins")
CLASS_ATTRIBUTES = 12
FOLDER_MODULES = 20
PACKED_PER_1000 = 1.0
MEANINGLESS = {"utils", "helpers", "common", "misc", "manager", "handler"}
# A broad except must state its reason on the line. Outside the engine it belongs only at the pipeline's boundary and
# around plugins.
BROAD = re.compile(r"BLE001(?! - \w+)")
BROAD_OUTSIDE_THE_ENGINE = 4
Node = ast.stmt | ast.excepthandler | ast.match_case
_INNER_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Fields of a statement that hold statements, or what holds statements."""


def list_statements(*folders: str) -> Iterator[tuple[Path, tuple[Node, ...]]]:
    """Every Python file below these folders, and its statements at every depth."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), _read_statements(path)


@cache
def _read_statements(path: Path) -> tuple[Node, ...]:
    """The statements of a file. No statement is inside an expression, so the many expressions are not looked into."""
    statements: list[Node] = []
    waiting: list[Node] = [*ast.parse(path.read_text(encoding="utf-8")).body]
    while waiting:
        node = waiting.pop()
        statements.append(node)
        for part in _INNER_BLOCKS:
            waiting.extend(getattr(node, part, ()))
    return tuple(statements)


def long_functions() -> Iterator[str]:
    """Functions of more than `FUNCTION_LINES` lines, except the straight-line `main` of a training script."""
    for path, statements in list_statements(*SHORT_FUNCTIONS):
        for node in statements:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                straight = path.parts[0] == "models" and node.name == "main"
                if lines > FUNCTION_LINES and not straight:
                    yield f"{path}:{node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES}: divide it"


def large_classes(*, records: bool) -> dict[str, int]:
    """The number of attributes of each class that has more than `CLASS_ATTRIBUTES`, by its place.

    Either of the `records`, or of all other classes.
    """
    counts = {
        f"{path}:{node.name}": count_attributes(node)
        for path, statements in list_statements(*FEW_ATTRIBUTES)
        for node in statements
        if isinstance(node, ast.ClassDef) and is_record(node) is records
    }
    return {place: count for place, count in counts.items() if count > CLASS_ATTRIBUTES}


def count_attributes(node: ast.ClassDef) -> int:
    """Count what an instance has by this class: its annotated fields, and all that its methods assign to `self`."""
    names = set()
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(statement.annotation):
            names.add(ast.unparse(statement.target))
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store) and ast.unparse(inner.value) == "self":
            names.add(inner.attr)
    return len(names)


def is_record(node: ast.ClassDef) -> bool:
    """Whether instances are values: a frozen dataclass, or a model of pydantic, which no `__init__` fills."""
    if node.decorator_list:
        return any("frozen=True" in ast.unparse(decorator) for decorator in node.decorator_list)
    return bool(node.bases) and all(getattr(method, "name", "") != "__init__" for method in node.body)


def wide_classes() -> Iterator[str]:
    """Classes with more than `CLASS_ATTRIBUTES` attributes, without records."""
    for place, count in sorted(large_classes(records=False).items()):
        yield f"{place} has {count} attributes, more than {CLASS_ATTRIBUTES}: make a class of the topic in it"


def large_records() -> Iterator[str]:
    """How many records are wide; they are as wide as what they describe."""
    wide = sorted(large_classes(records=True).items(), key=lambda item: -item[1])
    if wide:
        names = ", ".join(f"{place.partition(':')[2]} {count}" for place, count in wide)
        yield f"{len(wide)} records have more than {CLASS_ATTRIBUTES} fields: {names}"


def meaningless_names() -> Iterator[str]:
    """Modules whose name does not say what they contain."""
    for folder in CHECKED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name in sorted(MEANINGLESS & set(path.stem.split("_"))):
                yield f"{path.relative_to(ROOT)}: {name!r} says nothing; name the module after what is in it"


def broad_excepts() -> Iterator[str]:
    """Broad excepts without a reason, or more of them than there are boundaries."""
    outside = []
    for path in sorted((ROOT / "aligner_proxy").rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if BROAD.search(line):
                yield f"{path.relative_to(ROOT)}:{number}: say why it catches everything: # noqa: BLE001 - why"
            if "BLE001" in line and "engine" not in path.parts:
                outside.append(f"{path.relative_to(ROOT)}:{number}")
    if len(outside) > BROAD_OUTSIDE_THE_ENGINE:
        yield f"{', '.join(outside)}: more than {BROAD_OUTSIDE_THE_ENGINE} broad excepts; catch what can really happen"


def large_folders() -> Iterator[str]:
    """Folders with more than `FOLDER_MODULES` modules."""
    for top in FEW_MODULES:
        for folder in [ROOT / top, *sorted(path for path in (ROOT / top).rglob("*") if path.is_dir())]:
            modules = len(list(folder.glob("*.py")))
            if modules > FOLDER_MODULES:
                yield f"{folder.relative_to(ROOT)}: {modules} modules, more than {FOLDER_MODULES}"


def packed_assignments() -> Iterator[str]:
    """Folders with more than `PACKED_PER_1000` packed assignments (`a, b = x, y`) per 1,000 lines."""
    for folder in CHECKED:
        places = [place for path, nodes in list_statements(folder) for place in _packed_places(path, nodes)]
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py"))
        if lines and len(places) > PACKED_PER_1000 * lines / 1000:
            rate = 1000 * len(places) / lines
            yield f"{folder}: {len(places)} packed assignments, {rate:.1f} by 1,000 lines ({places[0]} ...)"


def _packed_places(path: Path, statements: Iterable[Node]) -> Iterator[str]:
    for node in statements:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and not _swaps(target, node.value):
                    yield f"{path}:{node.lineno}"


def _swaps(target: ast.Tuple, value: ast.Tuple) -> bool:
    """Whether a name on the left also occurs on the right, so that the order of two assignments would matter."""
    target_names = {ast.unparse(one) for one in target.elts}
    return any(ast.unparse(node) in target_names for node in ast.walk(value) if isinstance(node, ast.expr))


def main() -> int:
    """Print all findings; return 1 if there are errors."""
    gc.disable()  # all trees stay until the end, and to search them for garbage takes longer than all checks
    errors = [*long_functions(), *wide_classes(), *meaningless_names(), *broad_excepts()]
    for remark in [*large_records(), *large_folders(), *packed_assignments()]:
        print(f"note: {remark}")
    for error in errors:
        print(error)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
