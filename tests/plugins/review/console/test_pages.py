"""What the pages show, and of whose answers."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import replace
from html import unescape
from pathlib import Path

import httpx
import pytest
import yaml

from aligner_proxy.audit.entry import make_entry as recorded
from aligner_proxy.audit.store import AuditStore, Seal
from aligner_proxy.types import Status
from aligner_proxy_review.console import answer_queries
from aligner_proxy_review.console.answer_queries import answer_handle
from tests.audit.conftest import noted
from tests.plugins.review.console.conftest import MASTER, REVIEWER, Browser, Site, an_entry, digest, judged, with_texts

STATIC = Path(answer_queries.__file__).parent / "static"


def test_live_lists_the_newest_first(operator: Browser) -> None:
    text = operator.get("/live").text
    assert text.index(">team:globex<") < text.index(">team:acme<")
    assert re.search(r'<del><span class="text" dir="auto"> ?You fool\.', text)
    for shown in ("corrected", "gpt", "+3.50", "15 ms", "gate: passed", "2 of the newest 2 answers"):
        assert shown in text


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("tenant=team:acme", 1),
        ("tenant=team:nobody", 0),
        ("route=all", 2),
        ("route=other", 0),
        ("objective=kind", 2),
        ("objective=x", 0),
        ("status=corrected", 2),
        ("status=failed", 0),
        ("tenant=team:acme&status=corrected&objective=kind&route=all&unknown=1", 1),
    ],
)
def test_live_is_narrowed(operator: Browser, query: str, count: int) -> None:
    assert operator.get(f"/live?{query}").text.count("<article") == count


def test_older_answers_have_a_page_of_their_own_that_follows_nothing(site: Site, operator: Browser) -> None:
    site.add(*(an_entry(10 + number, at=5000.0 + number) for number in range(60)))
    shown = []
    address = "/live?tenant=team:acme"
    while True:
        text = operator.get(address).text
        shown += re.findall(r'<article class="answer" id="a-([^"]+)"', text)
        assert ("data-events" in text) == ("before=" not in address)
        link = re.search(r'<a href="(/live[^"]*before=[^"]*)">Older answers</a>', text)
        if link is None:
            break
        address = unescape(link[1])
    # two answers of the fixture, of which one is another tenant's
    assert len(shown) == len(set(shown)) == 61
    assert "All answers, the newest" in text


@pytest.mark.parametrize("before", ["x", "nan", "inf", "-inf", "1e999"])
def test_a_time_that_is_none_filters_nothing(operator: Browser, before: str) -> None:
    assert operator.get(f"/live?before={before}").text.count("<article") == 2


def suggestions(browser: Browser) -> dict[str, list[str]]:
    """The values that each filter suggests."""
    lists = re.findall(r'<datalist id="(\w+)-choices">(.*?)</datalist>', browser.get("/live").text)
    return {name: re.findall(r'value="([^"]*)"', options) for name, options in lists}


def test_filters_suggest_to_the_operator_what_is_configured_and_listed(operator: Browser) -> None:
    suggested = suggestions(operator)
    assert suggested["tenant"] == ["team:acme", "team:globex"]
    assert "all" in suggested["route"]
    assert "kind" in suggested["objective"]


def test_filters_suggest_to_a_reviewer_no_other_tenant(anna: Browser) -> None:
    assert suggestions(anna)["tenant"] == ["team:acme"]


def test_an_empty_list_says_what_to_do(operator: Browser) -> None:
    assert "Change or clear a filter" in operator.get("/live?status=failed").text
    operator.get("/search")
    assert "try fewer words" in operator.send("/search", search_text="no such words").text


def test_an_answer_names_its_id_and_leads_to_its_like(operator: Browser) -> None:
    made = an_entry(1)
    text = operator.get(f"/answers/{answer_handle(made)}").text
    assert f'<bdi class="name">{made.aligner_id or "–"}</bdi>' in text
    assert 'href="/live?tenant=team%3Aacme"' in text
    assert 'href="/live?route=all"' in text


def test_a_reviewer_sees_the_own_tenant_alone(site: Site, anna: Browser) -> None:
    assert "globex" not in anna.get("/live").text
    assert "<article" not in anna.get("/live?tenant=team:globex").text
    assert "globex" not in anna.get("/rates?period=7d").text
    ours, theirs = an_entry(1), an_entry(2, at=1001.0, team="globex")
    assert anna.get(f"/answers/{answer_handle(ours)}").status_code == 200
    missing = anna.get("/answers/" + "0" * 16 + "-" + "0" * 32)
    refused = anna.get(f"/answers/{answer_handle(theirs)}")
    assert (refused.status_code, refused.text.replace(answer_handle(theirs), "")) == (404, missing.text)
    assert anna.get("/playground").status_code == 404
    for path in ("/playground", "/policy"):
        anna.get("/live")
        assert anna.send(path, question="q", answer="a", team="globex").status_code == 404
    assert not site.asked


@pytest.mark.parametrize(
    "name", ["x", "7ff0000000000000-" + "0" * 32, "7ff8000000000001-" + "0" * 32, "%00", "a" * 5000, "..%2f..%2fetc"]
)
def test_a_handle_that_is_none_is_not_found(operator: Browser, name: str) -> None:
    assert operator.get(f"/answers/{name}").status_code == 404


def test_an_answer_says_what_was_done_and_why(operator: Browser) -> None:
    text = operator.get(f"/answers/{answer_handle(an_entry(1))}").text
    for shown in (
        "Is it so?",
        'against <bdi class="name">kind</bdi>, score +3.50',
        "Kindness: be kind",
        "policies.yaml:",
        "12 ms the aligner",
    ):
        assert shown in text, shown


def test_a_policy_that_changed_since_is_said_to_have(site: Site, operator: Browser) -> None:
    from aligner_proxy.audit.entry import policy_hash
    from aligner_proxy_review.console.files import ConsoleFiles

    configured = ConsoleFiles(site.litellm).current()
    made = an_entry(5, at=2000.0)
    assert made.content is not None
    facts = replace(made.content.facts, team_settings=None)
    now = policy_hash(configured.extensions.resolve(configured.resolver.resolve(facts), facts))
    same = replace(made, policy_hash=now, content=replace(made.content, facts=facts))
    site.add(same)
    text = operator.get(f"/answers/{answer_handle(same)}").text
    assert "still is" in text
    assert "against a threshold of +0.50" in text
    site.write_policies(defaults={"mode": "shadow"})
    assert "The policy has changed since" in operator.get(f"/answers/{answer_handle(same)}").text


def test_an_answer_without_text_is_shown_without(site: Site, operator: Browser) -> None:
    kept = replace(recorded(noted(7, at=3000.0, no_store=True)), tenant="team:acme")
    site.add(kept)
    assert "No text was kept" in operator.get(f"/answers/{answer_handle(kept)}").text
    assert "No text was kept" in operator.get("/live").text


def test_what_the_gate_refused_is_said(site: Site, operator: Browser) -> None:
    made = an_entry(8, at=3000.0, as_status=Status.UNCHANGED, reason="gate_lost_name")
    assert made.content is not None
    refused = replace(made, content=replace(made.content, edited=made.content.exchange.answer, proposed="It is."))
    site.add(refused)
    assert "gate: refused" in operator.get("/live").text
    assert "The gate refused this" in operator.get(f"/answers/{answer_handle(refused)}").text


def test_rates_are_those_of_500_mixed_answers(site: Site, operator: Browser) -> None:
    now = time.time()
    statuses = (Status.CORRECTED, Status.UNCHANGED, Status.NOT_JUDGED, Status.FAILED, Status.SHADOW)
    expected: dict[tuple[str, str], dict[str, int]] = {}
    entries = []
    for n in range(500):
        status = statuses[n % 7 % 5]
        team = ("acme", "globex", "initech")[n % 3]
        reason = "would_correct" if status is Status.SHADOW and n % 2 else None
        made = an_entry(
            n, at=now - 1 - n * 100, team=team, as_status=status, cache_hit=n % 4 == 0, reason=reason, ms=float(n)
        )
        entries.append(replace(made, policy=("all+x", "chat")[n % 2]))
        row = expected.setdefault(
            (f"team:{team}", ("all", "chat")[n % 2]), dict.fromkeys(("looked", *statuses, "hits"), 0)
        )
        row["looked"] += 1
        row[status] += 1
        row["hits"] += n % 4 == 0
    site.add(*entries)
    rows = re.findall(r"<tr>\s*<th scope=\"row\">(.*?)</tr>", operator.get("/rates?period=1d").text, re.S)
    shown = {}
    for row in rows:
        cells = re.findall(r">\s*([^<>\s][^<>]*?)\s*<", f">{row}<")
        shown[(cells[0], cells[1])] = cells[2:]
    assert shown.pop(("all", "all"))[0] == "500"
    assert len(shown) == len(expected) == 6
    for key, row in expected.items():
        counts = [row["looked"], row[Status.CORRECTED], row[Status.UNCHANGED]]
        assert [int(text) for text in shown[key][:3]] == counts
        assert int(shown[key][3].split()[0]) == row[Status.SHADOW]
        assert [int(text) for text in shown[key][4:7]] == [row[Status.NOT_JUDGED], row[Status.FAILED], row["hits"]]


def test_rates_draw_every_answer(site: Site, operator: Browser) -> None:
    site.add(*(an_entry(n, at=time.time() - n * 60) for n in range(30)))
    text = operator.get("/rates?period=1h").text
    assert 10 <= text.count('<rect class="bar-corrected" x=') <= 24
    largest = re.search(r'<p class="axis-top"><span>(\d+) answers</span>', text)
    assert largest is not None
    in_bars = [int(count) for count in re.findall(r"and after: (\d+) answers", text)]
    assert (int(largest[1]), sum(in_bars)) == (max(in_bars), 30)
    beneath = re.search(r'<p class="axis">(.*?)</p>', text)
    assert beneath is not None
    assert beneath[1].count("<time ") == 3
    assert operator.get("/rates?period=nonsense").status_code == 200


def test_rates_say_when_not_all_were_counted(site: Site, operator: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aligner_proxy_review.console.pages.MAX_COUNTED", 3)
    site.add(*(an_entry(n, at=time.time() - n) for n in range(5)))
    text = operator.get("/rates").text
    assert "the newest were counted" in text
    assert re.search(r"<tfoot>.*?<td>3</td>", text, re.S)


def test_the_playground_asks_the_gateway(site: Site, operator: Browser) -> None:
    site.answers = judged()
    operator.get("/playground")
    got = operator.send(
        "/playground",
        model="gpt",
        question="Is it?",
        answer="It is so. You fool.",
        objectives="concise\r\nOwn: text\r\n",
    )
    (asked,) = site.asked
    assert asked.url == "http://gateway/v1/align"
    assert json.loads(asked.content) == {
        "messages": [{"role": "user", "content": "Is it?"}],
        "answer": "It is so. You fool.",
        "objectives": ["concise", "Own: text"],
        "model": "gpt",
    }
    assert asked.headers["cache-control"] == "no-store"
    for shown in ('data-score="4.0"', 'data-score="-4.0"', "heat-6", "heat-1", 'value="0.5"', "+4.00 against"):
        assert shown in got.text, shown
    assert "You fool" not in str(got.url)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (httpx.Response(403, json={"error": {"message": "not <b>allowed</b>"}}), "403: not &lt;b&gt;allowed&lt;/b&gt;"),
        (httpx.Response(500, content="<html>"), "500: no reason given"),
        (httpx.Response(500, json=["x"]), "500: no reason given"),
        (httpx.Response(200, content="{}"), "unknown form"),
        (judged(segments=[], status="shadow"), "No segment was judged"),
    ],
)
def test_what_the_gateway_refuses_is_said(site: Site, operator: Browser, answers: httpx.Response, said: str) -> None:
    site.answers = answers
    operator.get("/playground")
    assert said in operator.send("/playground", question="q", answer="a").text


def test_the_policy_of_model_team_and_key(operator: Browser) -> None:
    operator.get("/playground")
    text = operator.send("/policy", model="gpt", team="acme").text
    for shown in ("all+acme", "Kindness: be kind", "caution", "0.5", "policies.yaml:"):
        assert shown in text, shown
    assert "all+acme" in operator.send("/policy", model="gpt", key="app").text
    assert "all+acme" not in operator.send("/policy", model="gpt", team="globex").text
    assert "such an answer is skipped" in operator.send("/policy", model="other").text


def test_the_policy_of_a_key_that_only_litellm_knows_is_found_by_its_hash(site: Site, operator: Browser) -> None:
    """A tenant of the file may be a key of LiteLLM's database, which the keys file does not have."""
    sha256 = digest("sk-of-the-database")
    site.write_policies(tenants=[{"match": {"key": sha256}, "name": "job", "enforce": ["kind"]}])
    operator.get("/playground")
    assert "all+job" in operator.send("/policy", model="gpt", key=sha256).text
    assert "all+job" not in operator.send("/policy", model="gpt", key=digest("sk-another")).text


