"""Sentences of strings, pages and letters in a block of code are judged by themselves, and go from what holds them."""

from __future__ import annotations

import ast
import json
import time
from random import Random

import pytest
import yaml

from aligner_proxy.text.code_sentences import find_code_sentences
from aligner_proxy.text.judged_words import judged_words
from aligner_proxy.text.pruned_segments import is_pruned
from aligner_proxy.text.word_removal import without_words
from tests.support.sampling import examples


def remove_fool(block: str) -> str:
    """The block without its sentences about a fool."""
    return without_words(block, [place for place in judged_words(block) if "fool" in block[slice(*place)]])


CHINESE = "\u8bf7\u5e26\u4e0a\u4e00\u4ef6\u5927\u8863\u3002"


@pytest.mark.parametrize(
    ("language", "code", "sentences"),
    [
        ("python", 'x = "Bring a coat."', ["Bring a coat."]),
        ("python", "x = r'Bring a coat.' + \"It is cold, so hurry.\"", ["Bring a coat.", "It is cold, so hurry."]),
        ("python", 'x = """Dear all,\n\nIt is cold.\n"""', ["It is cold."]),
        ("python", 'x = f"Hi {name}, it is cold. Bring a coat."', ["Bring a coat."]),
        ("python", 'x = f"Bring a coat. It is {weather} today."', ["Bring a coat."]),
        ("js", "x = `Bring a coat. It is ${weather} today.`;", ["Bring a coat."]),
        ("js", "x = 'Bring a coat.\\nIt is cold.\\n';", ["Bring a coat.", "It is cold."]),
        ("java", 'String x = "Bring a coat.\\n" + name;', ["Bring a coat."]),
        ("c", 'printf("Bring a coat. It is %d degrees.\\n", t);', ["Bring a coat."]),
        ("bash", "cat <<EOF\nBring a coat.\nEOF", ["Bring a coat."]),
        ("bash", 'echo "It is $weather today. Bring a coat."', ["Bring a coat."]),
        ("sql", "INSERT INTO notes VALUES ('Bring a coat.');", ["Bring a coat."]),
        ("yaml", "a: \"Bring a coat.\"\nb: 'It is so cold.'", ["Bring a coat.", "It is so cold."]),
        ("toml", 'a = "Bring a coat."', ["Bring a coat."]),
        ("json", '{"Bring a coat.": "It is so cold."}', ["It is so cold."]),
        ("html", '<p class="a b c d e">Bring a coat.</p>', ["Bring a coat."]),
        ("html", "<p>It is <b>very cold today.</b> Bring a coat.</p>", ["Bring a coat."]),
        ("html", "<p>It is <b>very cold today</b>, so bring a coat.</p>", []),
        ("html", "<p>It is so cold. <b>Bring a coat.</b></p>", ["It is so cold.", "Bring a coat."]),
        ("html", '<img alt="Anna brings a coat." src="a coat.png">', ["Anna brings a coat."]),
        ("html", "<li>Bring a coat</li><li>leave it at the door here</li>", ["leave it at the door here"]),
        ("xml", '<string name="note">Bring a coat.</string>', ["Bring a coat."]),
        ("", "Dear all,\n\nit is cold. Bring a coat.", ["it is cold.", "Bring a coat."]),
        ("text", "We meet at nine in front of the\nhall of the old school. Bring a coat.", ["Bring a coat."]),
        ("python", f"x = '{CHINESE}'", [CHINESE]),
        # no prose
        ("python", 'x = "coat"; y = "a b"; z = re.compile(r"^a coat|b \\w+ c d e")', []),
        ("python", 'run("DROP TABLE coats")', []),
        ("python", 'run("SELECT * FROM coats WHERE name = 1")', []),
        ("python", 'x = "Bring {} and a coat." % y', []),
        ("text", "a    3600  IN  A     192.0.2.44", []),
        ("text", "02:11:04 the line is down and up again", []),
        ("text", "# a note of a file that nobody reads", []),
        ("diff", '+x = "Bring a coat."', []),
        ("nolanguage", 'x = "Bring a coat."', []),
        ("python", 'x = "bring a coat for the cold day"', []),
        ("python", 'x = {"Bring a coat.": 1}; y = x["Bring a coat."]', []),
        ("python", 'if x == "Bring a coat.":\n    run()', []),
        ("python", 'run(re.compile(r"Bring a coat."))', []),
        ("sql", "SELECT a FROM b WHERE c LIKE '%the coat is cold%'", []),
        ("jsx", '<p className="a b c d e." title="Bring a coat.">x</p>', ["Bring a coat."]),
        ("java", 'String x = late ? "Bring a coat." : "It is so cold.";', ["Bring a coat.", "It is so cold."]),
        ("text", "1. Bring a coat.\n2. It is so cold.", []),
        # parts of a sentence, beside what a program adds
        ("python", 'x = ("Anna who lives in the old house " "brings a coat. " "It is so cold.")', ["It is so cold."]),
        ("js", 'x = "Bring a coat to the house of " + name + " in the old town.";', []),
        ("python", 'x = f"{name}\'s coat is so red. Bring it now."', ["Bring it now."]),
        ("python", "x = f'Bring us all the coat \"{name}\" now. It is cold.'", ["It is cold."]),
        # signs that end a string
        ("ruby", "x = %q(It is cold. Bring a coat.)", []),
        ("cpp", 'x = R"(Bring a coat.)";', ["Bring a coat."]),
        ("rust", 'let x = r#"It is cold. Bring a coat for the day."#;', []),
    ],
)
def test_sentences_are_found(language: str, code: str, sentences: list[str]) -> None:
    block = f"```{language}\n{code}\n```"
    assert [block[slice(*place)] for place in find_code_sentences(block)] == sentences


