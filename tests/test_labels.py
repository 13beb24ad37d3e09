"""Ratings that a file holds already, read as labels and through the judge's rule."""

import build
import polars as pl
import pytest
from test_judge import rate

from prefdelta.judge.labels import LabelsError, read_labels
from prefdelta.study.dimensions import DIMENSIONS, THE_FIVE
from prefdelta.study.endpoints import FileEndpoint
from prefdelta.tables.stages import Ratings

TRACES = build.traces(n_prompts=2, samples=2)
FIRST, SECOND, *_ = TRACES["trace_id"]
HEADER = "trace_id,dimension,rating,repeat"


def level(repeat, dimension):
    return 1 + (repeat + DIMENSIONS.index(dimension)) % 5


def lines(*repeats, traces=TRACES["trace_id"]):
    """A line for each of ``traces``, dimension and repeat, with levels that differ between dimensions and repeats."""
    return [f"{trace},{name},{level(repeat, name)},{repeat}" for trace in traces for name in DIMENSIONS for repeat in repeats]


def written(folder, rows, header=HEADER):
    file = folder / "labels.csv"
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def read(folder, rows, header=HEADER):
    return Ratings.by(THE_FIVE).validate(read_labels(written(folder, rows, header), TRACES["trace_id"], "people", THE_FIVE))


def test_labels_are_the_ratings_of_a_judge_of_kind_file(tmp_path):
    # In any order, and with those of traces that are not asked for.
    rows = lines(1, 0)[::-1] + lines(0, traces=["elsewhere"])
    endpoint = FileEndpoint(kind="file", path=str(written(tmp_path, rows)))
    ratings = rate(tmp_path, endpoint, TRACES, judge="people", model="people")
    expected = {(trace, name, n): level(n, name) for trace in TRACES["trace_id"] for name in DIMENSIONS for n in (0, 1)}
    assert {(row["trace_id"], row["dimension"], row["repeat"]): row["rating"] for row in ratings.to_dicts()} == expected
    assert len(ratings) == len(expected)
    assert ratings["judge"].unique().to_list() == ["people"]
    assert ratings["reason"].null_count() == len(ratings)


def test_columns_stand_in_any_order_and_without_repeats_each_rating_is_the_first(tmp_path):
    rows = [f"me,{rating},{name},{trace}" for trace, name, rating, _ in (line.split(",") for line in lines(0))]
    labels = read(tmp_path, rows, "annotator,rating,dimension,trace_id")
    assert labels.sort(pl.all()).equals(read(tmp_path, lines(0)).sort(pl.all()))
    assert set(labels["repeat"]) == {0}


def test_a_trace_without_labels_has_no_rows(tmp_path):
    assert read(tmp_path, lines(0, traces=[SECOND]))["trace_id"].unique().to_list() == [SECOND]


def test_a_dimension_that_a_labelled_trace_lacks_is_missing_with_a_reason(tmp_path):
    rows = [line for line in lines(0, 1) if line != f"{FIRST},factuality,{level(1, 'factuality')},1"]
    labels = read(tmp_path, rows)
    assert len(labels) == len(TRACES) * len(DIMENSIONS) * 2
    missing = labels.filter(pl.col("rating").is_null())
    assert missing.drop("judge").rows() == [(FIRST, "factuality", 1, None, "not labelled")]


