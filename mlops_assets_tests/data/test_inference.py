"""What is guessed about a file of rows, from all of them, and what is refused in words."""

import datetime
import io
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from mlops_assets.data.inference import (
    InferredRows,
    Question,
    infer_question,
    infer_rows,
    likely_label,
)
from mlops_assets.data.schema import conform
from mlops_assets.data.sources import SOURCES
from mlops_assets.errors import DataError, MlopsError, UnknownName

TEA = "minutes,origin,bitter\n" + "".join(
    f"{n % 9},{('assam', 'sencha', 'oolong')[n % 3]},{'yes' if n % 2 else 'no'}\n" for n in range(60)
)


def rows(text: str | bytes, **more: Any) -> InferredRows:
    content = text if isinstance(text, bytes) else text.encode()
    return infer_rows(content, **{"source": "csv", "name": "tea.csv", **more})


def said(found: InferredRows | Question) -> str:
    return "\n".join(f"{one.what} ({one.why})" for one in found.guesses)


def table(header: str, line: Callable[[int], str], count: int = 60) -> str:
    return header + "\n" + "".join(line(number) + "\n" for number in range(count))


def test_three_columns_without_an_id_get_numbered_rows() -> None:
    found = rows(TEA)
    assert found.types == {"row_id": "integer", "minutes": "integer", "origin": "string", "bitter": "string"}
    assert found.key_made and "rows are numbered as row_id (no column is named like an id)" in said(found)
    question = infer_question(found, "bitter")
    assert (question.task, question.classes) == ("binary", ("no", "yes"))
    assert question.features == {"minutes": "integer", "origin": "category"}


@pytest.mark.parametrize("header", ["id", "tea_id", "teaId", "ID", "Order No", "uuid"])
def test_a_column_named_like_an_id_that_never_repeats_is_the_key(header: str) -> None:
    found = rows(table(f"{header},x", lambda n: f"t{n},{n % 7}"))
    assert (found.key, found.key_made) == (header, False)


@pytest.mark.parametrize(
    ("header", "line", "why"),
    [
        ("tea_id,x", lambda n: f"{n // 2},{n % 7}", "tea_id repeats"),
        ("tea_id,x", lambda n: f"{n or ''},{n % 7}", "tea_id repeats or is missing"),
        ("income,x", lambda n: f"{n},{n % 7}", "no column is named like an id"),
        ("row_id,x", lambda n: f"{n // 2},{n % 7}", "rows are numbered as row_id_2"),
    ],
)
def test_what_is_no_key_is_told_and_one_is_made(header: str, line: Callable[[int], str], why: str) -> None:
    found = rows(table(header, line))
    assert found.key_made and why in said(found)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2"], "integer"),
        (["1", "2.5"], "number"),
        (["007", "010"], "string"),
        (["true", "false"], "boolean"),
        (["2024-01-31", "2024-02-01"], "timestamp"),
        (["2024-01-31T10:00", "2024-02-01 11:30:00"], "timestamp"),
        (["2024-02-30", "2024-02-01"], "string"),
        (["99999999999999999999", "1"], "string"),
        (["1", "x"], "string"),
        (["1,5", "2,5"], "string"),
    ],
)
def test_types_are_those_of_all_rows(values: list[str], kind: str) -> None:
    last = table("a;b", lambda n: f"{values[0]};{n % 5}", 59) + f"{values[1]};1\n"
    assert rows(last).column("a").type == kind


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(",", "utf-8"), (";", "cp1252"), ("\t", "utf-16"), ("|", "utf-8-sig")]
)
def test_delimiter_and_encoding_are_found(delimiter: str, encoding: str) -> None:
    text = TEA.replace("assam", "žlutý" if "utf" in encoding else "grün").replace(",", delimiter)
    found = rows(text.encode(encoding))
    assert [one.name for one in found.columns] == ["minutes", "origin", "bitter"]
    assert found.options.get("delimiter", ",") == delimiter
    assert found.options.get("encoding", "utf-8") == encoding.removesuffix("-sig")


def test_a_delimiter_within_quotes_is_none() -> None:
    text = table("name;x", lambda n: f'"tea, {n % 3}, ""black""";{n % 5}')
    found = rows(text)
    assert found.options == {"delimiter": ";"} and found.column("name").values[0] == 'tea, 0, "black"'


