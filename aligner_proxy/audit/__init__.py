"""What was done to which answer, and how can that be proved later? The only place where text is kept.

Off unless the operator turns it on. `recorder` takes notes behind the requests' backs, `entry` says what is written of
a choice, `seal` encrypts it, `store` keeps it for as long as it may be kept, `sinks` tell plugins. Nothing here can
touch a response.
"""

from __future__ import annotations

from aligner_proxy.audit.entry import Content, Entry, Flagged, Noted
from aligner_proxy.audit.opening import recorder, store
from aligner_proxy.audit.recorder import Recorder
from aligner_proxy.audit.sinks import Keeper, Sink, keepers
from aligner_proxy.audit.store import Store

__all__ = [
    "Content",
    "Entry",
    "Flagged",
    "Keeper",
    "Noted",
    "Recorder",
    "Sink",
    "Store",
    "keepers",
    "recorder",
    "store",
]