REFUSED = {  # what is wrong -> (lines, what the message must hold)
    "empty trace": ([",factuality,3,0"], ["line 2", "trace_id is empty"]),
    "unknown dimension": ([f"{FIRST},factuality,3,0", f"{FIRST},speed,3,0"], ["line 3", *DIMENSIONS]),
    "no dimension": ([f"{FIRST},,3,0"], ["line 2", "dimension"]),
    "level below": ([f"{FIRST},factuality,0,0"], ["line 2", "from 1 to 5"]),
    "level above": ([f"{FIRST},factuality,6,0", f"{SECOND},factuality,7,0"], ["line 2", "from 1 to 5", "2 such lines"]),
    "level between": ([f"{FIRST},factuality,3.5,0"], ["line 2", "from 1 to 5"]),
    "no level": ([f"{FIRST},factuality,x,0"], ["line 2", "from 1 to 5"]),
    "level of two digits": ([f"{FIRST},factuality,4 5,0"], ["line 2", "from 1 to 5"]),
    "not a number": ([f"{FIRST},factuality,N/A,0"], ["line 2", "from 1 to 5"]),
    "after empty lines": (["", ",,,", f"{FIRST},factuality,6,0"], ["line 4", "from 1 to 5", "1 such lines"]),
    "a cell too many": ([*lines(0), f"{FIRST},factuality,4,0,1"], [f"line {len(lines(0)) + 2}", "5 cells under 4"]),
    "nothing rated": ([f"{trace},{name},,0" for trace in TRACES["trace_id"] for name in DIMENSIONS], ["none of these 4 traces"]),
    "negative repeat": ([f"{FIRST},factuality,3,-1"], ["line 2", "repeat"]),
    "no repeat": ([f"{FIRST},factuality,3,"], ["line 2", "repeat"]),
    "key twice": ([*lines(0), f"{FIRST},factuality,5,0"], ["line 2", "several lines", "2 such lines"]),
    "other traces": (lines(0, traces=["elsewhere"]), ["none of these 4 traces", FIRST]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_labels_are_refused_with_file_and_line(what, tmp_path):
    rows, words = REFUSED[what]
    with pytest.raises(LabelsError) as error:
        read(tmp_path, rows)
    for word in [str(tmp_path / "labels.csv"), *words]:
        assert word in str(error.value)


def spreadsheet(separator=",", ending="\r\n", mark="\ufeff", level="{}.0"):
    """`lines` as people and spreadsheets write them, with empty cells and lines."""
    title = {name: name.replace("_", " ").capitalize() for name in DIMENSIONS}
    rows = [line.split(",") for line in lines(0, 1)]
    rows = [[trace, title[name], level.format(rating), f"{repeat}.0"] for trace, name, rating, repeat in rows]
    rows = [["Trace ID", "Dimension", "Rating", "repeat"], *rows, [""] * 4, [""]]
    return mark + ending.join(f"{separator} ".join(row) for row in rows) + ending


@pytest.mark.parametrize(
    "content",
    [
        spreadsheet(),
        spreadsheet(";", level="{},0"),
        spreadsheet("\t", "\n", "", "{}"),
        spreadsheet().replace("Step coherence", '"Step-Coherence "'),
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in [HEADER, *lines(0, 1)]),
    ],
    ids=["commas", "semicolons", "tabs", "quoted", "all quoted"],
)
def test_labels_are_read_as_spreadsheets_write_them(content, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text(content, encoding="utf-8", newline="")
    labels = Ratings.by(THE_FIVE).validate(read_labels(file, TRACES["trace_id"], "people", THE_FIVE))
    assert labels.sort(pl.all()).equals(read(tmp_path, lines(0, 1)).sort(pl.all()))


def test_an_empty_cell_is_missing_and_a_trace_of_which_all_are_empty_is_not_rated(tmp_path):
    rows = [f"{SECOND},{name},,0" for name in DIMENSIONS]
    rows += [f"{FIRST},{name},{'' if name == 'factuality' else 3},0" for name in DIMENSIONS]
    labels = read(tmp_path, rows)
    assert set(labels["trace_id"]) == {FIRST}
    assert dict(labels.select("dimension", "rating").iter_rows()) == dict.fromkeys(DIMENSIONS, 3) | {"factuality": None}
    assert labels["reason"].drop_nulls().to_list() == ["not labelled"]


def test_a_column_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(LabelsError, match=r"labels.csv has the column rating more than once"):
        read(tmp_path, lines(0), "trace_id,dimension,rating,Rating")


@pytest.mark.parametrize("column", ["trace_id", "dimension", "rating"])
def test_a_file_that_lacks_a_column_is_refused(column, tmp_path):
    with pytest.raises(LabelsError, match=f"labels.csv lacks {column}; needed are trace_id, dimension, rating"):
        read(tmp_path, lines(0), HEADER.replace(column, "other"))


@pytest.mark.parametrize(
    "content", [None, b"", b"trace_id,dimension,rating\n\xff,factuality,3\n"], ids=["no file", "empty", "binary"]
)
def test_what_is_no_csv_is_refused(content, tmp_path):
    file = tmp_path / "labels.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LabelsError, match=f"{file} can't be read as labels"):
        read_labels(file, TRACES["trace_id"], "people", THE_FIVE)


def test_wrong_labels_leave_no_table(tmp_path):
    endpoint = FileEndpoint(kind="file", path=str(written(tmp_path, [f"{FIRST},speed,3,0"])))
    with pytest.raises(LabelsError):
        rate(tmp_path, endpoint, TRACES, judge="people")
    assert not (tmp_path / "ratings.parquet").exists()
