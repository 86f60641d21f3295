"""Sentences of strings, pages and letters in a block of code are judged by themselves, and go from what holds them."""

from __future__ import annotations

import ast
import json
from random import Random

import pytest
import yaml

from aligner_proxy.text.code_sentences import find_code_sentences
from aligner_proxy.text.judged_words import is_pruned, judged_words, without_words
from tests.support.sampling import examples


def remove_fool(block: str) -> str:
    """The block without its sentences about a fool."""
    return without_words(block, [place for place in judged_words(block) if "fool" in block[slice(*place)]])


CHINESE = "\u8bf7\u5e26\u4e0a\u4e00\u4ef6\u5927\u8863\u3002"


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
        # of a letter, paragraphs stay apart
        ("", "Dear Tom,\n\nYou are a fool.\n\nIt is late.\n\nAnna", "Dear Tom,\n\nIt is late.\n\nAnna"),
        ("", "Dear Tom,\n\nyou are a fool. It is late.\n\nAnna", "Dear Tom,\n\nIt is late.\n\nAnna"),
        # beside a comment
        ("python", 'x = "Go. You are a fool."  # What a fool.', 'x = "Go."'),
        ("python", '# What a fool.\nx = "Go. You are a fool."', 'x = "Go."'),
    ],
)
def test_sentences_go_from_what_holds_them(language: str, code: str, rest: str) -> None:
    block = f"```{language}\n{code}\n```"
    assert remove_fool(block) == f"```{language}\n{rest}\n```"
    assert is_pruned(block, f"```{language}\n{rest}\n```")


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
