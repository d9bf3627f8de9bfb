"""fstx.batches on real parquet files: what a killed run wrote counts, and only the rest is made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import fstx
from fstx.errors import PathError, ResumeError, StateError, TargetExistsError, UsageError
from support.places import PLACES, Target, logical
from support.trees import tree

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("word", pa.string())])
JOB: dict[str, Any] = {"schema": SCHEMA, "rows_per_batch": 10, "fingerprint": {"seed": 7}}


def make(start: int, stop: int) -> dict[str, list[Any]]:
    return {"id": list(range(start, stop)), "word": [f"w{n}" for n in range(start, stop)]}


def generate(
    url: Any,
    rows: int = 45,
    only: Iterable[int] | None = None,
    short: Callable[[int], int] = lambda _: 0,
    **options: Any,
) -> tuple[fstx.BatchReport, list[int]]:
    """A run; with `only` it is stopped after these batches. Its report, and the batches that it made."""
    made = []
    with fstx.batches(url, rows=rows, **{**JOB, **options}) as job:
        for batch in job:
            if only is None or batch.number in only:
                made.append(batch.number)
                job.write(batch, make(batch.start, batch.stop - short(batch.number)))
        if only is not None:
            job.suspend()
    return job.report, made


def ids(url: Path) -> list[int]:
    """As plain readers find them: by the directory, by ``_metadata``, and in pandas."""
    found = pq.read_table(url, page_checksum_verification=True)["id"].to_pylist()
    by_entry = ds.parquet_dataset(url / "_metadata").to_table()
    assert by_entry["id"].to_pylist() == found
    assert pd.read_parquet(url)["id"].tolist() == found
    return found  # type: ignore[no-any-return]


def kept(url: Path) -> dict[str, Path]:
    """The parts that wait, by what is in them."""
    found = {}
    for path in url.parent.glob(".fstx/jobs/*/a/*"):
        first = pq.read_table(path)["id"][0].as_py()
        found[f"part-{first // 10:05d}"] = path
    return found


@pytest.mark.parametrize("place", PLACES)
def test_a_stopped_run_goes_on(place: str, tmp_path: Path) -> None:
    """D3, D4, D7, D8: batches of any order are kept, holes are made, bytes equal an undisturbed run."""
    target = Target(place, tmp_path)
    how = {"storage_options": target.options}
    report, made = generate(target.url("d"), only=[3, 0], **how)
    assert (report.rows, report.batches, report.snapshot) == (20, 2, None)
    assert [p for p in logical(target.base, {}) if p.startswith("d/")] == []
    report, made = generate(target.url("d"), resume="always", **how)
    assert made == [1, 2, 4]
    generate(target.url("whole"), **how)
    found = logical(target.base, {})
    names = [f"part-{n:05d}.parquet" for n in range(5)]
    assert sorted(p[2:] for p in found if p.startswith("d/")) == ["_metadata", *names]
    for name in ["_metadata", *names]:
        assert found[f"d/{name}"] == found[f"whole/{name}"]
    assert fstx.jobs(target.url("d"), **target.options) == []


CHILD = textwrap.dedent(
    """
    import os, signal, sys
    import pyarrow as pa
    import fstx
    from test_batches import JOB, make

    with fstx.batches(sys.argv[1], rows=45, **JOB) as job:
        for batch in job:
            if batch.number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            job.write(batch, make(batch.start, batch.stop))
    """
)


def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    """D7, D8, D27: SIGKILL between two batches; parts that are there count once, and are not made again."""
    url = tmp_path / "d"
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(url)],
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [".fstx"]
    report, made = generate(url)
    assert made == [3, 4]
    assert (report.rows, report.rows_now, report.batches, report.batches_now) == (45, 15, 5, 2)
    assert ids(url) == list(range(45))
    assert os.listdir(tmp_path) == ["d"]


def test_real_rows_are_counted(tmp_path: Path) -> None:
    """D4, D5, D6: a batch with fewer rows than planned and a last one that isn't full count as they are."""
    url = tmp_path / "d"
    report, _ = generate(url, only=[1, 4], short=lambda n: 7 if n == 1 else 0)
    assert (report.rows, report.rows_now) == (3 + 5, 8)
    report, made = generate(url)
    assert made == [0, 2, 3]
    assert (report.rows, report.rows_now) == (38, 30)
    assert ids(url) == [*range(13), *range(20, 45)]
    again, made = generate(url)
    assert (again.rows, again.rows_now, made) == (38, 0, [])


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _no_footer(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff\xff\xff\x7f")


def _other_rows(path: Path) -> None:
    """A whole part of other rows under the same name and length: its footer tells."""
    old = path.stat().st_size
    pq.write_table(pa.table(make(0, 3), schema=SCHEMA), path, compression="none")
    data = path.read_bytes()
    foot = int.from_bytes(data[-8:-4], "little") + 8
    path.write_bytes(data[:4] + bytes(old - 4 - foot) + data[-foot:])


def _page(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(30)
        byte = file.read(1)
        file.seek(30)
        file.write(bytes([byte[0] ^ 0xFF]))


@pytest.mark.parametrize("harm", [_cut, Path.unlink, _no_footer, _other_rows])
@pytest.mark.parametrize("where", ["job", "dataset"])
def test_parts_that_are_not_whole_are_made_again(
    harm: Callable[[Path], None], where: str, tmp_path: Path
) -> None:
    """D9: a part that is cut off, gone or has no footer of its rows: a warning, and it is made anew."""
    url = tmp_path / "d"
    if where == "job":
        generate(url, only=[0, 1, 2])
        harm(kept(url)["part-00001"])
        left = [1, 3, 4]
    else:
        generate(url)
        harm(url / "part-00001.parquet")
        left = [1]
    with pytest.warns(RuntimeWarning, match=r"not there whole .*01.*done again|batch/1\)"):
        report, made = generate(url)
    assert made == left
    assert report.rows == 45
    assert ids(url) == list(range(45))


@pytest.mark.parametrize("where", ["job", "dataset"])
def test_damaged_pages_under_a_good_footer(where: str, tmp_path: Path) -> None:
    """D10: verify=True compares checksums, and readers with page checksums find the same damage."""
    url = tmp_path / "d"
    generate(url, only=[0, 1, 2] if where == "job" else None)
    part = kept(url)["part-00001"] if where == "job" else url / "part-00001.parquet"
    _page(part)
    assert pq.read_metadata(part).num_rows == 10
    with pytest.raises(OSError, match=r"(?i)crc|corrupt|snappy|zstd"):
        pq.read_table(part, page_checksum_verification=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fstx.batches(
            url, rows=45, **JOB
        ) as job:  # lengths and footers are all that is looked at
            assert 1 not in [batch.number for batch in job]
            job.suspend()
    with pytest.warns(RuntimeWarning, match="not there whole"):
        _, made = generate(url, verify=True)
    assert 1 in made
    assert ids(url) == list(range(45))


def test_empty_batches_are_done(tmp_path: Path) -> None:
    """D11: a batch without rows has no part, is recorded, and isn't made again, also after the commit."""
    url = tmp_path / "d"
    report, _ = generate(url, only=[0, 2], short=lambda n: 10 if n == 2 else 0)
    assert (report.batches, report.empty, report.rows) == (2, 1, 10)
    report, made = generate(url)
    assert made == [1, 3, 4]
    assert report.empty == 1
    assert not (url / "part-00002.parquet").exists()
    assert "part-00002.parquet" not in report.parts
    assert ids(url) == [*range(20), *range(30, 45)]
    report, made = generate(url, rows=60)
    assert made == [5, 6]
    assert (report.rows, report.empty) == (50, 1)


@pytest.mark.parametrize("resume", ["always", "if_possible"])
def test_batches_that_may_grow_do_not_resume(resume: str, tmp_path: Path) -> None:
    """D12: allow_resize with a mode that resumes is refused before any work; without, more rows are."""
    with pytest.raises(UsageError, match="allow_resize=True with resume="):
        generate(tmp_path / "d", resume=resume, allow_resize=True)
    assert os.listdir(tmp_path) == []
    with pytest.raises(UsageError, match="brought 13 rows, planned are 10"):
        generate(tmp_path / "d", short=lambda _: -3)
    report, _ = generate(tmp_path / "e", resume="never", allow_resize=True, short=lambda _: -3)
    assert report.rows == 45 + 5 * 3


@pytest.mark.parametrize("resume", ["always", "if_possible"])
@pytest.mark.parametrize("state", ["job", "dataset"])
def test_another_size_of_batches_is_refused(resume: str, state: str, tmp_path: Path) -> None:
    """D20: rows_per_batch other than the parts' is refused before any work, with both numbers."""
    url = tmp_path / "d"
    generate(url, only=[0, 1] if state == "job" else None)
    before = tree(tmp_path)
    with pytest.raises(ResumeError, match=r"rows_per_batch=20, but .* has batches of 10"):
        generate(url, resume=resume, rows_per_batch=20)
    assert tree(tmp_path) == before
    _, made = generate(url, resume=resume)
    assert made == ([2, 3, 4] if state == "job" else [])


@pytest.mark.parametrize("state", ["job", "dataset"])
def test_fewer_rows_are_refused_and_more_extend(state: str, tmp_path: Path) -> None:
    """D21: less than was asked for is refused; more goes on, and what was planned first keeps its bounds."""
    url = tmp_path / "d"
    generate(url, only=[1, 4] if state == "job" else None)
    before = tree(tmp_path)
    with pytest.raises(ResumeError, match=r"rows=44, but .* was made for 45 rows"):
        generate(url, rows=44)
    assert tree(tmp_path) == before
    with fstx.batches(url, rows=58, **JOB) as job:
        assert [(b.start, b.stop) for b in job.plan[4:]] == [(40, 45), (45, 55), (55, 58)]
        job.suspend()
    report, made = generate(url, rows=58)
    assert made == ([0, 2, 3, 5, 6] if state == "job" else [5, 6])
    assert report.rows == 58
    assert ids(url) == list(range(58))
    assert [pq.read_metadata(url / p).num_rows for p in report.parts] == [10] * 4 + [5, 10, 3]


def test_an_extension_goes_on(tmp_path: Path) -> None:
    """D21: a stopped extension keeps its parts; readers see the old dataset until it is whole."""
    url = tmp_path / "d"
    generate(url)
    generate(url, rows=70, only=[6])
    assert ids(url) == list(range(45))
    with pytest.raises(ResumeError, match="was made for 70 rows"):
        generate(url, rows=60)
    report, made = generate(url, rows=45)  # the dataset as it is: whole, nothing to do
    assert (made, report.rows) == ([], 45)
    report, made = generate(url, rows=70)
    assert made == [5, 7]
    assert (report.rows_now, report.rows) == (15, 70)
    assert ids(url) == list(range(70))


def test_a_finished_dataset_is_given_back(tmp_path: Path) -> None:
    """D22: the same call again does no work and writes nothing."""
    url = tmp_path / "d"
    generate(url)
    before = tree(tmp_path)
    for resume in ("always", "if_possible"):
        with fstx.batches(url, rows=45, resume=resume, **JOB) as job:
            assert job.finished
            assert job.committed
            assert list(job) == []
            with pytest.raises(StateError, match="was complete before"):
                job.write(job.plan[0], make(0, 10))
        assert (job.report.rows, job.report.batches_now, job.report.snapshot) == (45, 0, None)
    assert tree(tmp_path) == before


def summary(post: fstx.PostProcessing) -> None:
    total = sum(post.table(part, columns=["id"])["id"].to_numpy().sum() for part in post.parts)
    post.stage("_summary/total.txt", str(total).encode())
    with post.open("_summary/rows.txt") as file:
        file.write(str(post.report.rows).encode())


def test_after_post_processing_a_dataset_is_complete(tmp_path: Path) -> None:
    """D22: then the same rows are given back, and any other number is refused before generation."""
    url = tmp_path / "d"
    report, _ = generate(url, post=summary)
    assert report.post == "now"
    assert (url / "_summary/total.txt").read_text() == str(sum(range(45)))
    assert (url / "_summary/rows.txt").read_text() == "45"
    assert ids(url) == list(range(45))
    before = tree(tmp_path)
    report, made = generate(url, post=lambda _: pytest.fail("run again"))
    assert (report.post, made) == ("before", [])
    for rows in (44, 46):
        with pytest.raises(ResumeError, match=r"went through post-processing|can grow, not shrink"):
            generate(url, rows=rows, post=summary)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("state", ["job", "dataset"])
def test_post_processing_that_was_not_run_yet_runs(state: str, tmp_path: Path) -> None:
    """D24: with all parts there, in a job or in a dataset, it runs, and no batch is made."""
    url = tmp_path / "d"
    generate(url, only=range(5) if state == "job" else None)
    report, made = generate(url, post=summary)
    assert (made, report.post, report.batches_now) == ([], "now", 0)
    assert (url / "_summary/rows.txt").read_text() == "45"
    assert ids(url) == list(range(45))


def test_post_processing_that_was_cut_off_is_ambiguous(tmp_path: Path) -> None:
    """D23: begun and not finished is refused, unless the caller says that it may run again."""
    url = tmp_path / "d"

    def fails(post: fstx.PostProcessing) -> None:
        post.stage("_half.txt", b"half")
        raise ZeroDivisionError("post")

    with pytest.raises(ZeroDivisionError) as caught:
        generate(url, post=fails)
    assert "finished units are kept" in caught.value.__notes__[-1]
    before = tree(tmp_path)
    for resume in ("always", "if_possible"):
        with pytest.raises(ResumeError, match="was begun and not finished"):
            generate(url, resume=resume, post=summary)
    assert tree(tmp_path) == before
    report, made = generate(url, post=summary, repeat_post=True)
    assert (made, report.post) == ([], "now")
    assert not (url / "_half.txt").exists()
    assert ids(url) == list(range(45))


def test_files_of_post_processing_do_not_disturb_readers(tmp_path: Path) -> None:
    """Protects readers of the directory: only names that they skip are taken, and not that of the entry."""

    def named(name: str) -> Callable[[fstx.PostProcessing], Any]:
        return lambda post: post.stage(name, b"x")

    for name in ("summary.json", "part-00000.parquet", "_metadata"):
        with pytest.raises(PathError, match="names that begin with"):
            generate(tmp_path / "d", post=named(name), repeat_post=True)


def test_another_fingerprint(tmp_path: Path) -> None:
    """D1, D2, D3: other data, schema or compression is never mixed in, in no mode; what is there stays."""
    url = tmp_path / "d"
    generate(url, only=[0, 1])
    other = {"fingerprint": {"seed": 8}}
    with pytest.raises(ResumeError, match="data seed was 7, is 8"):
        generate(url, resume="always", **other)
    for how in (
        {"compression": "none"},
        {"schema": pa.schema([("id", pa.int64()), ("word", pa.large_string())])},
    ):
        with pytest.raises(ResumeError, match="configured otherwise"):
            generate(url, resume="always", **how)
    _, made = generate(url, only=[0], resume="if_possible", **other)
    assert made == [0]
    assert sorted(job.units for job in fstx.jobs(url)) == [1, 2]
    _, made = generate(url, only=[0, 1], resume="never")
    assert made == [0, 1]
    generate(url)
    before = {p: d for p, d in tree(tmp_path).items() if p.startswith("d/")}
    with pytest.raises(ResumeError, match="data seed was 7, is 8"):
        generate(url, resume="always", **other)
    with pytest.raises(TargetExistsError, match="data seed was 7, is 8"):
        generate(url, **other)
    with pytest.raises(TargetExistsError, match="resume='never' begins anew"):
        generate(url, resume="never")
    assert {p: d for p, d in tree(tmp_path).items() if p.startswith("d/")} == before


def test_something_else_is_left_alone(tmp_path: Path) -> None:
    """D1: a directory that holds no dataset of ours is refused, and left as it is."""
    url = tmp_path / "d"
    url.mkdir()
    (url / "notes.txt").write_text("mine")
    with pytest.raises(TargetExistsError) as caught:
        generate(url)
    assert "holds no dataset of fstx.batches" in caught.value.__notes__[-1]
    (url / "_metadata").write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(ResumeError, match="_metadata can't be read"):
        generate(url)
    assert sorted(os.listdir(tmp_path)) == ["d"]


def test_a_run_that_ends_early_is_told(tmp_path: Path) -> None:
    """Protects from datasets that lack rows: leaving with batches to write raises, and keeps the others."""
    url = tmp_path / "d"
    with (
        pytest.raises(StateError, match="4 of 5 batches") as caught,
        fstx.batches(url, rows=45, **JOB) as job,
    ):
        job.write(job.plan[2], make(20, 30))
        with pytest.raises(StateError, match="written already"):
            job.write(job.plan[2], make(20, 30))
        with pytest.raises(UsageError, match="no batch of this dataset"):
            job.write(fstx.Batch(2, 20, 31), make(20, 31))
    assert "finished units are kept" in caught.value.__notes__[-1]
    _, made = generate(url)
    assert made == [0, 1, 3, 4]


def test_bad_arguments_are_refused_first(tmp_path: Path) -> None:
    """Protects from half-done work: each bad argument is named before anything is written."""
    bad: list[tuple[dict[str, Any], str]] = [
        ({"rows": -1}, "rows=-1"),
        ({"rows": 4.5}, r"rows=4\.5"),
        ({"rows_per_batch": 0}, "rows_per_batch=0"),
        ({"schema": {"id": "no such type"}}, "schema="),
        ({"compression": "rar"}, "compression='rar'"),
        ({"post": 3}, "post=3"),
        ({"resume": None}, "resume=None|fingerprint="),
        ({"fingerprint": None}, "needs fingerprint="),
        ({"durability": "much"}, "durability='much'"),
    ]
    for how, message in bad:
        with pytest.raises(UsageError, match=message):
            generate(tmp_path / "d", **how)
    assert os.listdir(tmp_path) == []


def test_batches_of_every_kind(tmp_path: Path) -> None:
    """Protects callers' data: each kind of table lands as the schema says; what doesn't fit is named."""
    table = pa.table(make(0, 10), schema=SCHEMA)
    kinds: list[Any] = [
        table,
        table.to_batches()[0],
        iter(table.to_batches(max_chunksize=3)),
        table.to_pandas(),
        table.to_pylist(),
        table.select(["word", "id"]),
        {"id": np.arange(10), "word": make(0, 10)["word"]},
    ]
    with fstx.batches(tmp_path / "d", rows=10 * len(kinds), **JOB) as job:
        for batch, data in zip(job.plan, kinds, strict=True):
            for wrong in (
                {"id": [1]},
                [{"id": 1, "other": 2}],
                [{"word": "x"}],
                {"id": ["a"], "word": ["b"]},
                pd.DataFrame({"id": [1]}),
                7,
            ):
                with pytest.raises(UsageError):
                    job.write(batch, wrong)
            assert job.write(batch, data) == 10
    found = pq.read_table(tmp_path / "d")
    assert found.schema.equals(SCHEMA)
    assert found["id"].to_pylist() == list(range(10)) * len(kinds)


def test_threads_write_batches(tmp_path: Path) -> None:
    """Protects parallel generation: batches from four threads are all there, in their places."""
    from concurrent.futures import ThreadPoolExecutor

    url = tmp_path / "d"
    with fstx.batches(url, rows=200, **JOB) as job, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda b: job.write(b, make(b.start, b.stop)), list(job)))
    assert ids(url) == list(range(200))
    assert job.report.rows_now == 200


def test_this_call_and_all_calls(tmp_path: Path) -> None:
    """D30: a report has what this call did beside what all calls did, on the way and at the end."""
    url = tmp_path / "d"
    generate(url, only=[0, 1])
    with fstx.batches(url, rows=45, **JOB) as job:
        for n, batch in enumerate(job):
            now = job.report
            assert (now.batches, now.batches_now) == (2 + n, n)
            assert (now.rows, now.rows_now) == (20 + 10 * n, 10 * n)
            job.write(batch, make(batch.start, batch.stop))
    end = job.report
    assert (end.batches, end.batches_now, end.rows, end.rows_now) == (5, 3, 45, 25)
    assert end.parts == tuple(f"part-{n:05d}.parquet" for n in range(5))
    assert end.snapshot is not None
    assert end.snapshot.paths == 6
    with fstx.batches(url, rows=50, **JOB) as job:
        job.write(job.plan[5], make(45, 50))
    assert (job.report.rows, job.report.rows_now) == (50, 5)


@pytest.mark.parametrize("place", PLACES)
def test_a_dataset_grows(place: str, tmp_path: Path) -> None:
    """D21: on each kind of storage more rows come by one commit; parts that were there stay as they are."""
    target = Target(place, tmp_path)
    how = {"storage_options": target.options}
    generate(target.url("d"), **how)
    before = logical(target.base, {})
    report, made = generate(target.url("d"), rows=58, resume="always", **how)
    assert (made, report.rows) == ([5, 6], 58)
    after = logical(target.base, {})
    assert sorted(set(after) - set(before)) == ["d/part-00005.parquet", "d/part-00006.parquet"]
    assert [p for p in before if after[p] != before[p]] == ["d/_metadata"]


@pytest.mark.parametrize("rows", [45, 58])
def test_a_kill_after_the_commit(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D22, D27: what was committed when the kill came is found, counted once, and its job is cleared."""
    url = tmp_path / "d"
    if rows > 45:
        generate(url)
    with monkeypatch.context() as patch:  # dies between the commit and the clearing
        patch.setattr(fstx.ResumableTransaction, "_clear", lambda tx: tx.depot.close())
        generate(url, rows=rows)
    assert len(fstx.jobs(url)) == 1
    report, made = generate(url, rows=rows)
    assert (made, report.rows, report.rows_now) == ([], rows, 0)
    assert fstx.jobs(url) == []
    assert os.listdir(tmp_path) == ["d"]
    report, made = generate(url, rows=70)
    assert ids(url) == list(range(70))


OTHER: dict[str, Any] = {"fingerprint": {"seed": 8}}


@pytest.mark.parametrize("place", PLACES)
def test_a_dataset_is_replaced(place: str, tmp_path: Path) -> None:
    """With `overwrite` one that was configured otherwise is replaced whole by the commit, not before."""
    target = Target(place, tmp_path)
    how = {"storage_options": target.options, "overwrite": True}
    generate(target.url("d"), **how)
    before = logical(target.base, {})
    assert generate(target.url("d"), **how)[1] == []  # it can be gone on with
    with pytest.raises(TargetExistsError, match="overwrite=True"):
        generate(target.url("d"), **OTHER, storage_options=target.options)
    generate(target.url("d"), rows=25, only=[1], **OTHER, **how)
    assert logical(target.base, {}) == before
    report, made = generate(target.url("d"), rows=25, resume="always", **OTHER, **how)
    assert (made, report.rows, report.rows_now) == ([0, 2], 25, 15)
    generate(target.url("new"), rows=25, **OTHER, storage_options=target.options)
    found = logical(target.base, {})
    assert {p: found[f"new/{p}"] for p in ("_metadata", "part-00000.parquet")} == {
        p: found[f"d/{p}"] for p in ("_metadata", "part-00000.parquet")
    }
    assert sorted(p[2:] for p in found if p.startswith("d/")) == [
        "_metadata",
        *[f"part-{n:05d}.parquet" for n in range(3)],
    ]
    assert fstx.jobs(target.url("d"), **target.options) == []


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ({"resume": "never"}, 5),
        ({"rows": 25}, 3),
        ({"rows_per_batch": 20}, 3),
        ({"rows": 65}, 2),
    ],
)
def test_what_overwrite_replaces(asked: dict[str, Any], made: int, tmp_path: Path) -> None:
    """A dataset that can be gone on with is gone on with; else, and with ``"never"``, all is made anew."""
    url = tmp_path / "d"
    generate(url)
    assert len(generate(url, overwrite=True, **asked)[1]) == made
    assert ids(url) == list(range(asked.get("rows", 45)))


def test_overwrite_is_for_datasets_of_batches(tmp_path: Path) -> None:
    """What `batches` did not write is never replaced."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_bytes(b"x")
    with pytest.raises(TargetExistsError, match="holds no dataset"):
        generate(tmp_path / "d", overwrite=True)
    assert tree(tmp_path) == {"d/mine": b"x"}
