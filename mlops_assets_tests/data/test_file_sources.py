"""A partition may be many files, in a folder or in an object store: all of them are its rows, or none is."""

import io
import re
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mlops_assets.data.file_stores import S3Files
from mlops_assets.data.loading import Loaded, Source, load
from mlops_assets.data.locations import Pattern
from mlops_assets.data.sources import WHOLE, Asked
from mlops_assets.data.sources.csv_format import CsvSource
from mlops_assets.data.sources.parquet_format import ParquetSource
from mlops_assets.errors import DataError, SourceUnavailable
from mlops_assets.resources.lake import Lake, S3Config

COLUMNS = {"day": "string", "id": "integer"}
DAYS = ["2024-01-01", "2024-01-02"]


def packed(**columns) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


class Place(ABC):
    """Where files lie, and a lake that reaches them."""

    root: str
    lake: Lake

    @abstractmethod
    def put(self, name: str, content: bytes) -> None: ...

    @abstractmethod
    def remove(self, name: str) -> None: ...

    def source(self, path: str, *, csv: bool = False, transform=None, **more) -> Source:
        kind, name = (CsvSource, "csv") if csv else (ParquetSource, "parquet")
        declared = kind(format=name, path=f"{self.root}/{path}", **more)
        return Source(declared.reader(Path("/")), transform, declared.probed)

    def load(self, source: Source, partitions=DAYS, columns=COLUMNS) -> Loaded:
        return load(source, columns, partition_column="day", partitions=partitions, lake=self.lake)

    def states(self, source: Source) -> dict[str, str]:
        return dict(source.reader.states(Asked(COLUMNS, partition_column="day"), self.lake))


class Folder(Place):
    def __init__(self, root: Path) -> None:
        self.root, self.lake = str(root), Lake(uri="unused")

    def put(self, name: str, content: bytes) -> None:
        file = Path(self.root, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def remove(self, name: str) -> None:
        Path(self.root, name).unlink()


class Bucket(Place):
    def __init__(self, root: str, lake: Lake) -> None:
        self.root, self.lake = root, lake
        self._bucket, _, self._prefix = root.removeprefix("s3://").partition("/")

    @cached_property
    def client(self):
        return self.lake.s3_client()

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=content)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path) -> Place:
    if request.param == "local":
        return Folder(tmp_path)
    server = request.getfixturevalue("s3_server")
    lake = Lake(uri="unused", s3=request.getfixturevalue("s3_config"))
    return Bucket(f"s3://{server.bucket}/{tmp_path.name}", lake)


def test_every_file_of_a_day_is_read_and_what_writers_mark_is_not(place):
    for day, ids in (("2024-01-01", [1, 2]), ("2024-01-02", [3])):
        for number in ids:
            place.put(f"{day}/{number}.parquet", packed(id=[number]))
    for name in ("_SUCCESS", ".2.parquet.crc", "_temporary/3.parquet", ".hidden.parquet", "note.txt"):
        place.put(f"2024-01-01/{name}", b"no rows")
    place.put("2024-01-03/4.parquet", packed(id=[4]))
    loaded = place.load(place.source("{partition}/*.parquet"))
    assert loaded.findings == []
    assert loaded.frame.to_dict("list") == {
        "day": ["2024-01-01", "2024-01-01", "2024-01-02"],
        "id": [1, 2, 3],
    }


def test_files_of_all_days_are_read_by_a_pattern_without_a_partition(place):
    place.put("a/1.parquet", packed(day=["2024-01-01", "2024-01-09"], id=[1, 9]))
    place.put("b/c/2.parquet", packed(day=["2024-01-02"], id=[2]))
    loaded = place.load(place.source("**/*.parquet"))
    assert loaded.frame.to_dict("list") == {"day": DAYS, "id": [1, 2]}


def test_days_may_share_a_folder(place):
    for day in DAYS:
        place.put(f"{day}-a.csv", b"id\n1\n")
        place.put(f"{day}-b.csv", b"id\n2\n")
    assert place.load(place.source("{partition}-*.csv", csv=True)).frame["id"].tolist() == [1, 2, 1, 2]


