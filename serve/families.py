"""Families: several members of one kind, one file each, found by name. The folder is the only list of them.

Belongs here: finding the members of a package and telling which names there are. Does not belong here: any
family (a package, whose base says the contract). Standard library only: both sides use it.
"""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Generic, TypeVar, cast

M = TypeVar("M")


class UnknownMember(LookupError):
    """A name that no member of a family has; the message lists the names there are."""

    def __init__(self, what: str, name: str, allowed: Iterable[str]) -> None:
        self.what, self.name, self.allowed = what, name, sorted(allowed)
        super().__init__(f"Unknown {what} {name!r}. Allowed: {', '.join(self.allowed)}.")


class Family(Collection[str], Generic[M]):
    """The members of ``package`` by their ``name``, sorted.

    Each file of the package holds one class that implements ``base`` and has a ``name``; files whose own
    name starts with an underscore hold what members share. A file is all that a new member needs. Files are
    read when somebody first asks, so a member may import what knows the family. A package that is spread
    over several folders (its ``__path__``) has the members of all of them.

    ``family[name]`` of a name that no member has raises ``unknown(what, name, names)``.
    """

    def __init__(
        self,
        what: str,
        package: str,
        base: Callable[..., M],
        *,
        unknown: Callable[[str, str, Iterable[str]], Exception] = UnknownMember,
    ) -> None:
        self._what, self._package, self._unknown = what, package, unknown
        # Not declared as type[M]: type checkers take only concrete classes for one.
        self._base = cast(type[M], base)
        self._found: tuple[tuple[str, ...], dict[str, type[M]]] | None = None

    def __getitem__(self, name: str) -> type[M]:
        members = self._members()
        if name not in members:
            raise self._unknown(self._what, name, members)
        return members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members())

    def __len__(self) -> int:
        return len(self._members())

    def members(self) -> tuple[type[M], ...]:
        """All of them, in the order of their names."""
        return tuple(self._members().values())

    def _members(self) -> dict[str, type[M]]:
        folders = tuple(sys.modules[self._package].__path__)
        if self._found is None or self._found[0] != folders:
            self._found = folders, self._read(folders)
        return self._found[1]

    def _read(self, folders: tuple[str, ...]) -> dict[str, type[M]]:
        members: dict[str, type[M]] = {}
        for file in pkgutil.iter_modules(folders):
            if not file.name.startswith("_"):
                member = self._member(f"{self._package}.{file.name}")
                name = str(vars(member).get("name", ""))
                if not name or name in members:
                    fault = f"the name {name!r} of {members[name].__module__}" if name else "no name"
                    raise TypeError(f"{member.__module__}: {self._what} {member.__name__} has {fault}")
                members[name] = member
        return dict(sorted(members.items()))

    def _member(self, module_name: str) -> type[M]:
        """The one member that a file holds; TypeError for none or several."""
        found = [
            value
            for value in vars(importlib.import_module(module_name)).values()
            if isinstance(value, type)
            and issubclass(value, self._base)
            and value.__module__ == module_name
            and not inspect.isabstract(value)
            and not value.__name__.startswith("_")
        ]
        if len(found) != 1:
            names = ", ".join(each.__name__ for each in found) or "none"
            raise TypeError(
                f"{module_name} must hold one {self._what} (a {self._base.__name__} with a name), not "
                f"{names}. What members share goes into a file whose name starts with an underscore."
            )
        return found[0]
