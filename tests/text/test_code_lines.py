"""Lines that a block of code can lose: whole statements, settings and commands that no other line needs."""

from __future__ import annotations

import ast
import inspect

import pytest

from aligner_proxy.text import code_lines, disguises, structure
from aligner_proxy.text.code_lines import can_go_together, find_code_lines, make_line_block
from aligner_proxy.text.pruned_segments import is_pruned
from aligner_proxy.text.word_removal import without_words

FENCED = "```{}\n{}\n```".format
BLOCKS: list[tuple[str, str, list[str]]] = [
    # language, code, the lines that can go
    ("python", "log.info(total)\nsend(total)", ["log.info(total)", "send(total)"]),
    ("python", "total = 5\nsend(total)", ["send(total)"]),
    ("python", "session.verify = False\nsession.get(url)", ["session.verify = False", "session.get(url)"]),
    ("python", "def pay():\n    send()", []),
    ("python", "def pay():\n    log()\n    send()  # now", ["log()", "send()  # now"]),
    ("python", "send(\n    a,\n    b,\n)\nlog()", ["log()"]),
    ("python", "if a:\n    send()\nelse:\n    log()\n    stop()", ["log()", "stop()"]),
    ("python", 'text = """\nsend()\nlog()\n"""', []),
    ("javascript", "useEffect(() => {\n  console.log(id);\n  load(id);\n}, [id]);", ["console.log(id);", "load(id);"]),
    ("javascript", "const a = {\n  b: 1,\n  c: 2\n};\nsend();", ["send();"]),
    ("javascript", "api.get(url)\n  .then(set);\nlog();", ["log();"]),
    ("bash", "make all\nmake test \\\n  --fast\nmake clean", ["make all", "make clean"]),
    ("bash", 'URL=here\ncurl "$URL"\ndate', ['curl "$URL"', "date"]),
    ("bash", "if true; then\n  date\nfi", []),
    ("bash", "cat <<EOF\ndate\nEOF", []),
    ("bash", "awk '{\n  print\n}' file\ndate", []),
    ("ini", "[mail]\nHOST=here\nKEY=secret", ["HOST=here", "KEY=secret"]),
    ("yaml", "server:\n  port: 80\n  debug: true\nname: x", ["port: 80", "debug: true", "name: x"]),
    ("yaml", "server:\n  port: 80\nname: x", ["name: x"]),
    ("sql", "TRUNCATE TABLE orders;\nINSERT INTO orders\nSELECT * FROM old;", ["TRUNCATE TABLE orders;"]),
    ("json", '{\n  "a": 1\n}', []),
    ("diff", "-a()\n+b()", []),
]


@pytest.mark.parametrize(("language", "code", "lines"), BLOCKS)
def test_only_lines_that_nothing_needs_can_go(language: str, code: str, lines: list[str]) -> None:
    block = FENCED(language, code)
    places = find_code_lines(block)
    assert [block[slice(*place)] for place in places] == lines
    for place, line in zip(places, lines, strict=True):
        assert make_line_block(block, place) == FENCED(language, line)
        rest = without_words(block, [place])
        kept_lines = [kept for kept in code.split("\n") if kept.strip() != line]
        assert rest == FENCED(language, "\n".join(kept_lines))
        assert is_pruned(block, rest)


@pytest.mark.parametrize("text", [FENCED("python", "send()\n" + "a" * 100_000), FENCED("bash", "date\n" * 10_000)])
def test_code_that_nobody_reads_line_by_line_stays_whole(text: str) -> None:
    assert find_code_lines(text) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "line", ["a()" + ".b()" * 70 + "!", "a" + ".b" * 140 + "=", "a(" * 140 + "x", "a =" * 90, "a: " * 90]
)
@pytest.mark.parametrize("language", ["python", "bash", "yaml", "ini", "sql", "js"])
def test_lines_that_nearly_have_a_form_take_no_long_time(language: str, line: str) -> None:
    assert find_code_lines(FENCED(language, "\n".join([line] * 38))) is not None


@pytest.mark.parametrize("text", ["Take a coat.", "```python\nsend()", "```\n```", "", "| a | b |"])
def test_other_text_has_no_lines_of_code(text: str) -> None:
    assert find_code_lines(text) == []


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "a, b = load()\nx = y = 1\nreturn a"),
        ("python", "class A:\n    total = 0\n    name: str"),
        ("python", "f = open(x)\nf.close()\nsuper().__init__()"),
        ("go", "fmt.Println(a)\nfmt.Println(b)"),
        ("rust", 'let name: &str = "a";\nlet (a, b) = f();'),
        ("c", "int i, n;\nchar buf[10];\nint f(int a);\nFoo foo(1);"),
        ("javascript", 'const { a, b } = require("x");\nlet q = 1;\nexport { a };'),
        ("bash", "read -r ANSWER\ndeclare -A m\ncleanup() { rm x; }\nexport A=5"),
        ("sql", "UPDATE users\nSET password = 5\nLIMIT 5\n"),
        ("sql", "BEGIN;\nCOMMIT;\nCREATE TABLE t (id INT);"),
        ("yaml", "text: |\n  Hello there\n  name: you"),
        ("yaml", "tags:\n- a\nother: &n 5"),
        ("ruby", "def f\n  log a\n  a + b\nend"),
        ("text", "Dear John,\nall the best"),
        ("", "send()\nlog()"),
        ("c", "foo(); /* note\n   that goes on */\nbar();"),
    ],
)
def test_what_other_code_may_need_is_not_offered(language: str, code: str) -> None:
    assert find_code_lines(FENCED(language, code)) == []


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "try:\n    connect()\n    login()\nexcept E:\n    x()\n    y()"),
        ("python", "def f():\n    a()\n    b()\ng()"),
        ("bash", "if true; then\n  date\n  make\nfi"),
        ("yaml", "server:\n  port: 80\n  debug: true"),
    ],
)
def test_all_lines_of_a_body_cannot_go_together(language: str, code: str) -> None:
    block = FENCED(language, code)
    first, second, *_ = find_code_lines(block)
    assert can_go_together(block, [first])
    assert can_go_together(block, [second])
    assert not can_go_together(block, [first, second])


def test_python_without_such_a_line_can_still_be_read() -> None:
    count = 0
    for module in (code_lines, disguises, structure):
        for _, function in inspect.getmembers(module, inspect.isfunction):
            block = FENCED("python", inspect.getsource(function).rstrip())
            for place in find_code_lines(block):
                ast.parse("\n".join(without_words(block, [place]).split("\n")[1:-1]))
                count += 1
    assert count
