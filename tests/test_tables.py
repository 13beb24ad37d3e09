"""Tables and manifests: what breaks its model is refused by writer and reader, and leaves nothing behind."""

import json
import random
import subprocess

import build
import polars as pl
import pytest

from prefdelta.audit.coverage import Coverage
from prefdelta.checkpoints import manifest as manifests
from prefdelta.checkpoints.manifest import ManifestError, checked_folder, read_manifest, write_manifest
from prefdelta.run.atomic import replacing
from prefdelta.study.dimensions import DIMENSIONS
from prefdelta.tables import io as tables
from prefdelta.tables.check import TableError
from prefdelta.tables.checksum import KEY, DamagedTableError
from prefdelta.tables.io import (
    read_batches,
    read_result_csv,
    read_table,
    rows_to_table,
    write_batches,
    write_result_table,
    write_table,
)
from prefdelta.tables.stages import Pairs, Ratings, References, Traces


def ratings():
    return build.ratings(build.traces(), lambda trace_id, dimension: [4, 5, None])


def references(*trace_ids):
    rows = [{"trace_id": trace_id, "logp": -3.5, "n_prompt_tokens": 9, "n_tokens": 25} for trace_id in trace_ids]
    return rows_to_table(rows, References)


def set_first(frame, **values):
    first = pl.int_range(len(frame)) == 0
    return frame.with_columns(
        pl.when(first).then(pl.lit(value, dtype=frame.schema[name])).otherwise(name).alias(name) for name, value in values.items()
    )


# What is wrong -> how a table is broken, and what the message must name besides the file.
BROKEN = {
    "wrong type": (lambda t: t.with_columns(pl.col("rating").cast(pl.Float64)), ["'rating'", "Int64", "Float64"]),
    "rating too high": (lambda t: set_first(t, rating=6), ["'rating'", "less_than_or_equal_to(5)"]),
    "rating too low": (lambda t: set_first(t, rating=0), ["'rating'", "greater_than_or_equal_to(1)"]),
    "missing without reason": (lambda t: set_first(t, rating=None), ["missing_has_reason"]),
    "rating with reason": (lambda t: set_first(t, reason="not JSON"), ["missing_has_reason"]),
    "unknown dimension": (lambda t: set_first(t, dimension="speed"), ["'dimension'", "isin"]),
    "null key": (lambda t: set_first(t, trace_id=None), ["'trace_id'", "not_nullable"]),
    "duplicate key": (lambda t: pl.concat([t, t.head(1)]), ["trace_id", "unique"]),
    "missing column": (lambda t: t.drop("reason"), ["'reason'", "String", "none"]),
    "extra column": (lambda t: t.with_columns(speed=1), ["'speed'", "no such column"]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_table_is_refused_by_the_writer_and_leaves_nothing(what, tmp_path):
    change, words = BROKEN[what]
    path = tmp_path / "folder" / "file.parquet"
    with pytest.raises(TableError) as error:
        write_table(change(ratings()), Ratings, path)
    for word in [str(path), *words]:
        assert word in str(error.value)
    assert not any(file.is_file() for file in tmp_path.rglob("*"))


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_table_is_refused_by_the_reader(what, tmp_path):
    change, words = BROKEN[what]
    path = tmp_path / "file.parquet"
    build.unchecked(change(ratings()), path)
    with pytest.raises(TableError) as error:
        read_table(path, Ratings)
    for word in [str(path), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "frame, model",
    [(build.traces(), Traces), (ratings(), Ratings), (build.pairs(5), Pairs), (references("a", "b"), References)],
    ids=["traces", "ratings", "pairs", "references"],
)
def test_what_was_written_is_read_back(frame, model, tmp_path):
    write_table(frame, model, tmp_path / "file.parquet")
    assert read_table(tmp_path / "file.parquet", model).equals(frame)
    assert [file.name for file in tmp_path.iterdir()] == ["file.parquet"]


def test_columns_may_stand_in_any_order(tmp_path):
    turned = ratings().select(reversed(ratings().columns))
    write_table(turned, Ratings, tmp_path / "file.parquet")
    assert read_table(tmp_path / "file.parquet", Ratings).select(ratings().columns).equals(ratings())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 5.2, 0.9])
def test_a_mean_rating_that_is_no_level_is_refused(bad, tmp_path):
    with pytest.raises(TableError, match="chosen_overall"):
        write_table(set_first(build.pairs(3), chosen_overall=bad), Pairs, tmp_path / "file.parquet")


def test_a_duplicate_trace_id_is_refused(tmp_path):
    traces = build.traces()
    with pytest.raises(TableError, match=r"'trace_id' fails check .*unique"):
        write_table(pl.concat([traces, traces.head(1)]), Traces, tmp_path / "file.parquet")


