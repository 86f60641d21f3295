"""The list of `aligner-proxy` commands about reviews."""

from __future__ import annotations

from aligner_proxy import extras
from aligner_proxy.plugins.commands import Command, Companion

_CLI = "aligner_proxy_review.cli"

COMMANDS = (
    Command("replay", "Run recorded answers under another policy or aligner, and compare.", f"{_CLI}.replay"),
    Command(
        "review", "Show recorded answers one by one and ask whether they were corrected rightly.", f"{_CLI}.review"
    ),
    Command("export", "Write reviewed answers as training rows.", f"{_CLI}.export"),
    Command("compare", "Compare two aligners or policies by reviewers' verdicts.", f"{_CLI}.compare"),
    Command(
        "console",
        "Show corrections in a browser, as they happen.",
        f"{_CLI}.console",
        Companion("Also start the console, for browsers on this machine.", port=4001, extra=extras.REVIEW),
    ),
    Command("promote", "Write a change of policy into the policies file.", f"{_CLI}.promote"),
)
