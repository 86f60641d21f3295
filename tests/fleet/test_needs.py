"""What the test bed needs is what `make fleet-test` installs, and who lacks it is told."""

from __future__ import annotations

import re

import pytest

from tests.fleet import needs
from tests.fleet.bed import ROOT


def test_the_script_installs_what_the_bed_needs() -> None:
    text = (ROOT / "scripts" / "fleet_packages.sh").read_text()
    listed = re.search(r"^packages=\((.+)\)$", text, re.MULTILINE)
    assert listed is not None
    assert set(listed[1].split()) == set(needs.PACKAGES)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs.shutil, "which", lambda program, path: None if program == "haproxy" else program)
    needs.missing.cache_clear()
    try:
        assert "apt-get install haproxy" in needs.missing()
    finally:
        needs.missing.cache_clear()
