"""The bill of materials names what the lock files pin here, each with its licence."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from scripts import sbom

ROOT = Path(__file__).parents[2]


def components(bill: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in bill["components"]}


def test_every_package_of_the_gateway_has_its_version_and_a_licence() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    bill = sbom.make_bill([lock])
    listed = components(bill)
    assert len(listed) > 100
    assert listed["litellm"]["version"] == metadata.version("litellm")
    installed = {canonicalize_name(distribution.name) for distribution in metadata.distributions()}
    assert [name for name, component in listed.items() if not component.get("licenses") and name in installed] == []
    assert bill["metadata"]["component"]["licenses"] == [{"expression": "Apache-2.0"}]
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(set(references)) == len(references)


def test_a_pin_for_another_platform_is_left_out_and_an_absent_package_has_no_licence() -> None:
    lock = (
        "Not.Installed==1.0 \\\n    --hash=sha256:00\n"
        "elsewhere==2.0 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
        "click[extra]==8.1 ; python_version >= '3.11' \\\n    --hash=sha256:00\n"
    )
    listed = components(sbom.make_bill([lock]))
    assert set(listed) == {"not-installed", "click"}
    assert "licenses" not in listed["not-installed"]
    assert listed["click"]["purl"] == "pkg:pypi/click@8.1"


def test_a_whole_text_where_a_licences_name_should_stand_is_not_quoted() -> None:
    longest = max(
        len(licence["license"]["name"])
        for component in sbom.make_bill([(ROOT / "requirements.lock").read_text(encoding="utf-8")])["components"]
        for licence in component.get("licenses", [])
        if "license" in licence
    )
    assert longest <= sbom.LONGEST_NAME
