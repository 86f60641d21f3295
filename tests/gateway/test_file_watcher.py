"""A value read from files: when a change counts, what a bad one does, and that nobody ever sees a part of one."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway.reload import WatchedFiles, keep_checking


class Numbers:
    """A file of numbers, perhaps with the name of a second one on its first line."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "numbers"
        self.path.write_text("1 1")
        self.told: list[str | None] = []
        self.watched = WatchedFiles(self.read, self.told.append)

    def read(self) -> tuple[list[int], tuple[Path, ...]]:
        first, _, rest = self.path.read_text().partition("\n")
        other = self.path.with_name(first) if first.isalpha() else None
        text = f"{rest} {other.read_text()}" if other else first
        if "deep" in text:
            raise RecursionError
        if "bad" in text:
            raise ConfigError("numbers:1: not a number")
        return [int(word) for word in text.split()], (self.path, *((other,) if other else ()))

    def look(self, times: int = 2) -> list[int]:
        for _ in range(times):
            self.watched.check_files()
        return self.watched.current


@pytest.fixture
def numbers(tmp_path: Path) -> Numbers:
    return Numbers(tmp_path)


def test_a_change_counts_when_the_file_has_been_still_for_a_look(numbers: Numbers) -> None:
    assert numbers.look() == [1, 1]
    numbers.path.write_text("2 2 2")
    assert numbers.look(1) == [1, 1]
    assert numbers.look(1) == [2, 2, 2]
    assert numbers.look(5) == [2, 2, 2]
    assert numbers.told == [None]


def test_a_file_that_is_still_written_is_left_alone_however_good_it_looks(numbers: Numbers) -> None:
    for text in ("2", "2 2", "2 2 2"):
        numbers.path.write_text(text)
        assert numbers.look(1) == [1, 1]
    assert numbers.look(1) == [2, 2, 2]


def test_a_change_between_reading_and_the_first_look_is_seen(numbers: Numbers) -> None:
    numbers.path.write_text("3 3 3")
    assert numbers.look() == [3, 3, 3]


@pytest.mark.parametrize(("text", "why"), [("bad!", "numbers:1: not a number"), ("deep!", "cannot be read: Recursion")])
def test_a_bad_file_changes_nothing_and_is_told_once(numbers: Numbers, text: str, why: str) -> None:
    numbers.path.write_text(text)
    assert numbers.look(6) == [1, 1]
    assert len(numbers.told) == 1
    assert str(numbers.told[0]).startswith(why)
    assert numbers.watched.refusal == numbers.told[0]
    numbers.path.write_text("4")
    assert numbers.look() == [4]
    assert (numbers.told[1:], numbers.watched.refusal) == ([None], None)


def test_what_was_refused_and_then_put_back_is_taken_again(numbers: Numbers) -> None:
    numbers.path.write_text("bad!")
    numbers.look()
    numbers.path.write_text("1 1")
    assert numbers.look() == [1, 1]
    assert numbers.told[-1] is None


def test_a_file_that_is_gone_is_refused_until_it_is_back(numbers: Numbers) -> None:
    numbers.path.unlink()
    assert numbers.look(4) == [1, 1]
    assert numbers.told == ["cannot be read: FileNotFoundError"]
    numbers.path.write_text("5")
    assert numbers.look() == [5]


def test_touching_a_file_is_no_change(numbers: Numbers) -> None:
    numbers.look()
    os.utime(numbers.path, ns=(1, 1))
    assert numbers.look(4) == [1, 1]
    assert numbers.told == []


def test_another_file_of_the_same_size_and_time_is_another_file(numbers: Numbers) -> None:
    numbers.look()
    before = numbers.path.stat()
    other = numbers.path.with_name("other")
    other.write_text("7 7")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(numbers.path)
    assert numbers.look() == [7, 7]


def test_a_turned_link_is_a_change(tmp_path: Path) -> None:
    """How a mounted configuration changes: nothing is written, a link is turned."""
    for name, text in (("one", "1 1"), ("two", "2 2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "numbers").write_text(text)
    (tmp_path / "data").symlink_to("one")
    path = tmp_path / "data" / "numbers"
    watched = WatchedFiles(lambda: (path.read_text(), (path,)))
    (tmp_path / "turned").symlink_to("two")
    (tmp_path / "turned").replace(tmp_path / "data")
    for _ in range(2):
        watched.check_files()
    assert watched.current == "2 2"


def test_a_second_file_counts_as_soon_as_it_is_named_even_if_it_comes_later(numbers: Numbers) -> None:
    numbers.path.write_text("more\n6")
    assert numbers.look(3) == [1, 1]
    more = numbers.path.with_name("more")
    more.write_text("7")
    assert numbers.look() == [6, 7]
    more.write_text("8")
    assert numbers.look() == [6, 8]


def test_a_bad_value_at_the_start_is_nobodys_to_refuse_quietly(tmp_path: Path) -> None:
    def read() -> tuple[str, tuple[Path, ...]]:
        raise ConfigError("bad")

    with pytest.raises(ConfigError):
        WatchedFiles(read)


def test_it_looks_by_itself_for_as_long_as_it_is_held(numbers: Numbers) -> None:
    taken = threading.Event()
    watched = WatchedFiles(numbers.read, lambda _: taken.set())
    before = set(threading.enumerate())
    keep_checking(watched, 0.01)
    (thread,) = set(threading.enumerate()) - before
    numbers.path.write_text("9")
    assert taken.wait(60)
    assert watched.current == [9]
    del watched
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
