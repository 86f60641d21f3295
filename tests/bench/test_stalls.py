"""What the bench of stalls makes of the watchdog's lines, and that its clients send what they are named for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.gateway import routing
from aligner_proxy.observability import logs, stalls
from bench import hostile, plots, upstream
from bench import stalls as bench
from tests.support.serving import served

LINE = {"event": "aligner_loop_stall", "ms": 700, "owner": "aligner", "place": ["aligner_proxy/a.py:1"]}
FOREIGN = {**LINE, "owner": "litellm", "ms": 900, "place": ["litellm/b.py:2"]}
BESIDE = {**LINE, "ms": 200, "other_thread": ["aligner_proxy/c.py:3"]}


def make_figures(**more: Any) -> dict[str, Any]:
    return {
        "asked": 3,
        "p50": 0.01,
        "p99": 0.04,
        "longest": 0.05,
        "stalls": bench.group_by_owner([FOREIGN]),
        "places": bench.group_by_place([FOREIGN]),
        "memory_mb": 300.0,
        "first_event_alone": 1.0,
        "clients": {"deep": {"statuses": {"200": 2}, "first_p50": 0.1, "first_longest": 0.2}},
        **more,
    }


def test_stalls_are_counted_by_owner_and_place() -> None:
    lines = [LINE, FOREIGN, BESIDE]
    assert bench.group_by_owner(lines) == {
        "aligner": {"count": 2, "long": 1, "longest_s": 0.7, "seconds": 0.9},
        "litellm": {"count": 1, "long": 1, "longest_s": 0.9, "seconds": 0.9},
    }
    places = [(row["owner"], row["longest_ms"], row["place"]) for row in bench.group_by_place(lines)]
    assert places[0] == ("litellm", 900, "litellm/b.py:2")
    assert places[2] == ("aligner", 200, "aligner_proxy/a.py:1 (beside aligner_proxy/c.py:3)")


def test_lines_are_read_as_the_watchdog_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.make_handler("json")
    stall = stalls._Stall(began=0.0, usage=None, seconds=0.7, owner="aligner")
    stalls.log.addHandler(handler)
    try:
        stall.report()
    finally:
        stalls.log.removeHandler(handler)
    log = tmp_path / "log"
    log.write_text(f"Something else\n{capsys.readouterr().err}")
    (line,) = bench._read_stalls(log)
    assert (line["owner"], line["ms"]) == ("aligner", 700)


def test_what_litellm_does_alone_is_not_held_against_the_gateway() -> None:
    fine = {"litellm": make_figures(p99=2.0), "gateway": make_figures(p99=2.5)}
    assert bench.list_misses(fine) == []
    slow = {"litellm": make_figures(p99=2.0), "gateway": make_figures(p99=3.5, first_event_alone=11.0)}
    assert [said.split()[0] for said in bench.list_misses(slow)] == ["liveness", "first"]
    ours = {"litellm": make_figures(), "gateway": make_figures(stalls=bench.group_by_owner([LINE]))}
    assert bench.list_misses(ours) == ["1 stalls of ours over 0.5 s, the longest 0.7 s"]


def test_it_becomes_a_table_and_a_figure(tmp_path: Path) -> None:
    found = {"litellm": make_figures(), "gateway": make_figures()}
    assert "| litellm | 1 | 1 | 0.9 | 0.9 |" in bench.format_table("gateway", found["gateway"])
    plots.draw_stalls(found, tmp_path / "stalls.svg")
    assert "<svg" in (tmp_path / "stalls.svg").read_text()


@pytest.mark.parametrize("word", upstream.LONG_ANSWERS)
def test_the_upstream_writes_what_it_is_asked_for(word: str) -> None:
    text = upstream.answer(f"{word} 5000 again")
    assert 4_500 <= len(text) <= 5_500
    assert text != upstream.answer(f"{word} 5000 once more")


def test_answers_are_what_their_names_say() -> None:
    assert "\n" not in upstream.answer("line 5000")
    assert not any(map(str.isspace, upstream.answer("unbroken 5000")))
    with pytest.raises(RecursionError):
        json.loads(upstream.answer("deep 190000"))


def test_the_fallbacks_are_too_many_for_the_gateway() -> None:
    (attack,) = (attack for attack in hostile.ATTACKS if attack.name == "fallbacks")
    assert routing.has_too_many_fallbacks(attack.body(1)["fallbacks"])


async def test_hostile_clients_tell_what_they_got() -> None:
    by_name = {attack.name: attack for attack in hostile.ATTACKS}
    async with served(upstream.app) as address:
        crowd = hostile.Crowd(address, "key")
        for attack in (hostile.Attack("stream", "long 2000"), by_name["huge_first"], by_name["fallbacks"]):
            await crowd.ask(attack)
        await crowd.http.aclose()
        assert await hostile.time_first_event(address, "key") > 0
        others = hostile.Crowd(address, "key")
        found = await others.run(streams=2, chars=500, seconds=0.2)
        await others.http.aclose()
    assert {name: dict(seen.statuses) for name, seen in crowd.results.items()} == {
        "stream": {"whole": 1},
        "huge_first": {"left": 1},
        "fallbacks": {"200": 1},
    }
    assert set(found) == {"stream", *by_name}


def test_a_kind_that_got_nothing_in_time_has_no_times() -> None:
    assert hostile.ClientResults().summarise() == {"statuses": {}}
