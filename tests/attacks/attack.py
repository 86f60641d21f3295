"""One row of docs/reference/attacks.md: who tries what, and what must hold. Every row is a test that really does it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "docs" / "reference" / "attacks.md"
HEAD = """# Attacks

This table lists the attacks that the tests try. Each row is a test that carries out the attack. A test in
`tests/attacks/` attacks the pipeline, the guardrail, the engine's server or the configuration, and a test in
`tests/e2e/` attacks the real proxy. For example, in `adapter-pose` a tenant claims to be another team, and the test
checks that this claim has no effect. THREATS.md lists attacks that are not stopped. `python -m tests.attacks >
docs/reference/attacks.md` writes this page. A test fails if the table differs from the rows in the tests.
"""
THROUGH_THE_PROXY = ("attacks", "declining", "other_guardrails", "silence", "stream_modes", "think_tags")
"""Files of tests/e2e/ that have rows."""


@dataclass(frozen=True, slots=True)
class Attack:
    """A row. `payload` is what the test needs to try it."""

    id: str
    who: str
    tried: str
    holds: str
    payload: Any = None


def rows(*attacks: tuple[Any, ...]) -> list[Any]:
    """The rows as parameters of a test, named by their ids."""
    return [pytest.param(Attack(*attack), id=attack[0]) for attack in attacks]


def every() -> list[tuple[str, Attack]]:
    """All rows with the file that tries them, in order."""
    found: list[tuple[str, Attack]] = []
    live = [HERE.parent / "e2e" / f"test_{name}.py" for name in THROUGH_THE_PROXY]
    for path in [*sorted(HERE.glob("test_*.py")), *live]:
        module = importlib.import_module(f"tests.{path.parent.name}.{path.stem}")
        for value in vars(module).values():
            if isinstance(value, list):
                name = f"tests/{path.parent.name}/{path.name}"
                found.extend((name, one.values[0]) for one in value if _row(one))
    return sorted(found, key=lambda row: (row[0], row[1].id))


def _row(value: Any) -> bool:
    return bool(getattr(value, "values", None)) and not isinstance(value, dict) and isinstance(value.values[0], Attack)


def table() -> str:
    """docs/reference/attacks.md as it should be."""
    found = every()
    lines = [
        HEAD,
        f"{len(found)} attacks.\n",
        "| id | who | what is tried | what must hold | in |",
        "|---|---|---|---|---|",
    ]
    for name, attack in found:
        lines.append(f"| `{attack.id}` | {attack.who} | {attack.tried} | {attack.holds} | `{name}` |")
    return "\n".join(lines) + "\n"
