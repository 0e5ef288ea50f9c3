import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from serve.errors import CallerLeft, Forbidden, OtherSite, RateLimited, TooLarge, Unauthenticated
from serve.security import KeysFileError, Protection, TokenBucket, parse_keys


def entry(name: str, role: str = "predict", **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "role": role, **more}


def key(name: str) -> dict[bytes, bytes]:
    return {b"x-api-key": name.encode()}


class Door:
    """A protection over a keys file and a clock that the test moves."""

    def __init__(self, folder: Path, *entries: dict[str, Any], replicas: int = 1) -> None:
        self.file = folder / "keys.json"
        self.now, self.saves = 50.0, 0
        self.save(json.dumps(entries))
        self.protection = Protection(
            str(self.file), max_body_bytes=100, replicas=replicas, clock=lambda: self.now
        )

    def save(self, text: str) -> None:
        self.file.write_text(text)
        self.saves += 1
        os.utime(self.file, ns=(self.saves, self.saves))

    def admits(self, name: str, role: Any = "predict") -> bool:
        try:
            self.protection.admit(key(name), role=role)
        except Unauthenticated:
            return False
        return True


def test_a_list_and_lines_are_the_same_keys() -> None:
    entries = [entry("a"), entry("b", "observe", requests_per_minute=5)]
    lines = "\n".join(json.dumps(each) for each in entries) + "\n\n"
    assert parse_keys(json.dumps(entries), source="k") == parse_keys(lines, source="k")
    assert parse_keys("", source="k") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ('["a"]', "entry 1: must be an object"),
        (json.dumps([entry("a"), entry("b", "root")]), "entry 2 (b): role 'root' is not one of observe,"),
        (json.dumps([{**entry("a"), "sha256": "A" * 64}]), "64 lower-case hex"),
        (json.dumps([{**entry("a"), "key": "secret"}]), "unknown key"),
        (json.dumps([entry("a"), {**entry("b"), "name": "a"}]), "name given twice: a"),
        (json.dumps([entry("a"), {**entry("a"), "name": "b"}]), "sha256 given twice"),
        (json.dumps([entry("a", requests_per_minute=0)]), "above 0"),
        (json.dumps([entry("a", requests_per_minute=True)]), "above 0"),
        (json.dumps([{**entry("a"), "name": ""}]), "name must be"),
    ],
)  # fmt: skip
def test_a_wrong_keys_file_says_which_entry_and_why(text: str, said: str) -> None:
    with pytest.raises(KeysFileError) as raised:
        parse_keys(text, source="keys.json")
    assert said in str(raised.value)
    assert str(raised.value).startswith("keys.json")


def test_a_gateway_does_not_start_without_its_keys_file(tmp_path: Path) -> None:
    with pytest.raises(KeysFileError, match="no such file"):
        Protection(str(tmp_path / "none"), max_body_bytes=1)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("observe", ["observe"]),
        ("predict", ["observe", "predict"]),
        ("operate", ["observe", "predict", "operate"]),
    ],
)
def test_a_role_may_what_lower_roles_may(tmp_path: Path, role: str, may: list[str]) -> None:
    door = Door(tmp_path, entry("a", role))
    allowed = []
    for needed in ("observe", "predict", "operate"):
        try:
            door.protection.admit(key("a"), role=needed)  # type: ignore[arg-type]
            allowed.append(needed)
        except Forbidden:
            pass
    assert allowed == may


def test_a_removed_key_is_refused_without_a_restart(tmp_path: Path) -> None:
    door = Door(tmp_path, entry("a"), entry("b"))
    assert door.admits("a")
    door.save(json.dumps([entry("b"), entry("c")]))
    door.now += 1
    assert [door.admits(name) for name in ("a", "b", "c")] == [False, True, True]


