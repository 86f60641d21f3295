"""Checkable preferences in the words of people, our own, on three sides.

`{n}` is a bound and `{word}` a word to be avoided. `TRAIN` is what patterns and data sets are made from. `DEV` was
written when `preferences/lexicon.py` was done, measured once, and then used to mend it. `TEST` was written after that
and changes nothing any more: its figures are those of docs/lab/2026-11-20-preferences.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from aligner_proxy_systems.metaalign.types import PreferenceKind
from models.defects.phrases import read_yaml

Side = Literal["train", "dev", "test"]
Wordings = Mapping[PreferenceKind, tuple[str, ...]]

_TABLE = read_yaml(Path(__file__).with_name("wordings.yaml"))


def _wordings(side: Side) -> Wordings:
    return MappingProxyType({PreferenceKind(kind): texts for kind, texts in _TABLE[side].items()})


TRAIN = _wordings("train")
DEV = _wordings("dev")
TEST = _wordings("test")
WORDED: Mapping[Side, tuple[str, ...]] = MappingProxyType(_TABLE["unchecked"])
"""In words alone: no rule says whether they are met, and none should be read out of them."""


def wordings_of(side: Side) -> Wordings:
    """The wordings of one side, by kind of preference."""
    return {"train": TRAIN, "dev": DEV, "test": TEST}[side]
