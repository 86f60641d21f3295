"""The table in docs/ is that of the rows, each row has an id of its own, and there are enough."""

from __future__ import annotations

import re

from tests.attacks import attack


def test_the_table_is_that_of_the_tests() -> None:
    assert attack.TABLE.read_text() == attack.table(), "run: python -m tests.attacks > docs/reference/attacks.md"


def test_every_row_is_told_apart_and_complete() -> None:
    found = [row for _, row in attack.every()]
    assert len({row.id for row in found}) == len(found) >= 60
    assert all(row.who and row.tried and row.holds and "|" not in row.tried + row.holds for row in found)


def test_every_threat_names_tests_that_exist() -> None:
    text = (attack.HERE.parents[1] / "THREATS.md").read_text()
    ids = {row.id for _, row in attack.every()}
    threats = [line for line in text.splitlines() if line.startswith("| ") and "`" in line.rsplit("|", 2)[1]]
    assert len(threats) > 25
    for line in threats:
        for name in re.findall(r"`([^`]+)`", line.rsplit("|", 2)[1]):
            exists = (attack.HERE.parents[1] / name).is_file() if name.startswith("tests/") else name in ids
            assert exists, f"{name} in: {line}"