def test_text_that_is_no_block_of_code_has_none() -> None:
    assert find_code_sentences("Bring a coat. It is cold.") == []


@pytest.mark.parametrize(
    ("language", "code", "rest"),
    [
        # a string keeps its quotation marks and its other sentences
        ("python", 'x = "You are a fool. Bring a coat."', 'x = "Bring a coat."'),
        ("python", 'x = "Bring a coat. You are a fool."', 'x = "Bring a coat."'),
        ("python", 'x = "Go on. You are a fool. What a fool. Bring it."', 'x = "Go on. Bring it."'),
        ("python", 'x = "You are a fool."\nrun(x)', 'x = ""\nrun(x)'),
        ("python", 'x = """Dear all,\n\nYou are a fool.\nBring it.\n"""', 'x = """Dear all,\n\nBring it.\n"""'),
        ("js", "x = 'Bring it.\\nYou are a fool.\\nGo.';", "x = 'Bring it.\\nGo.';"),
        ("bash", "cat <<EOF\nBring a coat.\nYou are a fool.\nEOF", "cat <<EOF\nBring a coat.\nEOF"),
        ("yaml", "a: 'You are a fool.'\nb: 1", "a: ''\nb: 1"),
        ("json", '{"a": "You are a fool. Bring it."}', '{"a": "Bring it."}'),
        # signs of the string stay valid, and spaces at its edges go
        ("python", 'x = "Bring it.\\\\n You are a fool."', 'x = "Bring it.\\\\n You are a fool."'),
        ("python", 'x = "Bring it on. \\\nYou are a fool."', 'x = "Bring it on."'),
        ("python", 'x = ("You are a fool. " "Bring it.")', 'x = ("" "Bring it.")'),
        ("cpp", 'x = R"(You are a fool.)";', 'x = R"()";'),
        ("python", 'x = "You are a fool. \U0001f600 Go on."', 'x = "Go on."'),
        # a line that only prints goes, if the block can lose it
        ("python", 'run()\nprint("You are a fool.")\nend()', "run()\nend()"),
        ("python", 'run()\nprint("You are a fool.", x)', 'run()\nprint("", x)'),
        ("python", 'if x:\n    print("You are a fool.")\nrun()', 'if x:\n    print("")\nrun()'),
        (
            "python",
            'if x:\n    print("You are a fool.")\n    print("What a fool.")\nrun()',
            'if x:\n    print("")\n    print("")\nrun()',
        ),
        ("js", 'run();\nconsole.log("You are a fool.");\nend();', "run();\nend();"),
        ("bash", 'make\necho "You are a fool."\nmake run', "make\nmake run"),
        # an element goes with its last sentence, a cell stays
        ("html", "<div>\n<p>You are a fool.</p>\n<p>It rains.</p>\n</div>", "<div>\n<p>It rains.</p>\n</div>"),
        ("html", "<ul><li><b>You are a fool.</b></li><li>It rains.</li></ul>", "<ul><li>It rains.</li></ul>"),
        ("html", "<tr><td>You are a fool.</td><td>It rains.</td></tr>", "<tr><td></td><td>It rains.</td></tr>"),
        ("html", "<p>a</p><ul>\n<li>You are a fool.</li>\n<li>What a fool.</li>\n</ul>", "<p>a</p>"),
        ("html", "<P>You are a fool.</p><a:b>You are a fool.</a:b><p>Go.</p>", "<p>Go.</p>"),
        ("html", "<tr><TD>You are a fool.</TD><td>Go.</td></tr>", "<tr><TD></TD><td>Go.</td></tr>"),
        ("html", "<textarea>You are a fool.</textarea><p>Go.</p>", "<textarea></textarea><p>Go.</p>"),
        ("html", "<p>Go. <b>You are a fool.</b></p>", "<p>Go.</p>"),
        ("html", "<p>You are a fool.<br>Go.</p>", "<p>Go.</p>"),
        # of a letter, paragraphs stay apart
        ("", "Dear Tom,\n\nYou are a fool.\n\nIt is late.\n\nAnna", "Dear Tom,\n\nIt is late.\n\nAnna"),
        ("", "Dear Tom,\n\nyou are a fool. It is late.\n\nAnna", "Dear Tom,\n\nIt is late.\n\nAnna"),
        ("", "    You are a fool.\n  It is late.", "  It is late."),
        # beside a comment
        ("python", 'x = "Go. You are a fool."  # What a fool.', 'x = "Go."'),
        ("python", '# What a fool.\nx = "Go. You are a fool."', 'x = "Go."'),
    ],
)
def test_sentences_go_from_what_holds_them(language: str, code: str, rest: str) -> None:
    block = f"```{language}\n{code}\n```"
    assert remove_fool(block) == f"```{language}\n{rest}\n```"
    assert rest == code or is_pruned(block, f"```{language}\n{rest}\n```")