def test_a_last_line_without_an_end_is_told() -> None:
    found = rows(TEA.rstrip("\n"))
    assert found.options == {"final_newline": "optional"} and "a cut file looks like too" in said(found)


@pytest.mark.parametrize("text", ["?", "NULL", "n/a", "-"])
def test_texts_that_mean_missing_do_not_make_text_of_numbers(text: str) -> None:
    found = rows(table("x,y", lambda n: f"{n if n % 5 else text},{n % 3}"))
    assert found.column("x").type == "integer" and found.column("x").missing == 12
    assert found.options == {"column_null_values": {"x": ["", "NA", "NaN", text]}}


def test_the_same_texts_stay_text_in_a_column_of_text() -> None:
    found = rows(table("x,y", lambda n: f"{'none' if n % 5 else 'much'},{n % 3}"))
    assert found.options == {} and found.column("x").missing == 0


def test_names_that_no_column_can_have_are_renamed() -> None:
    found = rows(
        table(",Size,size,split,tea colour", lambda n: f"{n},{n % 7},{n % 5},{n % 3},c{n % 2}"),
        reserved=["split"],
    )
    assert found.renamed == {"": "column_1", "size": "size_2", "split": "split_2"}
    assert [one.name for one in found.columns] == ["column_1", "Size", "size_2", "split_2", "tea colour"]
    assert found.column("split").name == "split_2"


def test_what_looks_like_a_number_to_people_is_told() -> None:
    text = table("price;share;sold;x", lambda n: f"{n},50;{n} %;{n % 28 + 1}.12.2024;{n % 3}")
    told = said(rows(text))
    assert "price is text (it holds numbers with a decimal comma)" in told
    assert "share is text (it holds percentages)" in told
    assert "sold is text (it holds days" in told


def test_parquet_columns_that_no_declared_type_holds_are_left_out() -> None:
    day = datetime.date(2024, 1, 31)
    made = pa.table(
        {
            "tea_id": [f"t{n}" for n in range(60)],
            "when": [day] * 60,
            "kind": pa.array(["a", "b"] * 30).dictionary_encode(),
            "list": [[1]] * 60,
            "took": [datetime.timedelta(seconds=1)] * 60,
            "never": pa.nulls(60, pa.int64()),
            "big": pa.array([2**64 - 1] * 60, pa.uint64()),
            "nan": pa.array([float("nan"), 1.5] * 30),
        }
    )
    sink = io.BytesIO()
    parquet.write_table(made, sink)
    found = infer_rows(sink.getvalue(), source="parquet", name="tea.parquet")
    assert found.types == {"tea_id": "string", "when": "timestamp", "kind": "string", "nan": "number"}
    assert found.column("nan").missing == 30
    for column in ("list", "took", "never", "big"):
        assert f"column {column} is left out" in said(found)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=6),
            st.sampled_from(
                ["1", "-1.5", "1e3", "NA", "", "true", "2024-01-31", "007", "?", "x", " 3", "1e400"]
            ),
            st.sampled_from(["1", "0", "", "NULL", "2024-01-31T10:00:00Z", "2024-02-30"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_what_is_inferred_always_loads(lines: list[tuple[str, str, str]]) -> None:
    sink = io.StringIO()
    pd.DataFrame(lines, columns=["a", "b", "c"]).to_csv(sink, index=False, lineterminator="\n")
    content = sink.getvalue().encode()
    try:
        found = rows(content)
    except DataError:
        return
    declared = {one.name: one.type for one in found.columns}
    reader = SOURCES["csv"](format="csv", path="tea.csv", **found.options).file_format()
    for infer in (False, True):
        raw = reader.read(content, name="tea.csv", columns=declared, infer=infer)
        conformed = conform(raw, declared)
        assert not conformed.misfits and not conformed.missing


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("a,b\n", "2 columns and no row"),
        ("1,2.5\n3,4\n", "holds numbers"),
        ("a,a\n1,2\n", "columns twice: 'a'"),
        ("a,b\n1,2\n1,2,3\n", "not valid CSV"),
        ('a,b\n1,"2\n', "opening quote"),
        ("a,b\n,\n,\n", "no column that can be declared"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        rows(text)


@pytest.mark.parametrize(
    ("label", "task", "words"),
    [
        ("colour", None, "Unknown column 'colour'. Allowed: id, kind, many, minutes, one, when"),
        ("one", None, "one value only, 'x'"),
        ("many", None, "more than 30 classes"),
        ("id", None, "identifies a row"),
        ("when", None, "holds times"),
        ("kind", "regression", "Choose --task multiclass"),
        ("kind", "binary", "Choose --task multiclass"),
        ("minutes", "binary", "Choose --task regression"),
        ("half", "multiclass", "Choose --task binary"),
    ],
)
def test_a_label_that_nothing_can_be_learned_about_is_refused(label: str, task: Any, words: str) -> None:
    header = "id,kind,many,minutes,one,when" + (",half" if label == "half" else "")
    more = (lambda n: f",{n % 2}") if label == "half" else (lambda n: "")
    found = rows(table(header, lambda n: f"{n},k{n % 3},m{n},{n}.5,x,2024-01-{n % 28 + 1:02}" + more(n)))
    with pytest.raises(MlopsError, match=words):
        infer_question(found, label, task)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="30 of 60 rows have a value in y"):
        infer_question(rows(table("x,y", lambda n: f"{n},{'' if n % 2 else n % 3}")), "y")
    with pytest.raises(UnknownName):
        rows(TEA).column("sweet")


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ("true false", "binary"),
        ("0 1", "binary"),
        ("0.0 1.0", "binary"),
        ("1 2", "binary"),
        ("red green", "binary"),
        ("red green blue", "multiclass"),
        ("0 1 2", "multiclass"),
        ("0.5 1.5", "regression"),
        (" ".join(map(str, range(11))), "regression"),
        (" ".join(f"{n}.5" for n in range(11)), "regression"),
    ],
)
def test_the_task_fits_the_labels(values: str, task: str) -> None:
    options = values.split()
    found = rows(table("x,y", lambda n: f"{n % 7},{options[n % len(options)]}"))
    assert infer_question(found, "y").task == task


