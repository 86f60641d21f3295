"""An engine that finds the insult of odd answers wherever it is asked: `python -m tests.attacks.odd.engine SOCKET`."""

from __future__ import annotations

import sys
from dataclasses import replace

import uvicorn

from aligner_proxy import connections
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine.admission import Admission
from aligner_proxy.engine.server.app import create_app
from tests.attacks.odd.tables import insults
from tests.support.scripted import SCRIPTED, SegmentEngine


def engine() -> SegmentEngine:
    """Every segment with the insult is flagged, also where only a part of it has come, and taken out."""
    made = SegmentEngine(lambda text: 5.0 if insults(text) else -5.0)
    made.about = replace(SCRIPTED, languages=("en",))
    return made


if __name__ == "__main__":
    uvicorn.run(
        create_app(Admission(engine(), slots=16)),
        uds=sys.argv[1],
        log_level="error",
        **connections.uvicorn_settings(ConnectionLimits()),
    )
