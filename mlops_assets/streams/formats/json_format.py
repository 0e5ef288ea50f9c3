"""JSON records. Belongs here: reading them. Does not belong here: declared types (``data/schema.py``)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from mlops_assets.streams.formats._base import Decode, RecordFormat, Registered, Undecodable


class JsonRecords(RecordFormat):
    """One JSON object per record, in UTF-8. NaN and Infinity are no JSON."""

    name: ClassVar[str] = "json"

    def decoder(self, folder: Path, registered: Registered) -> Decode:
        return _read


def _read(value: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(value.decode("utf-8"), parse_constant=_refused, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise Undecodable(f"it is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise Undecodable("its JSON is nested too deep") from error
    except json.JSONDecodeError as error:
        raise Undecodable(f"it is not JSON: {error.msg} at character {error.pos}") from error
    if not isinstance(document, dict):
        raise Undecodable(f"it is JSON, but a {type(document).__name__} and not an object with fields")
    return document


def _refused(constant: str) -> NoReturn:
    raise Undecodable(f"it is not JSON: {constant} is not a JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Undecodable(f"the field {twice!r} stands in it twice")
    return document
