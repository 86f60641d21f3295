"""Steps are made once, again when what they are made from changes, and go on where they were interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from models.recipe.steps import RecipeStep, run_steps


class Kitchen:
    """Two steps, the second made from the first; `made` lists which ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[str] = []

    def run(self, dough: int = 1, oven: int = 1, bake: Callable[[], None] | None = None) -> list[str]:
        self.made = []
        steps = [
            RecipeStep("dough", self.folder / "dough", {"flour": dough}, (), lambda: self.write("dough")),
            RecipeStep(
                "bread", self.folder / "bread", {"heat": oven}, ("dough",), bake or (lambda: self.write("bread"))
            ),
        ]
        run_steps(steps, self.folder / "steps", lambda _: None)
        return self.made

    def write(self, name: str) -> None:
        self.made.append(name)
        (self.folder / name).write_text(name)


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


def test_what_is_done_is_not_made_again(kitchen: Kitchen) -> None:
    assert kitchen.run() == ["dough", "bread"]
    assert kitchen.run() == []


def test_changed_settings_make_again_what_depends_on_them(kitchen: Kitchen) -> None:
    kitchen.run()
    assert kitchen.run(oven=2) == ["bread"]
    assert kitchen.run(dough=2, oven=2) == ["dough", "bread"]


def test_a_result_that_is_gone_is_made_again(kitchen: Kitchen) -> None:
    kitchen.run()
    (kitchen.folder / "bread").unlink()
    assert kitchen.run() == ["bread"]


def test_an_interrupted_step_finds_what_it_left_unless_its_settings_change(kitchen: Kitchen) -> None:
    seen: list[bool] = []

    def bake() -> None:
        seen.append((kitchen.folder / "bread").exists())
        (kitchen.folder / "bread").write_text("half")
        raise KeyboardInterrupt

    for oven in (1, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            kitchen.run(oven=oven, bake=bake)
    assert seen == [False, True, False]


def test_a_torn_record_makes_the_step_again(kitchen: Kitchen) -> None:
    kitchen.run()
    (kitchen.folder / "steps" / "dough.json").write_text("{")
    assert kitchen.run() == ["dough"]
