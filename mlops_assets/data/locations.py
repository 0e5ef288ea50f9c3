"""What the ``path`` of a declaration means: one file, or all that fit a pattern.

Belongs here: locations, patterns, the bytes of one local file. Does not belong here: listing and reading what
a pattern names (``file_stores.py``), what the bytes mean (``sources/``), the lake's tables
(``resources/lake.py``).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlops_assets.errors import DataError

PACKAGE = "package://"
S3 = "s3://"
PARTITION = "{partition}"


def locate(path: str, *, folder: Path, partition: str | None = None) -> str:
    """Absolute location of a declared path: a local path, or an ``s3://`` address as it is.

    ``package://DISTRIBUTION/relative/path`` is a file of an installed distribution, found by its
    metadata without importing it; the path may leave out leading folders as long as one file fits.
    Other relative paths start at ``folder``. ``{partition}`` becomes the partition key.
    """
    if PARTITION in path:
        if partition is None:
            raise ValueError(f"{path} names one file per partition, and no partition was given")
        path = path.replace(PARTITION, partition)
    if path.startswith(S3):
        return path
    if path.startswith(PACKAGE):
        return str(_package_file(path))
    return str((folder / path).absolute())


def read_bytes(location: str) -> bytes:
    """All bytes of a local file; DataError names the file and the reason it cannot be read.

    A file that is written to meanwhile is an error too: its first rows would be taken for all of them.
    """
    try:
        with Path(location).open("rb") as stream:
            before = os.fstat(stream.fileno())
            content = stream.read()
            after = os.fstat(stream.fileno())
    except FileNotFoundError as error:
        raise DataError(f"Source file {location} does not exist.") from error
    except OSError as error:
        raise DataError(f"Cannot read source file {location}: {error}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(
            f"Source file {location} was written to while it was read. Try again when it is complete; a "
            "writer that makes it under another name and renames it is never seen half-way."
        )
    return content


def s3_filesystem(options: Mapping[str, str]) -> Any:
    """The pyarrow file system for the store that deltalake's ``options`` describe."""
    from pyarrow import fs

    return fs.S3FileSystem(
        access_key=options.get("AWS_ACCESS_KEY_ID"),
        secret_key=options.get("AWS_SECRET_ACCESS_KEY"),
        session_token=options.get("AWS_SESSION_TOKEN"),
        region=options.get("AWS_REGION"),
        endpoint_override=options.get("AWS_ENDPOINT_URL"),
        anonymous=options.get("AWS_SKIP_SIGNATURE") == "true",
    )


@dataclass(frozen=True)
class Pattern:
    """Locations with wildcards: ``*`` and ``?`` stand for what a name holds, ``**/`` for any folders.

    A wildcard at the beginning of a name fits none that begins with a dot or an underscore: so writers mark
    what is no data (``_SUCCESS``, ``_temporary/``, ``.part``). ``{partition}`` stands for a day.
    """

    location: str

    def prefix(self, partition: str | None) -> str:
        """What locations of one partition start with, or of all."""
        return re.split(r"[*?]|\{partition\}", self._of(partition), maxsplit=1)[0]

    def depth(self, partition: str | None) -> int | None:
        """Folders between the one that ``prefix`` ends in and the files; None: any number."""
        rest = self._of(partition).removeprefix(self.prefix(partition))
        return None if "**" in rest else rest.count("/")

    def fits(self, location: str) -> "re.Match[str] | None":
        """The match of a location; its group ``partition`` is the day, where the pattern has one."""
        return self._expression.fullmatch(location)

    def _of(self, partition: str | None) -> str:
        return self.location if partition is None else self.location.replace(PARTITION, partition)

    @cached_property
    def _expression(self) -> "re.Pattern[str]":
        made, day, name_begins = "", "(?P<partition>[0-9]{4}-[0-9]{2}-[0-9]{2})", False
        for part in re.findall(r"\*\*/|\{partition\}|[*?/{]|[^*?/{]+", self.location):
            visible = "(?![._])" if name_begins else ""
            if part == PARTITION:
                made, day = made + day, "(?P=partition)"
            elif part == "**/":
                made += "(?:(?![._])[^/]+/)*"
            elif part in ("*", "?"):
                made += visible + ("[^/]*" if part == "*" else "[^/]")
            else:
                made += re.escape(part)
            name_begins = part in ("/", "**/")
        return re.compile(made)


def is_pattern(path: str) -> bool:
    """Whether a path names files by wildcards, not one by its name."""
    return "*" in path or "?" in path


def _package_file(path: str) -> Path:
    from importlib import metadata

    distribution, _, relative = path.removeprefix(PACKAGE).partition("/")
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError as error:
        raise DataError(
            f"{path}: no distribution {distribution!r} is installed. Add it to the project's dependencies."
        ) from error
    found = [file for file in files if f"/{file}".endswith(f"/{relative}")]
    if len(found) != 1:
        near = [str(file) for file in found or files if Path(str(file)).suffix == Path(relative).suffix]
        raise DataError(
            f"{path}: {len(found)} files of {distribution} end in {relative!r}. "
            f"Candidates: {', '.join(sorted(near)[:10]) or 'none'}."
        )
    return Path(str(found[0].locate()))
