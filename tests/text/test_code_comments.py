"""Comments go, code never."""

from __future__ import annotations

import signal

import pytest

from aligner_proxy.text import code_lexing
from aligner_proxy.text.code_comments import comment_ranges, same_code, without_comments


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            "```python\ndef add(a, b):\n    # you idiot\n    return a + b  # fool\n```",
            "```python\ndef add(a, b):\n    return a + b\n```",
        ),
        ('```python\nprint("# no comment")\n```', None),
        (
            "```js\n// you idiot\nfetch('https://a.example/x');\n```",
            "```js\nfetch('https://a.example/x');\n```",
        ),
        ("```c\n#include <stdio.h>\nint x; /* fool */\n```", "```c\n#include <stdio.h>\nint x;\n```"),
        ("```sql\n-- you oaf\nSELECT 1;\n```", "```sql\nSELECT 1;\n```"),
        ("```html\n<p>a</p>\n<!-- you\n idiot -->\n<p>b</p>\n```", "```html\n<p>a</p>\n<p>b</p>\n```"),
        ("```c\nint a;\n\nint b; /* x\ny */\n\nint c;\n```", "```c\nint a;\n\nint b;\n\nint c;\n```"),
        ("```js\n/* you\n * fool\n */\n\na = `x \n\n`;\n```", "```js\na = `x \n\n`;\n```"),
        ("```c\nint a; /* you\nfool */ int b;\n```", "```c\nint a;\n int b;\n```"),
        (
            "```robotframework\n*** Test Cases ***\nT\n    Log  a\n# fool\n```",
            "```robotframework\n*** Test Cases ***\nT\n    Log  a\n```",
        ),
        ("```bash\n#!/bin/sh\n# fool\nls\n```", "```bash\n#!/bin/sh\nls\n```"),
        ("```\n# you idiot\nls -l # kept: no language is named\n```", "```\nls -l # kept: no language is named\n```"),
        ("```nonesuch\n# you idiot\nls\n```", "```nonesuch\nls\n```"),
        ("```python\n# only this\n```", None),
        ("~~~python\nx = 1  # fool\n\ny = 2", "~~~python\nx = 1\n\ny = 2"),
        ("You idiot. # no block", None),
    ],
)
def test_a_block_without_its_comments(block: str, expected: str | None) -> None:
    assert without_comments(block) == expected


@pytest.mark.parametrize("block", ["```tnt\n(\n```", "```TNT\n(\n```", "```mcschema\n<!--//\n```"])
def test_no_lexer_runs_without_end(block: str) -> None:
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the lexer runs without end"))
    signal.alarm(5)
    try:
        assert without_comments(block) is None
        assert comment_ranges(block) == []
    finally:
        signal.alarm(0)


@pytest.mark.parametrize("language", ["c", "cpp", "java", "js", "rust", "php", "kotlin", "csharp", "scala", "dart"])
def test_a_comment_in_the_last_line_of_code_is_found(language: str) -> None:
    block = f"```{language}\nx\n// you fool\n```"
    assert [block[start:end] for start, end in comment_ranges(block)] == ["you fool"]
    assert without_comments(block) == f"```{language}\nx\n```"


def test_a_lexer_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only lines that begin with a comment sign count then; the time goes by code, not by the clock of the test."""
    block = "```c\n// fool\nint a; // fool\n// fool\n```"
    comments_by_lexer = comment_ranges(block)
    code_lexing._lex_cached.cache_clear()
    monkeypatch.setattr(code_lexing, "_MAX_LEXER_SECONDS", -1.0)
    assert (len(comments_by_lexer), len(comment_ranges(block))) == (3, 2)
    assert without_comments(block) == "```c\nint a; // fool\n```"
    code_lexing._lex_cached.cache_clear()


@pytest.mark.covering("language", "code")
@pytest.mark.parametrize("code", ["\n" * 40_000, "plain words " * 4_000, " " * 40_000])
@pytest.mark.parametrize("language", ["c", "java", "diff", ""])
def test_long_code_of_any_kind_is_read_to_its_end(language: str, code: str) -> None:
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the time grows with the square of the length"))
    signal.alarm(20)
    try:
        assert comment_ranges(f"```{language}\n{code}\n```") == []
    finally:
        signal.alarm(0)


def test_long_code_is_not_kept_in_memory() -> None:
    for length, kept_count in ((code_lexing._MAX_CACHED_CHARS - 100, 1), (code_lexing._MAX_CACHED_CHARS + 1, 0)):
        code_lexing._lex_cached.cache_clear()
        assert comment_ranges(f"```python\n{'x' * length}  # you fool\n```")
        assert code_lexing._lex_cached.cache_info().currsize == kept_count


def test_code_is_compared_without_comments() -> None:
    block = "```python\ndef add(a, b):\n    # you idiot\n    return a + b\n```"
    assert same_code(block, "```python\ndef add(a, b):\n    return a + b\n```")
    assert same_code(block, "```python\ndef add(a, b):\n    # adds\n\n    return a + b\n```")
    assert not same_code(block, "```python\ndef add(a, b):\n    return a - b\n```")
