"""The bench of hostile records: what it writes is counted right, and the stream accounts for all of it."""

import codecs
import json
import random
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from bench.reliability import fuzz, mutations


@pytest.mark.parametrize(
    ("content", "records", "blank"),
    [
        (b"", 0, 0),
        (b"{}", 1, 0),
        (b"{}\n", 1, 0),
        (b"{}\r\n{}\r{}\n\r\n", 3, 1),
        (b"\n\r \t\n\x00\n\xff", 2, 3),
        (codecs.BOM_UTF8 + b"\n" + codecs.BOM_UTF8 + b"\n", 1, 1),
        ("\u2028\x85\n".encode(), 1, 0),
    ],
)
def test_records_and_blank_lines_are_counted_by_line(content: bytes, records: int, blank: int) -> None:
    assert mutations.count_records(content) == (records, blank)


def test_the_same_seed_gives_the_same_records_in_any_ranges() -> None:
    whole = list(mutations.hostile(range(300), seed=1))
    assert whole == [*mutations.hostile(range(100), seed=1), *mutations.hostile(range(100, 300), seed=1)]
    assert whole != list(mutations.hostile(range(300), seed=2))
    assert {name for name, _ in whole} == mutations.MUTATIONS.keys()


@pytest.mark.parametrize("name", sorted(mutations.MUTATIONS.keys() - {"untouched", "repeated"}))
def test_a_mutation_leaves_no_record_as_it_came(name: str) -> None:
    draw = random.Random(0)
    for number in range(200):
        record = mutations.real_looking(number, draw)
        line = mutations.MUTATIONS[name](record, draw)
        assert line != json.dumps(record).encode()
        assert mutations.UNTOUCHED.encode() not in line


def test_every_hostile_record_is_accounted_for(spark: SparkSession, tmp_path: Path) -> None:
    written, outcome = fuzz.run(spark, tmp_path, lambda numbers: mutations.hostile(numbers, seed=0), 1_500)
    assert outcome.crash is None
    assert outcome.unaccounted(written) == 0
    assert min(written.blank, written.untouched, outcome.events, outcome.duplicates) > 0
    assert {"not JSON", "user_id is too long", "unparsable event_time"} <= outcome.reasons.keys()


def test_a_record_that_is_nowhere_is_noticed() -> None:
    written = fuzz.Written(records=10, blank=0, untouched=4)
    found = {"crash": None, "duplicates": 2, "reasons": {}, "seconds": 1.0}
    assert fuzz.Fate(events=5, quarantined=3, untouched=4, **found).unaccounted(written) == 0
    assert fuzz.Fate(events=5, quarantined=2, untouched=4, **found).unaccounted(written) == 1
    assert fuzz.Fate(events=5, quarantined=3, untouched=3, **found).unaccounted(written) == 1
