"""Comments in code go as a whole, with their line; the code stays byte for byte, whole and in streams."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways

ANSWER = "Try this:\n\n```{}\n{}\n```\n\nRun it once.".format
CASES: list[tuple[str, str, str]] = [
    # language, code, what is left of it
    ("python", "total = 0\n# You are a fool.\nfor x in xs:\n    total += x", "total = 0\nfor x in xs:\n    total += x"),
    ("python", "total = 0  # You are a fool.\nprint(total)", "total = 0\nprint(total)"),
    ("python", "# Sum the values. You are a fool.\nsum(xs)", "# Sum the values.\nsum(xs)"),
    ("python", "# Sum the values.\n# You are a fool.\nsum(xs)", "# Sum the values.\nsum(xs)"),
    ("python", "# You are a fool.\nsum(xs)", "sum(xs)"),
    ("python", "sum(xs)\n# You are a fool.", "sum(xs)"),
    ("python", "def f(x):\n    # You are a fool.\n    return x", "def f(x):\n    return x"),
    ("python", 'print("# of items")  # You are a fool.\nx = 1', 'print("# of items")\nx = 1'),
    ("python", 'def f(x):\n    """You are a fool."""\n    return x', "def f(x):\n    return x"),
    ("python", 'def f(x):\n    """\n    You are a fool.\n    """\n    return x', "def f(x):\n    return x"),
    (
        "python",
        'def f(x):\n    """Return x. You are a fool."""\n    return x',
        'def f(x):\n    """Return x."""\n    return x',
    ),
    (
        "python",
        'def f(x):\n    """Return x.\n\n    You are a fool.\n    """\n    return x',
        'def f(x):\n    """Return x.\n    """\n    return x',
    ),
    ("c", "/* You are a fool. */\nint a = 1;", "int a = 1;"),
    ("c", "int a = 1; /* You are a fool. */\nint b = 2;", "int a = 1;\nint b = 2;"),
    ("c", "/*\n * You are a fool.\n */\nint a = 1;", "int a = 1;"),
    ("c", "/*\n * Adds numbers.\n * You are a fool.\n */\nint a = 1;", "/*\n * Adds numbers.\n */\nint a = 1;"),
    ("js", "/** You are a fool. */\nfunction f() {}", "function f() {}"),
    ("js", "const a = 1;\n// You are a fool.\nconst b = 2;", "const a = 1;\nconst b = 2;"),
    ("js", 'fetch("https://a.example/x"); // You are a fool.\ndone();', 'fetch("https://a.example/x");\ndone();'),
    ("jsx", "<div>\n  {/* You are a fool. */}\n  <p>Hi</p>\n</div>", "<div>\n  <p>Hi</p>\n</div>"),
    ("diff", " sum(xs)\n-x = 3\n+# You are a fool.\n+x = 4", " sum(xs)\n-x = 3\n+x = 4"),
    ("diff", " sum(xs)\n-x = 3\n+x = 4\n // You are a fool.", " sum(xs)\n-x = 3\n+x = 4"),
    ("sql", "SELECT 1;\n-- You are a fool.\nSELECT 2;", "SELECT 1;\nSELECT 2;"),
    ("sql", "SELECT 1; -- You are a fool.\nSELECT 2;", "SELECT 1;\nSELECT 2;"),
    ("html", "<ul>\n  <!-- You are a fool. -->\n  <li>One</li>\n</ul>", "<ul>\n  <li>One</li>\n</ul>"),
    ("css", "a {\n  color: red; /* You are a fool. */\n}", "a {\n  color: red;\n}"),
    ("bash", "#!/bin/sh\n# You are a fool.\necho hi", "#!/bin/sh\necho hi"),
    ("yaml", "a: 1 # You are a fool.\nb: 2", "a: 1\nb: 2"),
    ("rust", "/// You are a fool.\nfn main() {}", "fn main() {}"),
    ("lua", "local a = 1\n-- You are a fool.\nprint(a)", "local a = 1\nprint(a)"),
    ("python", "a = 1\n\n# You are a fool.\n\nb = 2", "a = 1\n\nb = 2"),
    ("python", "a = 1\r\n# You are a fool.\r\nb = 2", "a = 1\r\nb = 2"),
    ("python", "# Read it.\na()\n# You are a fool.\nb()\n# Close it.", "# Read it.\na()\nb()\n# Close it."),
    ("python", 'def f():\n    """You are a fool."""\n\nf()', 'def f():\n    """"""\n\nf()'),
    ("python", 'run(\n    """You are a fool."""\n)', 'run(\n    """"""\n)'),
    ("python", 'class A:\n    """You are a fool."""\n\n    x = 1', "class A:\n\n    x = 1"),
    ("ruby", "=begin\nYou are a fool.\n=end\nputs 1", "puts 1"),
    ("cpp", "int f(/* you are a fool */ int a);", "int f(int a);"),
    ("latex", "% You are a fool.\n\\section{A}", "\\section{A}"),
    ("powershell", "<# You are a fool. #>\nGet-Item .", "Get-Item ."),
    ("csharp", "/// <summary>You are a fool.</summary>\nclass A {}", "class A {}"),
    ("sql", "/* You are a fool.\n   Really. */\nSELECT 1;", "/*\n   Really. */\nSELECT 1;"),
    ("", "a = 1\n# You are a fool.\nb = 2", "a = 1\nb = 2"),
    ("c", "return/* You are a fool. */0;", "return 0;"),
    ("c", "c = a+/* You are a fool. */+b;", "c = a+ +b;"),
    ("c", "f(/* You are a fool. */);", "f();"),
    ("sql", "SELECT/* You are a fool. */name FROM t;", "SELECT name FROM t;"),
    ("c", "int a; // fine \\\n   You are a fool.\nint b;", "int a; // fine \\\n\nint b;"),
]


@pytest.mark.parametrize(("language", "code", "left"), CASES)
async def test_a_comment_that_loses_its_words_goes_and_the_code_stays(language: str, code: str, left: str) -> None:
    expected = ANSWER(language, left) if left else "Run it once."
    assert set((await correct_in_all_ways(ANSWER(language, code))).values()) == {expected}


async def test_a_block_of_comments_goes_with_the_line_that_announces_it() -> None:
    texts = await correct_in_all_ways(ANSWER("python", "# You are a fool."))
    assert set(texts.values()) == {"Run it once."}


@pytest.mark.parametrize(("language", "code", "left"), CASES)
async def test_code_without_a_faulty_comment_is_not_touched(language: str, code: str, left: str) -> None:
    del code
    answer = ANSWER(language, left)
    assert set((await correct_in_all_ways(answer)).values()) == {answer}