def test_a_trace_has_one_reference(tmp_path):
    with pytest.raises(TableError, match=r"'trace_id' fails check .*unique"):
        write_table(references("a", "a"), References, tmp_path / "file.parquet")


def test_batches_are_checked_one_by_one_and_their_keys_together(tmp_path):
    path, whole = tmp_path / "file.parquet", ratings()
    write_batches(whole.iter_slices(7), Ratings, path)
    assert read_table(path, Ratings).equals(whole)
    assert pl.concat(read_batches(path, Ratings)).equals(whole)
    with pytest.raises(TableError, match="fail check unique"):
        write_batches([*whole.iter_slices(7), whole.head(1)], Ratings, path)
    with pytest.raises(TableError, match="'rating' fails check"):
        write_batches([whole.head(7), set_first(whole.slice(7), rating=9)], Ratings, path)
    assert read_table(path, Ratings).equals(whole)


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_table_is_refused_in_batches_too(what, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BATCH", 7)
    change, words = BROKEN[what]
    path = tmp_path / "file.parquet"
    build.unchecked(change(ratings()), path)
    with pytest.raises(TableError) as error:
        list(read_batches(path, Ratings))
    for word in [str(path), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("n_batches", [1, 3])
def test_equal_hashes_are_no_repeated_keys(n_batches, tmp_path, monkeypatch):
    monkeypatch.setattr(pl.Series, "hash", lambda self: pl.zeros(len(self), dtype=pl.UInt64, eager=True))
    batches = list(build.traces(n_prompts=6).iter_slices(12 // n_batches))
    write_batches(batches, Traces, tmp_path / "file.parquet")
    with pytest.raises(TableError, match="'trace_id' fails check unique, such as q0:g:0"):
        write_batches([*batches, batches[0].head(1)], Traces, tmp_path / "file.parquet")


def test_a_refused_table_leaves_the_last_good_one_as_it_was(tmp_path):
    path = tmp_path / "file.parquet"
    write_table(ratings(), Ratings, path)
    with pytest.raises(TableError):
        write_table(set_first(ratings(), rating=9), Ratings, path)
    assert read_table(path, Ratings).equals(ratings())


@pytest.mark.parametrize("kept", [0, 10, -20])
def test_a_truncated_file_is_refused_by_name(kept, tmp_path):
    path = tmp_path / "file.parquet"
    write_table(ratings(), Ratings, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TableError, match=f"{path} can't be trusted as a table.*Delete it and run again"):
        read_table(path, Ratings)


def flips(content, n, seed=0):
    """``content`` with one bit flipped, ``n`` times at random and at both ends."""
    rng = random.Random(seed)
    for bit in [0, 8 * len(content) - 1, *(rng.randrange(8 * len(content)) for _ in range(n))]:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def test_every_flipped_bit_of_a_parquet_table_is_found(tmp_path):
    path, whole = tmp_path / "file.parquet", ratings()
    write_table(whole, Ratings, path)
    for content in flips(path.read_bytes(), 300):
        path.write_bytes(content)
        for read in (read_table, lambda *table: list(read_batches(*table))):
            with pytest.raises(DamagedTableError, match=f"{path} can't be trusted.*Delete it and run again") as error:
                read(path, Ratings)
            assert error.value.path == path


def test_every_flipped_bit_of_a_result_table_is_found_and_sha256sum_finds_it_too(tmp_path):
    path = tmp_path / "coverage.csv"
    write_result_table(coverage(), Coverage, path)
    check = [["sha256sum", "--check", "--status", "coverage.sha256"], tmp_path]
    assert subprocess.run(check[0], cwd=check[1], check=False).returncode == 0
    for content in flips(path.read_bytes(), 60):
        path.write_bytes(content)
        with pytest.raises(DamagedTableError, match=f"{path} can't be trusted.*Delete it and run again"):
            read_result_csv(path, Coverage)
    assert subprocess.run(check[0], cwd=check[1], check=False).returncode == 1


def test_every_flipped_bit_of_a_manifest_is_found_or_changes_nothing(tmp_path):
    path = checkpoint(tmp_path)
    content, read = path.read_bytes(), read_manifest(path)
    found = 0
    for flipped in flips(content, 300):
        path.write_bytes(flipped)
        try:
            assert read_manifest(path) == read  # white space is none of its content
        except ManifestError as error:
            assert str(path) in str(error) and "Delete it and run again" in str(error)
            found += 1
    assert found > 200


def test_the_checksum_of_a_parquet_file_is_no_matter_of_other_readers(tmp_path):
    write_table(ratings(), Ratings, tmp_path / "file.parquet")
    assert pl.read_parquet(tmp_path / "file.parquet").equals(ratings())
    assert len(pl.read_parquet_metadata(tmp_path / "file.parquet")[KEY]) == 64


def test_a_table_of_other_people_is_refused_by_name(tmp_path):
    ratings().write_parquet(tmp_path / "file.parquet")
    with pytest.raises(DamagedTableError, match=f"{tmp_path}/file.parquet .* no checksum"):
        read_table(tmp_path / "file.parquet", Ratings)


def test_a_write_that_fails_midway_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="disk full"), replacing(tmp_path / "file.csv") as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []


def coverage():
    rows = [
        {"judge": "j", "generator": "g_1", "dimension": name, "n_asked": 10, "n_missing": 1, "reasons": '{"not JSON": 1}'}
        for name in DIMENSIONS
    ]
    return rows_to_table(rows, Coverage)


def test_a_result_table_is_written_as_csv_markdown_and_latex(tmp_path):
    write_result_table(coverage(), Coverage, tmp_path / "coverage.csv")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["coverage.csv", "coverage.md", "coverage.sha256", "coverage.tex"]
    assert read_result_csv(tmp_path / "coverage.csv", Coverage).equals(coverage())
    markdown = (tmp_path / "coverage.md").read_text().splitlines()
    assert markdown[0] == "| judge | generator | dimension | n_asked | n_missing | reasons |"
    assert len(markdown) == 2 + len(DIMENSIONS)
    tex = (tmp_path / "coverage.tex").read_text()
    assert r"\toprule" in tex
    assert tex.count(r" \\") == 1 + len(DIMENSIONS)
    assert r"g\_1" in tex


def test_braces_are_escaped_for_latex_which_would_swallow_them(tmp_path):
    write_result_table(coverage(), Coverage, tmp_path / "coverage.csv")
    assert r'\{"not JSON": 1\}' in (tmp_path / "coverage.tex").read_text()


def test_a_broken_result_table_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(TableError, match=r"'n_asked' fails check greater_than\(0\)"):
        write_result_table(set_first(coverage(), n_asked=0), Coverage, tmp_path / "coverage.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("old, new", [(",10,1,", ",10,-1,"), (",10,", ",ten,"), ("generator", "author")])
def test_an_edited_csv_is_refused_by_name(old, new, tmp_path):
    path = tmp_path / "coverage.csv"
    write_result_table(coverage(), Coverage, path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(TableError, match=str(path)):
        read_result_csv(path, Coverage)


def checkpoint(folder):
    (folder / "sub").mkdir()
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "sub" / "card.md").write_text("card")
    write_manifest(folder / "manifest.json", {"steps": 3})
    return folder / "manifest.json"


def test_a_manifest_names_every_file_of_its_folder(tmp_path):
    path = checkpoint(tmp_path)
    manifest = read_manifest(path)
    assert manifest["steps"] == 3
    assert sorted(manifest["files"]) == ["model.bin", "sub/card.md"]
    assert manifest["bytes"] == {"model.bin": 7, "sub/card.md": 4}
    assert checked_folder(path) == tmp_path
    assert {"python", "polars"} <= manifest["versions"].keys()


@pytest.mark.parametrize("name", ["model.bin", "sub/card.md"])
def test_a_changed_or_missing_file_of_a_checkpoint_is_found(name, tmp_path):
    path = checkpoint(tmp_path)
    (tmp_path / name).write_bytes(b"weightz")
    with pytest.raises(ManifestError, match=f"{tmp_path / name} has changed"):
        checked_folder(path)
    (tmp_path / name).unlink()
    with pytest.raises(ManifestError, match=f"{tmp_path / name} is missing"):
        checked_folder(path)
    assert read_manifest(path)["steps"] == 3  # what it says needs no files


def test_a_large_file_is_compared_in_size_only(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "HASHED_BYTES", 5)
    path = checkpoint(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"weightz")
    assert checked_folder(path) == tmp_path
    (tmp_path / "model.bin").write_bytes(b"weight")
    with pytest.raises(ManifestError, match=r"model\.bin has changed"):
        checked_folder(path)


def test_a_truncated_manifest_is_refused_by_name(tmp_path):
    path = checkpoint(tmp_path)
    path.write_text(path.read_text()[:-5])
    for read in (read_manifest, checked_folder):
        with pytest.raises(ManifestError, match=str(path)):
            read(path)


def test_a_manifest_does_not_depend_on_the_order_in_which_files_were_made(tmp_path):
    texts = []
    for order in (("a", "b"), ("b", "a")):
        folder = tmp_path / "".join(order)
        folder.mkdir()
        for name in order:
            (folder / name).write_text(name)
        write_manifest(folder / "manifest.json", {})
        texts.append((folder / "manifest.json").read_text())
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["files"].keys() == {"a", "b"}
