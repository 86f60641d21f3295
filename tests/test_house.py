"""The shape of the house: who may import whom, how large things may grow, what names and words may not occur."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "aligner_proxy"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_FUNCTION, MAX_FILE, MAX_TRAINING_FILE = 60, 300, 350
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "manager", "handler"}
HEAVY = {"torch", "bitsandbytes", "transformers", "peft", "accelerate"}

# The lowest floor first; a room may import rooms of its own floor and below. What is not named stands on the ground.
FLOORS = (
    (
        "auto",
        "types",
        "wishes",
        "errors",
        "segments",
        "provenance",
        "yaml_edit",
        "presence",
        "collecting",
        "watched",
        "timeline",
        "waiting",
        "stretches",
        "engine_setting",
    ),
    ("logs", "tracing", "stages"),
    (
        "prompts",
        "auto_setting",
        "gate_setting",
        "policy_file",
        "config",
        "litellm_file",
        "keys_file",
        "facts",
        "dictated",
        "edits",
        "failures",
        "fate",
        "refusals",
        "json_strings",
        "json_schema",
        "structured",
        "preferences",
        "policy",
        "matching",
        "reachable",
        "unseen",
        "eligibility",
        "account",
        "sampling",
        "recent",
        "cache",
        "gate",
        "engine",
        "tether",
        "plugin_setting",
        "hookspecs",
        "apart",
        "plugged",
        "plugged_cache",
        "plugged_rules",
        "correctors",
        "asked_router",
        "chat_group",
        "self_refine",
        "pku",
        "along",
        "stream_aligner",
        "weighing",
    ),
    ("drafting", "preferring", "pipeline", "reader", "instead", "passage", "telemetry", "in_force", "ledger"),
    ("audit",),
    ("replay",),
    ("rewrite", "inside", "several", "ahead", "streaming", "sentences", "delivery", "shadow"),
    ("blocked", "guardrail", "group", "auth", "supervise", "doctor"),
    ("cli", "__main__"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
KNOWS_LITELLM = {
    "rewrite",
    "streaming",
    "blocked",
    "guardrail",
    "group",
    "chat_group",
    "asked_router",
    "telemetry",
    "auth",
    "inside",
}


def room(path: Path) -> str:
    """The room that a file belongs to: a module or a package directly under aligner_proxy."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions, but not for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node) for block in ast.walk(tree) if _for_types(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "aligner_proxy")


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def ids(path: Path) -> str:
    """A file's name in test reports."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_imports_point_down(path: Path) -> None:
    if path.parent == PACKAGE and path.name == "__init__.py":
        return
    here = room(path)
    assert here in FLOOR, f"{here} has no floor yet; say in FLOORS where it belongs"
    for module in imports(path):
        package, _, rest = module.partition(".")
        there = rest.split(".")[0]
        if package == "aligner_proxy" and there in FLOOR:
            assert FLOOR[there] <= FLOOR[here], f"{here} must not import {there}"


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_only_the_engine_knows_torch_and_only_the_edge_knows_litellm(path: Path) -> None:
    packages = {module.split(".")[0] for module in imports(path)}
    if room(path) != "engine":
        # Commands may import what silences a library's chatter; they never compute.
        assert not packages & (HEAVY - ({"transformers"} if room(path) == "cli" else set()))
    if room(path) not in KNOWS_LITELLM:
        assert "litellm" not in packages


def test_scheduler_side_of_the_engine_is_free_of_torch() -> None:
    for name in (
        "protocol",
        "wire",
        "client",
        "server",
        "scripted",
        "listen",
        "store",
        "proposer",
        "splice",
        "fit",
        "news",
        "scheduler",
        "blocks",
        "sequence",
        "draft_length",
        "pace",
        "phases",
        "load",
        "reading",
        "admission",
    ):
        path = PACKAGE / "engine" / f"{name}.py"
        assert "torch" not in {module.split(".")[0] for module in imports(path)}, name


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "models").rglob("*.py"))], ids=ids)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    training = "models" in path.relative_to(ROOT).parts
    # models/defects holds phrases, not code: what training examples are made of may be long.
    if "defects" not in path.parts:
        assert len(text.splitlines()) <= (MAX_TRAINING_FILE if training else MAX_FILE)
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in functions:
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        linear_main = training and node.name == "main"
        assert linear_main or length <= MAX_FUNCTION, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module docstring of 2 to 6 lines"


def test_names_that_say_nothing_do_not_occur() -> None:
    for folder in ("aligner_proxy", "models", "demo", "bench", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not FORBIDDEN_NAMES & set(path.stem.split("_")), path


def test_broad_except_is_rare_and_explained() -> None:
    lines = [(path, line) for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines()]
    found = [(path, line) for path, line in lines if "BLE001" in line]
    outside = [line for path, line in found if room(path) != "engine"]
    assert len(outside) <= 4, "the pipeline's boundary: whole answers, reading ahead, pieces; and that around plugins"
    assert all(re.search(r"BLE001 - \w+", line) for _, line in found)
