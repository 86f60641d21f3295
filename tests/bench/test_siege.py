"""What a soak with hostile clients calls wrong."""

from __future__ import annotations

from dataclasses import replace

from aligner_proxy.policy.schema import PolicyFile
from bench import siege
from tests.bench.test_soak import FLAT


def test_memory_within_the_bound_is_not_wrong() -> None:
    """Two processes at once, while one takes the place of the other, are more than one may hold."""
    counts = [replace(FLAT, gateway_mb=2.0 * siege.WORKER_MB, worker_mb=float(siege.WORKER_MB))] * 40
    found = siege.summarise(counts, FLAT, FLAT, [100.0, 120.0])
    assert found["wrong"] == []
    assert (found["worker_mb_most"], found["gateway_mb_most"], found["streams_mb_held_most"]) == (1024.0, 2048.0, 120.0)


def test_memory_beyond_it_is_named() -> None:
    counts = [replace(FLAT, worker_mb=siege.WORKER_MB + siege.SPARE_MB + 1.0)] * 40
    (said,) = siege.summarise(counts, FLAT, FLAT, [])["wrong"]
    assert said == "worker_mb: 1089 at most, 1024 were allowed"


def test_streams_that_hold_more_than_their_setting_are_named() -> None:
    (said,) = siege.summarise([FLAT] * 40, FLAT, FLAT, [siege.MAX_MB * 2.0])["wrong"]
    assert said.startswith("streams held 256 MB")


def test_what_is_held_in_the_end_is_named() -> None:
    (said,) = siege.summarise([FLAT] * 40, FLAT, replace(FLAT, tasks=90), [])["wrong"]
    assert said.startswith("tasks")


def test_refusals_are_counted_over_all_kinds() -> None:
    clients = {"a": {"statuses": {"503": 2, "200 failed": 1}}, "b": {"statuses": {"400": 3, "left": 9}}}
    assert siege.count_refused(clients) == 5


def test_its_policies_are_valid() -> None:
    file = PolicyFile.model_validate(siege.make_policies("embedded"))
    assert (file.streams.max_mb, file.streams.stream_mb) == (siege.MAX_MB, siege.STREAM_MB)
