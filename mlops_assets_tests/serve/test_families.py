"""A family is what its folder holds: one member a file, found by name."""

import importlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.families import Family, UnknownMember

Write = Callable[..., Family[object]]
BASE = """
from abc import ABC, abstractmethod
class Animal(ABC):
    @abstractmethod
    def sound(self): ...
"""
DOG = """
from {package}._base import Animal
class Dog(Animal):
    name = "dog"
    def sound(self): return "woof"
"""
CAT = DOG.replace("Dog", "Cat").replace("dog", "cat")
number = itertools.count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a package of these files and gives its family."""
    monkeypatch.syspath_prepend(tmp_path)

    def written(**files: str) -> Family[object]:
        package = f"animals{next(number)}"
        (tmp_path / package).mkdir()
        for name, text in {"__init__": "", "_base": BASE, **files}.items():
            (tmp_path / package / f"{name}.py").write_text(text.format(package=package))
        return Family("animal", package, importlib.import_module(f"{package}._base").Animal)

    return written


def test_a_file_is_all_that_a_member_needs(write: Write) -> None:
    family = write(dog=DOG, cat=CAT)
    assert [*family] == ["cat", "dog"] and len(family) == 2 and "cat" in family and "cow" not in family
    assert family["dog"].__name__ == "Dog" and family.members() == (family["cat"], family["dog"])


def test_an_unknown_name_is_told_with_the_known_ones(write: Write) -> None:
    with pytest.raises(UnknownMember, match=r"Unknown animal 'cow'\. Allowed: dog\."):
        write(dog=DOG)["cow"]


def test_what_members_share_is_no_member(write: Write) -> None:
    family = write(_pets=DOG, dog="from {package}._pets import Dog as Pet\n" + DOG)
    assert [*family] == ["dog"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "must hold one animal .* not none"),
        (DOG + CAT, "must hold one animal .* not Dog, Cat"),
        (DOG.replace('name = "dog"', "pass"), "animal Dog has no name"),
        (DOG.replace("def sound", "def noise"), "must hold one animal .* not none"),
    ],
)
def test_a_file_without_one_whole_member_is_refused(write: Write, text: str, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        len(write(dog=text))


def test_one_name_for_two_members_is_refused(write: Write) -> None:
    with pytest.raises(TypeError, match=r"\.puppy: animal Dog has the name 'dog' of animals\d+\.dog"):
        len(write(dog=DOG, puppy=DOG))


def test_a_folder_that_joins_the_package_brings_its_members(write: Write, tmp_path: Path) -> None:
    family = write(dog=DOG)
    assert [*family] == ["dog"]
    package = family["dog"].__module__.partition(".")[0]
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "cat.py").write_text(CAT.format(package=package))
    sys.modules[package].__path__.append(str(tmp_path / "more"))
    assert [*family] == ["cat", "dog"]
