"""Findings of `aligner-proxy doctor`: its own, and those of plugins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """Result of one check, and its fix."""

    check: str
    verdict: Severity
    found: str
    fix: str = ""