def test_without_a_store_the_page_says_what_to_do(site: Site, browser: Browser) -> None:
    site.write_policies(audit={"enabled": False})
    browser.log_in(MASTER)
    got = browser.get("/live")
    assert got.status_code == 503
    assert "turn it on with audit" in got.text


def test_entries_of_another_key_are_said_to_be(site: Site, operator: Browser) -> None:
    store = AuditStore(site.audit, Seal(bytes(32)))
    store.add(an_entry(9, at=5000.0))
    store.close()
    got = operator.get("/live")
    assert got.status_code == 503
    assert "was encrypted with key" in got.text


def test_htmx_is_the_file_that_its_readme_names() -> None:
    digest = hashlib.sha256((STATIC / "htmx.min.js").read_bytes()).hexdigest()
    assert digest in (STATIC / "README.md").read_text()
    assert "Zero-Clause BSD" in (STATIC / "htmx.LICENSE").read_text()


def test_every_input_has_a_label(operator: Browser) -> None:
    for path in ("/login", "/live", "/rates", "/playground"):
        text = operator.get(path).text
        names = re.findall(r'<(?:input|select|textarea)(?![^>]*type="hidden")[^>]*\bid="([^"]+)"', text)
        assert len(names) == len(re.findall(r'<(?:input|select|textarea)(?![^>]*type="hidden")', text))
        assert all(f'<label for="{name}"' in text for name in names)
        assert '<html lang="en">' in text
        assert text.count("<main") == text.count("<h1") == 1