def test_a_file_that_cannot_be_read_keeps_the_last_keys_and_is_reported(tmp_path: Path) -> None:
    door = Door(tmp_path, entry("a"))
    door.save("{half")
    door.now += 1
    assert door.admits("a")
    assert door.protection.problem is not None and str(tmp_path) not in door.protection.problem
    door.save(json.dumps([entry("a")]))
    door.now += 1
    assert door.admits("a")
    assert door.protection.problem is None


def test_a_file_that_vanished_lets_nobody_in(tmp_path: Path) -> None:
    door = Door(tmp_path, entry("a"))
    door.file.unlink()
    door.now += 1
    assert not door.admits("a")
    assert door.protection.problem == "the keys file is gone; no key is valid"


def test_the_digest_in_the_file_is_not_a_key(tmp_path: Path) -> None:
    door = Door(tmp_path, entry("a"))
    assert not door.admits(entry("a")["sha256"])
    assert not door.admits("")


def test_the_declared_length_is_refused_before_the_key(tmp_path: Path) -> None:
    door = Door(tmp_path, entry("a"))
    for length in (b"101", b"9" * 500):
        with pytest.raises(TooLarge):
            door.protection.admit({b"content-length": length}, role="predict")
    with pytest.raises(Unauthenticated):
        door.protection.admit({b"content-length": b"100"}, role="predict")


def test_a_rate_is_used_up_and_comes_back_with_time(tmp_path: Path) -> None:
    door = Door(tmp_path, entry("a", requests_per_minute=3), entry("b"))
    assert [door.admits("a") for _ in range(3)] == [True] * 3
    with pytest.raises(RateLimited) as raised:
        door.admits("a")
    assert raised.value.headers["retry-after"] == "20"
    assert all(door.admits("b") for _ in range(100))
    door.now += 20
    assert door.admits("a")
    with pytest.raises(RateLimited):
        door.admits("a")


def test_a_rate_is_shared_by_the_replicas(tmp_path: Path) -> None:
    door = Door(tmp_path, entry("a", requests_per_minute=6), replicas=3)
    assert [door.admits("a") for _ in range(2)] == [True] * 2
    with pytest.raises(RateLimited):
        door.admits("a")


def test_an_edit_of_the_file_does_not_refill_a_used_up_rate(tmp_path: Path) -> None:
    limited = entry("a", requests_per_minute=1)
    door = Door(tmp_path, limited)
    assert door.admits("a")
    door.save(json.dumps([limited, entry("b")]))
    door.now += 1
    with pytest.raises(RateLimited):
        door.admits("a")


def test_a_bucket_never_holds_more_than_a_minute() -> None:
    bucket = TokenBucket(2, now=0.0)
    assert [bucket.wait_s(1e6) for _ in range(2)] == [0.0, 0.0]
    assert bucket.wait_s(1e6) == 30.0


def test_a_caller_who_leaves_is_not_an_empty_body() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(CallerLeft):
        asyncio.run(Protection(None, max_body_bytes=1).read_body(receive))


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("role", ["predict", "operate"])
def test_without_keys_a_page_of_another_site_changes_nothing(site: str, role: Any) -> None:
    # Another port of this machine is same-site to a browser, and somebody else's page all the same.
    open_door = Protection(None, max_body_bytes=100)
    with pytest.raises(OtherSite, match=site) as refused:
        open_door.admit({b"sec-fetch-site": site.encode()}, role=role)
    assert refused.value.status == 403
    open_door.admit({b"sec-fetch-site": site.encode()}, role="observe")


@pytest.mark.parametrize("headers", [{}, {b"sec-fetch-site": b"same-origin"}, {b"sec-fetch-site": b"none"}])
def test_without_keys_programs_and_own_pages_go_on(headers: dict[bytes, bytes]) -> None:
    for role in ("observe", "predict", "operate"):
        Protection(None, max_body_bytes=100).admit(headers, role=role)  # type: ignore[arg-type]


def test_with_keys_the_key_decides_whoevers_page_it_is(tmp_path: Path) -> None:
    door = Door(tmp_path, entry("a"))
    door.protection.admit({**key("a"), b"sec-fetch-site": b"cross-site"}, role="predict")
