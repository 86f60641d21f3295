"""`python -m models.recipe --base NAME_OR_FOLDER --data DIR` trains an aligner."""

from __future__ import annotations

from .command import main

main()
