"""Commands that pages show can be typed: the command, its options, the verb of make or the module is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aligner_proxy.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*/*.md"), *ROOT.glob("plugins/**/README.md")]
SHELL = re.compile(r"^```(?:sh|bash)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
FOLDERS = ("aligner_proxy", "bench", "demo", "models", "scripts", "tests")
VERBS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
# The lab book says what was typed then; docs/lab/command_names.md has the names of now.
CURRENT = [page for page in PAGES if page.parent.name != "lab"]


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of every command in the page's shell blocks, without comments, pipes and variables in front."""
    for block in SHELL.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            try:
                words = shlex.split(line, comments=True)
            except ValueError:
                continue  # a quotation that goes on in the next line
            while words and re.fullmatch(r"[A-Z_]+=.*|\$|sudo", words[0]):
                words.pop(0)
            if words:
                yield words


def find_fault(words: list[str]) -> str:
    """What is wrong with the words of an `aligner-proxy` command: unknown, missing or superfluous ones; "" if none."""
    command: click.Command = main
    context = click.Context(main, info_name="aligner-proxy")
    end = next((place for place, word in enumerate(words) if word in ("|", ">", "2>&1", "&&", ";", "&")), len(words))
    arguments = words[1:end]
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
        found = command.get_command(context, name)
        if found is None:
            return f"no command {name}"
        command = found
        context = click.Context(command, parent=context, info_name=name)
    try:
        values, superfluous, _ = command.make_parser(context).parse_args(arguments)
    except click.UsageError as error:
        return error.format_message()
    is_given = {name for name, value in values.items() if isinstance(value, str | list | tuple) and value}
    missing = [param.name for param in command.params if param.required and param.name not in is_given]
    return ", ".join([*(f"superfluous: {word}" for word in superfluous), *(f"missing: {name}" for name in missing)])


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, list[str]]]:
    return [(page.name, words) for page in CURRENT for words in command_lines(page)]


def test_every_aligner_proxy_command_takes_its_words(lines: list[tuple[str, list[str]]]) -> None:
    ours = [(page, words) for page, words in lines if words[0].endswith("aligner-proxy")]
    assert len(ours) > 30
    assert [(page, words, find_fault(words)) for page, words in ours if find_fault(words)] == []


def test_a_file_without_its_option_is_a_fault() -> None:
    assert "litellm.yaml" in find_fault(["aligner-proxy", "serve", "litellm.yaml"])
    assert "missing: file" in find_fault(["aligner-proxy", "serve", "--port", "4000"])
    assert "--porte" in find_fault(["aligner-proxy", "serve", "--config", "litellm.yaml", "--porte", "4000"])
    assert find_fault(["aligner-proxy", "serve", "--config", "litellm.yaml", "--port", "4000", "&"]) == ""


def test_every_verb_of_make_exists(lines: list[tuple[str, list[str]]]) -> None:
    verbs = [(page, word) for page, words in lines if words[0] == "make" for word in words[1:2] if word[:1] != "-"]
    assert len(verbs) > 5
    assert [(page, verb) for page, verb in verbs if verb not in VERBS and "=" not in verb] == []


def test_every_module_that_is_run_exists(lines: list[tuple[str, list[str]]]) -> None:
    modules = [
        (page, words[words.index("-m") + 1]) for page, words in lines if "python" in words[0] and "-m" in words[:3]
    ]
    ours = [
        (page, name) for page, name in modules if re.match(r"(models|bench|demo|tests|scripts|aligner_proxy)\b", name)
    ]
    assert len(ours) > 10
    missing = []
    for page, name in ours:
        found = (ROOT / f"{name.replace('.', '/')}.py", ROOT / name.replace(".", "/") / "__main__.py")
        if not any(path.exists() for path in found):
            missing.append((page, name))
    assert missing == []
