"""`python -m tests.attacks`: the table of docs/reference/attacks.md."""

from __future__ import annotations

import sys

import tests.conftest  # noqa: F401 - keeps LiteLLM from asking the network
from tests.attacks.attack import table

sys.stdout.write(table())