def test_a_day_without_a_file_is_that_days_finding(place):
    place.put("2024-01-01/1.parquet", packed(id=[1]))
    place.put("2024-01-02/_SUCCESS", b"")
    loaded = place.load(place.source("{partition}/*.parquet"), [*DAYS, "2024-01-03"])
    assert loaded.frame["id"].tolist() == [1]
    assert [finding.partition for finding in loaded.findings] == ["2024-01-02", "2024-01-03"]
    for finding in loaded.findings:
        assert f"No file fits {place.root}/{finding.partition}/*.parquet" in finding.observed
    with pytest.raises(DataError, match=r"No file fits .*/none/\*\.parquet"):
        place.load(place.source("none/*.parquet"))


def test_files_that_differ_are_that_days_finding_with_both_names(place):
    place.put("2024-01-01/1.parquet", packed(id=[1]))
    place.put("2024-01-01/2.parquet", packed(id=pa.array([2], pa.int32())))
    place.put("2024-01-02/1.parquet", packed(id=[1]))
    place.put("2024-01-02/2.parquet", packed(id=["2"]))
    loaded = place.load(place.source("{partition}/*.parquet"))
    assert loaded.frame["id"].tolist() == [1, 2]
    (finding,) = loaded.findings
    assert finding.partition == "2024-01-02"
    for named in ("'id'", "int64", "string", "2024-01-02/1.parquet", "2024-01-02/2.parquet"):
        assert named in finding.observed


def test_a_broken_file_is_named(place):
    place.put("2024-01-01/1.parquet", packed(id=[1]))
    place.put("2024-01-01/2.parquet", packed(id=[2])[:-9])
    (finding,) = place.load(place.source("{partition}/*.parquet"), DAYS[:1]).findings
    assert "2024-01-01/2.parquet is not valid Parquet, or is cut off" in finding.observed


def test_what_a_csv_column_reads_as_in_front_of_a_transform_is_told_by_all_files(place):
    rows = [b"1,007,", b"2.5,8,", b",9,x"]
    for number, row in enumerate(rows):
        place.put(f"2024-01-01/{number}.csv", b"amount,code,note\n" + row + b"\n")

    def prepare(raw):
        seen.append(raw)
        return raw.assign(id=range(len(raw)))

    seen: list = []
    assert place.load(place.source("{partition}/*.csv", csv=True, transform=prepare), DAYS[:1]).findings == []
    assert seen[0]["amount"].dtype == float
    assert seen[0]["code"].tolist() == ["007", "8", "9"]
    assert seen[0]["note"].isna().tolist() == [True, True, False]


@pytest.mark.parametrize("act", ["replace", "remove"])
def test_a_file_that_is_no_longer_what_was_listed_is_an_error(place, act):
    name = "2024-01-01/1.parquet"
    place.put(name, packed(id=[1]))
    reader, asked = place.source("{partition}/*.parquet").reader, Asked(COLUMNS, False, "day", DAYS[:1])
    with reader.opened(asked, place.lake) as opened:
        assert list(opened.states(asked, place.lake)) == DAYS[:1]
        if act == "remove":
            place.remove(name)
        else:
            place.put(name, packed(id=[1, 2]))
        with pytest.raises(DataError, match=r"2024-01-01/1\.parquet .*after it was listed|cannot be found"):
            opened.read(asked, place.lake)


