"""Files nobody wants to receive: what they hold ends in quarantine, or the stream stops with one clear line."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.tables import log
from recsys.tables.delta import Tables
from recsys.tables.failures import explain_failure
from tests.tables.helpers import Drained, drain, event, write_lines

Factory = Callable[..., Settings]


def stopped(spark: SparkSession, settings: Settings) -> str:
    """The one line with which a stream over the source stops."""
    with pytest.raises(StreamingQueryException) as caught:
        drain(spark, settings)
    explained = explain_failure(caught.value)
    assert explained is not None, str(caught.value)
    assert "\n" not in str(explained)
    return str(explained)


def test_lines_that_are_no_json_objects(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    good = json.dumps(event())
    bad = [
        good[:-5],
        f"{good} {good}",
        f"{good}, {good}",
        f"[{good}]",
        "null",
        "17",
        '"text"',
        "{",
        "}",
        f"{good} and more",
        '{"user_id": ' + "[" * 2000 + "]" * 2000 + "}",
    ]
    write_lines(tmp_path / "events/1.json", good, "", "   ", *bad)
    drained = drain(spark, settings(tmp_path))
    assert drained.pairs == [("u", "i", 1.0, 1)]
    assert drained.reasons == [["not JSON"]] * len(bad)
    assert sorted(record["raw"] for record in drained.rejected) == sorted(bad)


def test_numbers_that_json_does_not_know(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    values = ["NaN", "-Infinity", "1e999", '"NaN"']
    write_lines(tmp_path / "events/1.json", *(json.dumps(event(value=0))[:-2] + f"{value}}}" for value in values))
    assert drain(spark, settings(tmp_path)).reasons == [["non-finite value"]] * len(values)


def test_half_written_empty_binary_and_packed_json_files(
    spark: SparkSession, settings: Factory, tmp_path: Path
) -> None:
    write_lines(tmp_path / "events/half.json", event(user_id="a"))
    with (tmp_path / "events/half.json").open("a") as file:
        file.write(json.dumps(event(user_id="b"))[:30])
    (tmp_path / "events/empty.json").touch()
    (tmp_path / "events/binary.json").write_bytes(
        bytes(range(128, 256)) + b"\0\0" + os.urandom(500).replace(b"\n", b"")
    )
    (tmp_path / "events/packed.json.gz").write_bytes(gzip.compress(json.dumps(event(user_id="c")).encode()))
    drained = drain(spark, settings(tmp_path))
    assert [pair[0] for pair in drained.pairs] == ["a", "c"]
    assert len(drained.rejected) >= 2
    assert {reason for reasons in drained.reasons for reason in reasons} == {"not JSON"}


def test_a_hundred_thousand_columns(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    wide = {**event(user_id="wide"), **{f"column_{number}": number for number in range(100_000)}}
    write_lines(tmp_path / "events/1.json", wide)
    assert drain(spark, settings(tmp_path)).pairs == [("wide", "i", 1.0, 1)]


def csv_source(settings: Factory, tmp_path: Path, **files: str | bytes) -> Settings:
    for name, content in files.items():
        (tmp_path / "events").mkdir(exist_ok=True)
        (tmp_path / f"events/{name}.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return settings(tmp_path, source={"format": "csv", "columns": {"value": None, "event_id": None}})


CSV_HEADER = "user_id,item_id,event_type,event_time,comment\n"
CSV_ROW = "u,i,view,2024-05-01,fine\n"


def test_csv_rows_that_do_not_fit_the_header(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    wide = "u,i,view,2024-05-01," + ",".join("x" * 100_000)
    quoted = '"say ""hi"", /\\",i,view,2024-05-01,"a,b"\n'
    bad = ["u,i", "u,i,view,2024-05-01,a,b", wide]
    content = CSV_HEADER + CSV_ROW + quoted + "".join(f"{row}\n" for row in bad)
    drained = drain(spark, csv_source(settings, tmp_path, rows=content))
    assert [pair[0] for pair in drained.pairs] == ['say "hi", /\\', "u"]
    assert drained.reasons == [["malformed record"]] * 3
    assert sorted(record["raw"] for record in drained.rejected) == sorted(bad)


def test_csv_file_with_another_header_stops_the_stream_until_it_is_mended(
    spark: SparkSession, settings: Factory, tmp_path: Path
) -> None:
    configured = csv_source(settings, tmp_path, a=CSV_HEADER + CSV_ROW)
    drain(spark, configured)
    csv_source(settings, tmp_path, b="item_id,user_id,event_type,event_time,comment\n" + CSV_ROW)
    line = stopped(spark, configured)
    assert "b.csv" in line
    assert "header" in line
    csv_source(settings, tmp_path, b=CSV_HEADER + CSV_ROW)
    assert drain(spark, configured).pairs == [("u", "i", 1.0, 1)]


def packed_json() -> bytes:
    return gzip.compress("".join(json.dumps(event(user_id=str(number))) + "\n" for number in range(2000)).encode())


def parquet_file() -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist([event(user_id=str(number)) for number in range(2000)]), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("remedy", ["good copy", "empty file"])
@pytest.mark.parametrize(
    ("kind", "name", "content"), [("json", "b.json.gz", packed_json()), ("parquet", "b.parquet", parquet_file())]
)
def test_a_damaged_file_stops_the_stream_until_it_is_replaced(
    spark: SparkSession, settings: Factory, tmp_path: Path, kind: str, name: str, content: bytes, remedy: str
) -> None:
    configured = settings(tmp_path, source={"format": kind})
    first = event(user_id="first")
    write_lines(tmp_path / "events/a.json", first)
    if kind == "parquet":
        (tmp_path / "events/a.json").unlink()
        pyarrow.parquet.write_table(pa.Table.from_pylist([first]), tmp_path / "events/a.parquet")
    assert drain(spark, configured).records == 1
    damaged = tmp_path / "events" / name
    damaged.write_bytes(content[: len(content) // 2])
    for _ in range(2):
        line = stopped(spark, configured)
        assert name in line
        assert "replace it with a good copy, or with an empty file" in line
    damaged.write_bytes(content if remedy == "good copy" else b"")
    write_lines(tmp_path / "events/unrelated.txt")
    assert drain(spark, configured).records == (2000 if remedy == "good copy" else 0)


def strange_ids() -> list[str]:
    return [
        "'; DROP TABLE x; --",
        'a"b',
        "a/b\\c",
        "a\nb\tc",
        "🍵 é 茶",
        "x" * 1_024,
        " spaces ",
        "null",
        "\u0000",
        "a`b",
    ]


def test_ids_of_any_kind_pass_through_the_log_unchanged(
    spark: SparkSession, settings: Factory, tables: Tables, tmp_path: Path
) -> None:
    ids = strange_ids()
    write_lines(tmp_path / "events/1.json", *(event(user_id=text, item_id=text, event_id=text) for text in ids))
    drained: Drained = drain(spark, settings(tmp_path))
    log.append(tables, drained.rows[0], StepId(0, 0), "test")
    stored = log.read_batch(tables, StepId(0, 0))
    assert stored["user_id"].to_pylist() == sorted(ids, key=str.encode)
    assert stored["item_id"].to_pylist() == stored["user_id"].to_pylist()


def test_ids_that_are_no_text_are_set_aside(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    (tmp_path / "lines/events").mkdir(parents=True)
    lines = [json.dumps(event(user_id=f"J{letter}rgen"), ensure_ascii=False).encode("latin-1") for letter in "üöu"]
    (tmp_path / "lines/events/a.json").write_bytes(b"\n".join(lines))
    drained = drain(spark, settings(tmp_path / "lines"))
    assert [pair[0] for pair in drained.pairs] == ["Jurgen"]
    assert drained.reasons == [["user_id is not UTF-8"]] * 2, "and are not taken for one user"
    schema = pa.schema([("user_id", pa.binary()), *[(name, pa.string()) for name in list(event())[1:]]])
    rows = [event(user_id=b"\xff\xfe"), event(user_id="é".encode())]
    (tmp_path / "events").mkdir()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "events/a.parquet")
    drained = drain(spark, settings(tmp_path, source={"format": "parquet"}))
    assert [pair[0] for pair in drained.pairs] == ["é"]
    assert drained.reasons == [["user_id is not UTF-8"]]


def test_half_a_character_in_an_id_is_no_question_mark(spark: SparkSession, settings: Factory, tmp_path: Path) -> None:
    """Java writes `?` for it, so different ids, also those of events, would become the same."""
    good = ["what?", "\U0001f600?", "a\\ud800?"]
    halves = ["\ud800", "\udfff", "x\ud83d?", "\\\ud83dx", "\udc00\ud800"]
    write_lines(
        tmp_path / "events/1.json",
        *(json.dumps(event(item_id=text, event_id=text)) for text in good),
        *(json.dumps(event(item_id=text)) for text in halves),
        *(json.dumps(event(user_id=f"u{number}", event_id=text)) for number, text in enumerate(halves)),
    )
    drained = drain(spark, settings(tmp_path))
    assert sorted(pair[1] for pair in drained.pairs) == sorted(good)
    reasons = [["event_id is not UTF-8"]] * len(halves) + [["item_id is not UTF-8"]] * len(halves)
    assert sorted(drained.reasons) == reasons