def test_one_of_two_equal_sentences_goes() -> None:
    for code in ('x = ["You are a fool.", "Go on.", "You are a fool."]', 'x = "You are a fool."  # You are a fool.'):
        block = f"```python\n{code}\n```"
        for place in judged_words(block):
            assert is_pruned(block, without_words(block, [place]))


def test_a_sentence_of_a_comment_is_judged_once() -> None:
    block = "```\n// It is cold. Bring a coat.\n```"
    assert [block[slice(*place)] for place in judged_words(block)] == ["It is cold.", "Bring a coat."]


def test_a_short_page_is_read_although_its_lexer_is_slow_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 10.0])
    monkeypatch.setattr("aligner_proxy.text.code_lexing.time.thread_time", lambda: next(seconds, 10.0))
    assert find_code_sentences("```html\n<p>Bring a coat for a slow day.</p>\n```")


def test_a_long_string_of_spaces_is_read_in_linear_time() -> None:
    begin = time.thread_time()
    assert find_code_sentences(f'```python\nx = "{" " * 30_000}"\n```') == []
    assert time.thread_time() - begin < 2


def test_a_file_of_xml_without_its_root_goes() -> None:
    assert remove_fool('```xml\n<?xml version="1.0"?>\n<a><b>You are a fool.</b></a>\n```') == ""


def test_a_block_that_loses_all_its_words_goes() -> None:
    assert remove_fool("```\nYou are a fool.\n```") == ""


SENTENCES = ("You are a fool.", "Bring a coat.", "It's cold.", "What a fool!", "We meet at nine.", "Go on.")
FORMS = (
    'x{n} = "{t}"',
    'print("{t}")',
    'if x:\n    print("{t}")',
    'x{n} = """{l}"""',
    'run({n}, "{t}", f"{{x}} is here.")',
    'd = {{"{t}": "{t}"}}',
    "# {t}",
    'def f{n}() -> str:\n    """{t}"""\n    return "{t}"',
)


def make_text(rng: Random, gap: str) -> str:
    return gap.join(rng.choice(SENTENCES) for _ in range(rng.randint(1, 4)))


def test_what_is_left_can_still_be_parsed() -> None:
    rng = Random(1)
    for _ in range(examples(400)):
        lines = []
        for number in range(rng.randint(1, 5)):
            text = make_text(rng, rng.choice((" ", "\\n")))
            long_text = make_text(rng, rng.choice((" ", "\n", "\n\n")))
            form = rng.choice(FORMS)
            lines.append(form.format(n=number, t=text, l=long_text))
        block = "```python\n" + "\n".join(lines) + "\n```"
        rest = remove_fool(block)
        ast.parse(rest.removeprefix("```python\n").removesuffix("```"))
        assert not rest or rest == block or is_pruned(block, rest)


def test_data_can_still_be_parsed() -> None:
    rng = Random(2)
    for _ in range(examples(200)):
        data = {f"key {number}": make_text(rng, " ") for number in range(rng.randint(1, 5))}
        rest = remove_fool(f"```json\n{json.dumps(data)}\n```")
        assert json.loads(rest[7:-3]).keys() == data.keys() if rest else True
        rest = remove_fool("```yaml\n" + "\n".join(f'{key}: "{text}"' for key, text in data.items()) + "\n```")
        kept = {key: " ".join(s for s in SENTENCES if s in text and "fool" not in s) for key, text in data.items()}
        assert {key: bool(text) for key, text in yaml.safe_load(rest[7:-3] or "{}").items()} == (
            {key: bool(text) for key, text in kept.items()} if rest else {}
        )
