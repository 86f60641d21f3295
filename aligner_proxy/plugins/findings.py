"""Findings of `aligner-proxy doctor`, its own and those of plugins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """The result of one check."""

    check: str
    """Name of the check."""
    verdict: Severity
    found: str
    """What the check found, in words."""
    fix: str = ""
    """What to do about it; empty if nothing is to be done."""