def test_long_answers_do_not_stop_a_page(site: Site, operator: Browser) -> None:
    long = with_texts(an_entry(3, at=4000.0), "x" * 400_000, "y " * 200_000)
    site.add(long)
    text = operator.get(f"/answers/{answer_handle(long)}").text
    assert len(text) < 400_000
    assert "more characters" in text
    assert len(operator.get("/live").text) < 60_000


def test_what_the_aligner_beside_said_stands_there(site: Site, operator: Browser) -> None:
    made = an_entry(5, at=4000.0, aligner_id="5" * 32)
    other = with_texts(an_entry(5, at=4001.0), "You fool.", "You friend.")
    site.add(made, replace(other, aligner_id="5" * 32 + "-beside", aligner="b" * 64, changed=True))
    text = operator.get(f"/answers/{answer_handle(made)}").text
    assert "it would have changed this" in text
    assert "friend" in text
    assert "aligner beside" not in operator.get(f"/answers/{answer_handle(an_entry(1))}").text


def test_a_link_holds_names_and_no_text(site: Site, operator: Browser) -> None:
    site.answers = judged()
    operator.get("/playground")
    own = "Own: nothing of Anna"
    text = operator.send("/playground", model="gpt", question="Why?", answer="So.", objectives=f"kind\n{own}").text
    found = re.search(r'href="(/playground[^"]+)">Link', text)
    assert found
    assert found[1] == "/playground?model=gpt&amp;objectives=kind"
    again = operator.get("/playground?model=gpt&objectives=kind,Own: nothing").text
    assert 'value="gpt"' in again
    assert ">kind</textarea>" in again
    assert "nothing" not in again


