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
    """The result of one check, with a fix."""

    check: str
    verdict: Severity
    found: str
    fix: str = ""