@pytest.mark.parametrize("path", ["{partition}/*.parquet", "{partition}.parquet"])
def test_a_state_changes_with_the_files_of_its_day_alone(place, path):
    names = [path.replace("{partition}", day).replace("*", "1") for day in DAYS]
    for name in names:
        place.put(name, packed(id=[1]))
    place.put("not-a-day/1.parquet", packed(id=[1]))
    place.put("not-a-day.parquet", packed(id=[1]))
    source = place.source(path, probe=True)
    before = place.states(source)
    assert list(before) == DAYS and place.states(source) == before
    assert place.load(source, DAYS[:1]).states == {DAYS[0]: before[DAYS[0]]}
    place.put(names[0], packed(id=[2]))
    after = place.states(source)
    assert after[DAYS[0]] != before[DAYS[0]] and after[DAYS[1]] == before[DAYS[1]]
    if "*" in path:
        place.put("2024-01-02/2.parquet", packed(id=[2]))
        more = place.states(source)
        assert more[DAYS[0]] == after[DAYS[0]] and more[DAYS[1]] != after[DAYS[1]]
    place.remove(names[0])
    assert list(place.states(source)) == DAYS[1:]


def test_an_object_is_asked_for_once_and_credentials_once_a_run(s3_server, s3_config, tmp_path, monkeypatch):
    place = Bucket(f"s3://{s3_server.bucket}/{tmp_path.name}", Lake(uri="unused", s3=s3_config))
    for day in DAYS:
        for number in range(5):
            place.put(f"{day}/{number}.parquet", packed(id=[number]))
    clients, calls = [], []

    def counted(lake):
        client = original(lake)
        client.meta.events.register("before-call.s3", lambda model, **_: calls.append(model.name))
        clients.append(client)
        return client

    original = Lake.s3_client
    monkeypatch.setattr(Lake, "s3_client", counted)
    assert len(place.load(place.source("{partition}/*.parquet", probe=True)).frame) == 10
    assert len(clients) == 1
    assert sorted(calls) == ["GetObject"] * 10 + ["ListObjectsV2"] * 2


@pytest.mark.parametrize("path", ["{partition}/*.parquet", "{partition}.parquet"])
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"bucket": "absent"}, r"NoSuchBucket.*Make the bucket"),
        ({"aws_secret_access_key": "wrong-secret"}, r"Signature.* Correct AWS_SECRET_ACCESS_KEY"),
        ({"aws_access_key_id": "wrong-access"}, r"InvalidAccessKeyId.* Correct AWS_ACCESS"),
        ({"endpoint_url": "http://127.0.0.1:9"}, r"Could not connect.* Start the object store, or correct"),
    ],
)
def test_a_store_that_does_not_answer_or_lets_nobody_in_is_unavailable(
    s3_server, s3_config, path, wrong, reason
):
    wrong = dict(wrong)
    bucket = wrong.pop("bucket", s3_server.bucket)
    lake = Lake(uri="unused", s3=S3Config(**{**s3_config.model_dump(), **wrong}))
    place = Bucket(f"s3://{bucket}/x", lake)
    with pytest.raises(
        SourceUnavailable, match=rf"Cannot (list|read) anything .*s3://{bucket}: .*{reason}"
    ) as caught:
        place.load(place.source(path))
    for secret in ("wrong-secret", "test-secret"):
        assert secret not in f"{caught.value} {caught.value.__cause__}"


def test_a_body_that_breaks_off_is_asked_for_again_and_then_given_up():
    from botocore.exceptions import ResponseStreamingError

    class Body:
        def __init__(self, fails):
            self.fails = fails

        def read(self):
            if self.fails:
                raise ResponseStreamingError(error="connection reset")
            return b"all"

    class Client:
        def __init__(self, *fails):
            self.bodies = [Body(one) for one in fails]

        def get_object(self, **_):
            return {"Body": self.bodies.pop(0)}

    assert S3Files(Client(True, True, False)).content("s3://b/k") == b"all"
    with pytest.raises(SourceUnavailable, match=r"Cannot read s3://b/k whole .* 3 times: .*connection reset"):
        S3Files(Client(True, True, True)).content("s3://b/k")


def test_a_link_that_leads_nowhere_is_an_error_where_it_is_wanted(tmp_path):
    place = Folder(tmp_path)
    place.put("1.parquet", packed(day=["2024-01-01"], id=[1]))
    (tmp_path / "other.txt").symlink_to(tmp_path / "gone")
    assert place.load(place.source("*.parquet"), DAYS[:1]).frame["id"].tolist() == [1]
    (tmp_path / "2.parquet").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"2\.parquet was listed .* is a link that leads nowhere"):
        place.load(place.source("*.parquet"), DAYS[:1])


