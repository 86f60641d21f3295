"""`python -m scripts.reference [--check]`: writes the generated pages of docs/reference/, or reports stale ones.

The pages are committed for two reasons. A change of a key, an option or a metric shows in the diff what users will
read. The pages can also be read and searched in a checkout. A test checks that they match the code.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def pages() -> dict[Path, str]:
    """Path and text of each generated page."""
    # LiteLLM, imported below, would otherwise fetch prices from the internet.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    from scripts.reference import commands, headers, http_api, metrics, policy

    return {
        FOLDER / "policy.md": policy.policy_page(),
        FOLDER / "commands.md": commands.commands_page(),
        FOLDER / "headers.md": headers.headers_page(),
        FOLDER / "metrics.md": metrics.metrics_page(),
        FOLDER / "http-api.md": http_api.http_page(),
    }


def main(arguments: list[str]) -> int:
    """Write the stale pages, or with --check report them and return 1 if there are any."""
    stale = {
        path: text for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if "--check" in arguments:
            print(f"{path.relative_to(FOLDER.parents[1])} is not current; run: python -m scripts.reference")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(FOLDER.parents[1])}")
    return int("--check" in arguments and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
