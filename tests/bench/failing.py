"""Parts of a bench that cannot be measured; a process of their own finds them by name."""

from __future__ import annotations

from aligner_proxy.errors import WeightsError


def ours(_: object) -> dict[str, object]:
    """Fails with an error of this project, whose text is for users."""
    raise WeightsError("no weights here")


def foreign(_: object) -> dict[str, object]:
    """Fails with somebody else's."""
    raise RuntimeError("no weights here")