def test_relative_paths_start_at_the_document_also_with_wildcards(tmp_path):
    Folder(tmp_path).put("raw/1.csv", b"day,id\n2024-01-01,1\n")
    reader = CsvSource(format="csv", path="raw/*.csv").reader(tmp_path)
    assert Folder(tmp_path).load(Source(reader), DAYS[:1]).frame["id"].tolist() == [1]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("raw/{partition}/", r"path names a folder; say which files of it, like raw/\{partition\}/\*\.csv"),
        ("package://x/*.csv", "package:// names one file"),
        ("s3://buck*t/x.csv", "a bucket is named in full"),
        ("raw/**.csv", "between slashes"),
        ("raw/a**/x.csv", "between slashes"),
    ],
)
def test_a_path_that_says_nothing_is_refused_when_it_is_declared(path, said):
    problem = CsvSource(format="csv", path=path).problem({}, transformed=False, partitioned=True)
    assert problem is not None
    assert re.search(said, problem)


def test_a_probe_needs_a_day_in_the_path_where_there_are_days():
    declared = CsvSource(format="csv", path="raw/*.csv", probe=True)
    assert "the path needs {partition}" in str(declared.problem({}, transformed=False, partitioned=True))
    assert declared.problem({}, transformed=False, partitioned=False) is None
    package = CsvSource(format="csv", path="package://x/y.csv", probe=True)
    assert "no package://" in str(package.problem({}, transformed=False, partitioned=False))
    assert not CsvSource(format="csv", path="raw/*.csv").probed


@pytest.mark.parametrize("path", ["*.csv", "1.csv"])
def test_without_days_there_is_one_state(tmp_path, path):
    place = Folder(tmp_path)
    source = place.source(path, csv=True, probe=True)
    assert place.states(source) == {}
    place.put("1.csv", b"id\n1\n")
    before = place.states(source)
    place.put("1.csv", b"id\n1\n2\n")
    assert list(before) == list(place.states(source)) == [WHOLE]
    assert place.states(source) != before


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("/r/*.csv", ["/r/a.csv", "/r/a.b.csv"], ["/r/_a.csv", "/r/.csv", "/r/x/a.csv", "/r/a.csv.gz"]),
        ("/r/a*.csv", ["/r/a.csv", "/r/a_.csv"], ["/r/b.csv"]),
        ("/r/_*.csv", ["/r/_a.csv", "/r/__.csv"], ["/r/a.csv"]),
        ("/r/?.csv", ["/r/a.csv"], ["/r/ab.csv", "/r/_.csv", "/r/..csv"]),
        ("/r/**/*.csv", ["/r/a.csv", "/r/x/y/a.csv"], ["/r/_x/a.csv", "/r/x/.y/a.csv"]),
        ("/r/[a]{b}+*.csv", ["/r/[a]{b}+1.csv"], ["/r/a{b}+1.csv"]),
        ("/r/d={partition}/{partition}-*.csv", ["/r/d=2024-01-01/2024-01-01-a.csv"],
         ["/r/d=2024-01-01/2024-01-02-a.csv", "/r/d=x/x-a.csv"]),
    ],
)  # fmt: skip
def test_a_pattern_fits_names_and_nothing_that_is_marked(pattern, fitting, others):
    made = Pattern(pattern)
    assert [name for name in [*fitting, *others] if made.fits(name)] == fitting


def test_a_pattern_is_listed_from_its_last_whole_folder():
    made = Pattern("s3://b/raw/{partition}/h=*/*.csv")
    assert (made.prefix(None), made.depth(None)) == ("s3://b/raw/", 2)
    assert (made.prefix("2024-01-01"), made.depth("2024-01-01")) == ("s3://b/raw/2024-01-01/h=", 1)
    assert Pattern("/r/{partition}/**/*.csv").depth("2024-01-01") is None