@pytest.mark.parametrize(
    ("pair", "positive"),
    [("yes no", "yes"), ("late on_time", "on_time"), ("ok broken", "broken"), ("spam not_spam", "spam")],
)
def test_the_positive_class_is_the_one_that_does_not_say_no(pair: str, positive: str) -> None:
    options = pair.split()
    question = infer_question(rows(table("x,y", lambda n: f"{n % 7},{options[n % 2]}")), "y")
    assert question.classes is not None and question.classes[1] == positive


def test_features_are_what_can_be_learned_from_and_the_rest_is_told() -> None:
    text = table(
        "who,note,one,shop_id,at,x,y", lambda n: f"w{n % 3},n{n},same,{n % 40},2024-01-01,{n % 7},{n % 2}"
    )
    question = infer_question(rows(text), "y")
    assert question.features == {"who": "category", "x": "integer"}
    for column in ("note", "one", "shop_id", "at"):
        assert f"{column} is no feature" in said(question)
    with pytest.raises(DataError, match="No column is left"):
        infer_question(rows(table("note,y", lambda n: f"n{n},{n % 2}")), "y")


def test_times_over_enough_days_split_training_from_judging() -> None:
    first = datetime.date(2024, 1, 1)
    text = table("at,x,y", lambda n: f"{first + datetime.timedelta(days=n)},{n % 7},{n % 2}")
    question = infer_question(rows(text), "y")
    assert (question.event_timestamp, question.evaluation_window_days) == ("at", 12)
    assert question.evaluation_fraction is None
    born = infer_question(rows(text.replace("at,", "date_of_birth,", 1)), "y")
    few = infer_question(rows(table("at,x,y", lambda n: f"2024-01-{n % 9 + 1:02},{n},{n % 2}")), "y")
    assert born.event_timestamp is None and few.event_timestamp is None and few.evaluation_fraction == 0.5


def test_the_likely_label_is_named_so_or_comes_last() -> None:
    assert likely_label(rows(TEA)) == "bitter"
    assert likely_label(rows(TEA.replace("minutes,", "target,", 1))) == "target"
