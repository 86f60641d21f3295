"""A bill of materials: what lock files pin for this platform, with licences, as CycloneDX 1.6.

`python -m scripts.sbom requirements.lock ...` prints it. Versions come from the lock files, licences from the metadata
of the packages in this environment; a package that is not installed here has none. It names no time, so that one
release gives one document.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from aligner_proxy import __version__

PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\\n]+))?", re.MULTILINE
)
LONGEST_NAME = 60
"""Some packages have the whole text of their licence where its name should stand."""


def read_pins(lock: str) -> dict[str, str]:
    """The packages that a lock file pins for this platform and Python, with their versions."""
    return {
        canonicalize_name(pin["name"]): pin["version"]
        for pin in PIN.finditer(lock)
        if pin["marker"] is None or Marker(pin["marker"]).evaluate()
    }


def read_licences(name: str) -> list[dict[str, Any]]:
    """The licences of an installed package: its SPDX expression, else the name that it gives, else its classifiers."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    if expression := about.get("License-Expression"):
        return [{"expression": expression}]
    classifiers = [
        text.rpartition(" :: ")[2] for text in about.get_all("Classifier") or [] if text.startswith("License ::")
    ]
    text = (about.get("License") or "").strip()
    names = [text] if 0 < len(text) <= LONGEST_NAME and "\n" not in text else classifiers or text.splitlines()[:1]
    return [{"license": {"name": licence}} for licence in names]


def describe_package(name: str, version: str) -> dict[str, Any]:
    """A package as a component of CycloneDX."""
    address = f"pkg:pypi/{name}@{version}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": address,
        "name": name,
        "version": version,
        "purl": address,
    }
    if licences := read_licences(name):
        component["licenses"] = licences
    return component


def make_bill(locks: list[str]) -> dict[str, Any]:
    """The bill of materials of the gateway, from the texts of its lock files."""
    pins = {name: version for lock in locks for name, version in read_pins(lock).items()}
    gateway = describe_package("aligner-proxy", __version__) | {"type": "application"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": gateway},
        "components": [describe_package(name, version) for name, version in sorted(pins.items())],
    }


if __name__ == "__main__":
    print(json.dumps(make_bill([Path(lock).read_text(encoding="utf-8") for lock in sys.argv[1:]]), indent=1))
