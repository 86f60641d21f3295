"""What `scripts/check_names.py` takes for a bad name, and how it holds rooms to their numbers."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_names", ROOT / "scripts" / "check_names.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_names"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


BAD_FUNCTIONS = ("judged", "_written", "rewritten", "waiting", "beside", "lately", "of", "not_edited", "until_loaded")
GOOD_FUNCTIONS = (
    "feed",
    "seed",
    "embed",
    "_need",
    "read",
    "put",
    "apply",
    "string",
    "apply_fallback",
    "taught_heads",
    "is_listed",
)


def test_is_wordless_tells_participles_from_verbs_and_nouns(script: ModuleType) -> None:
    bad = [name for name in BAD_FUNCTIONS if not script.is_wordless(name)]
    good = [name for name in GOOD_FUNCTIONS if script.is_wordless(name)]
    assert bad == []
    assert good == []


def test_survey_reports_each_kind_with_its_place(script: ModuleType) -> None:
    survey = script.Survey()
    survey.read_file(Path("pack/gate/rules.py"), "class Part: pass\n\ndef judged(told):\n    self.kept = found = 1\n")
    parts = "class _Part:\n    @property\n    def chosen(self): ...\n    def __call__(self): ...\n"
    survey.read_file(Path("pack/text/parts.py"), parts)
    survey.compare_classes()
    assert sorted((offence.place, offence.text.split(":")[0]) for offence in survey.offences) == [
        ("pack/gate/rules.py:1", "class Part"),
        ("pack/gate/rules.py:3", "function judged"),
        ("pack/gate/rules.py:3", "variable told"),
        ("pack/gate/rules.py:4", "variable found"),
        ("pack/gate/rules.py:4", "variable kept"),
        ("pack/text/parts.py:1", "class Part"),
        ("pack/text/parts.py:3", "variable chosen"),
    ]
    assert survey.rooms["text"].functions == 0  # a property is a value, and `__call__` is the language's own


def test_a_plugin_is_one_room_and_every_folder_of_the_gateway_another(script: ModuleType) -> None:
    rooms = {
        "aligner_proxy/gate/judge.py": "gate",
        "aligner_proxy/prompts.py": "aligner_proxy",
        "plugins/review/aligner_proxy_review/console/pages.py": "aligner_proxy_review",
        "plugins/aligner_proxy_systems/meal/net.py": "aligner_proxy_systems",
        "models/systems/meal/net.py": "models/systems",
        "bench/capacity/measure.py": "bench",
        "scripts/check_names.py": "scripts",
    }
    assert {path: script.room_of(Path(path)) for path in rooms} == rooms
    assert all((ROOT / package).is_dir() for package in script.PACKAGES)


def test_public_names_are_names_in_files_that_are_there(script: ModuleType) -> None:
    for path, names in script.PUBLIC.items():
        source = (ROOT / path).read_text(encoding="utf-8")
        assert all(name in source for name in names), path


def test_a_public_class_may_have_the_name_of_another(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "PUBLIC", {"pack/plugin/parts.py": frozenset({"Part"})})
    survey = script.Survey()
    survey.read_file(Path("pack/text/parts.py"), "class Part: pass\n")
    survey.read_file(Path("pack/plugin/parts.py"), "class Part: pass\n")
    survey.compare_classes()
    assert survey.offences == []


def test_excesses_names_what_is_over_and_lowered_follows_what_improves(script: ModuleType) -> None:
    survey = script.Survey()
    survey.read_file(Path("pack/gate/rules.py"), "def judged(): ...\ndef shown(): ...\n")
    assert list(script.excesses(survey, {"gate": {"functions": 2}})) == []
    assert list(script.excesses(survey, {"gate": {"functions": 1}})) == [
        "pack/gate/rules.py:1: function judged: name it by a verb and its object",
        "pack/gate/rules.py:2: function shown: name it by a verb and its object",
        "gate: 2 functions offend, 1 are allowed",
    ]
    assert list(script.excesses(survey, {})) != []  # a new room has no allowance
    allowed = {"gate": {"functions": 5, "classes": 1}, "text": {"variables": 3}}
    assert script.lowest_allowances(survey, allowed) == {"gate": {"functions": 2}}


def test_main_fails_beyond_the_allowances_and_lowers_them(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "pack"
    (package / "gate").mkdir(parents=True)
    (package / "gate" / "rules.py").write_text("def judged(): ...\n", encoding="utf-8")
    allowances = tmp_path / "allowed.json"
    monkeypatch.setattr(script, "PACKAGES", (str(package),))
    monkeypatch.setattr(script, "ALLOWANCES", allowances)
    allowances.write_text("{}", encoding="utf-8")
    assert script.main([]) == 1
    assert "pack/gate/rules.py:1: function judged" in capsys.readouterr().out
    allowances.write_text('{"gate": {"functions": 3}}', encoding="utf-8")
    assert script.main([]) == 0
    assert "can be lowered" in capsys.readouterr().out
    assert script.main(["--lower"]) == 0
    assert json.loads(allowances.read_text(encoding="utf-8")) == {"gate": {"functions": 1}}
    assert script.main([str(package)]) == 0  # other folders are reported, not held
    assert "participle functions 100.0 % (1 of 1)" in capsys.readouterr().out