@pytest.mark.parametrize("key", [MASTER, REVIEWER])
def test_before_the_first_answer_pages_are_empty_and_make_no_store(site: Site, browser: Browser, key: str) -> None:
    browser.log_in(key)
    for path, says in (
        ("/live", "0 of the newest 0 answers"),
        ("/rates", "Table of rates"),
        ("/review", "Nothing more waits"),
        ("/review/figures", "0 judged answers"),
    ):
        got = browser.get(path)
        assert got.status_code == 200, path
        assert says in got.text, path
    assert browser.get("/answers/" + answer_handle(an_entry())).status_code == 404
    assert not site.audit.exists()


async def test_what_follows_before_the_first_answer_gets_it(site: Site) -> None:
    follower = site.console.services.feed
    with follower.open_page() as page:
        assert await follower.recent_entries() == []
        await follower.poll()
        site.add(an_entry())
        await follower.poll()
        batch = page.get_nowait()
        assert batch is not None
        assert list(batch.entries) == [an_entry()]


def test_the_playground_passes_over_an_entry_that_is_no_model(site: Site, operator: Browser) -> None:
    data = yaml.safe_load(site.litellm.read_text())
    site.litellm.write_text(yaml.safe_dump(data | {"model_list": [*data["model_list"], 7]}))
    assert 'value="gpt"' in operator.get("/playground").text


def test_the_playground_suggests_what_is_configured(site: Site, operator: Browser) -> None:
    page = operator.get("/playground").text
    assert '<datalist id="models"><option value="gpt"></option></datalist>' in page
    assert '<datalist id="teams"><option value="acme"></option></datalist>' in page
    assert "<code>kind</code>" in page


def test_counts_beside_the_filters_lead_to_what_they_count(site: Site, browser: Browser) -> None:
    site.add(an_entry(1, at=2000.0), an_entry(2, at=2001.0, team="globex", as_status=Status.UNCHANGED))
    browser.log_in(MASTER)
    linked = re.compile(r'<dd><a href="(/live[^"]*)"[^>]*><.*?> (\d+)</a></dd>')
    counts = dict(linked.findall(browser.get("/live").text))
    assert counts["/live?tenant=team%3Aacme"] == "1"
    assert counts["/live?status=unchanged"] == "1"
    for address, count in counts.items():
        assert browser.get(address).text.count("<article") == int(count), address
    # Under a filter the others count what it leaves, and its own value leads back.
    narrowed = browser.get("/live?status=unchanged").text
    assert "tenant=team%3Aacme" not in narrowed
    assert '<a href="/live?" aria-current="true">' in narrowed
    # No text is read for the counts, and only texts tell objectives.
    assert 'class="counts"' not in browser.get("/live?objective=kind").text
    # A reviewer's counts are of the reviewer's teams.
    browser.log_in(REVIEWER)
    assert "globex" not in browser.get("/live").text
