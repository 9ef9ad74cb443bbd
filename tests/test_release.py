"""What `make release-check` finds before it builds anything, and that this checkout has none of it."""

import zipfile
from pathlib import Path

import pytest

from recsys.version import VERSION
from scripts import release_check
from tests.wheel import build

PINNED = {"pyspark": "4.2.0", "delta-spark": "4.4.0"}


def test_versions_of_the_checkout_are_one_and_the_same() -> None:
    assert list(release_check.of_checkout()) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("--packages io.delta:delta-spark_4.1_2.13:4.4.0 x", "io.delta:delta-spark_4.2_2.13:4.4.0"),
        ("`io.delta:delta-spark_4.2_2.13:4.3.1`.", "io.delta:delta-spark_4.2_2.13:4.4.0"),
        ("org.apache.spark:spark-sql-kafka-0-10_2.13:4.1.1.", "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"),
        ("dist/recsys_stream-0.0.9-py3-none-any.whl", f"recsys_stream-{VERSION}"),
    ],
)
def test_a_version_that_is_quoted_otherwise_is_found(text: str, wanted: str) -> None:
    (line,) = release_check.quoted("docs/a.md", text, PINNED)
    assert line.startswith("docs/a.md quotes ")
    assert line.endswith(f": write {wanted}")


def test_a_pin_beyond_the_tested_line_is_found() -> None:
    newest = {"pyspark": release_check.SPARK_TESTED[1], "delta-spark": release_check.DELTA_TESTED[1]}
    assert list(release_check.tested_lines(newest)) == []
    (line,) = release_check.tested_lines(newest | {"pyspark": "4.9.0"})
    assert "constraints.txt pins 4.9.0" in line


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (f"# Changelog\n\n## [{VERSION}] - 2026-12-01\n\n- All.\n", []),
        ("# Changelog\n", ["the first section of CHANGELOG.md is ''", "is empty"]),
        ("## [Unreleased]\n\n- All.\n", ["the first section of CHANGELOG.md is '[Unreleased]'"]),
        (f"## [{VERSION}] - 2026-12-01\n\n## [0.0.9] - 2025-12-01\n\n- All.\n", ["is empty"]),
    ],
)
def test_the_changelog_begins_with_the_version(text: str, lacks: list[str]) -> None:
    found = list(release_check.changelog(text))
    assert len(found) == len(lacks)
    assert all(words in line for words, line in zip(lacks, found, strict=True))


@pytest.mark.process
@pytest.mark.heavy
def test_the_wheel_holds_what_it_must(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(tmp_path)) as wheel:
        names = wheel.namelist()
    assert list(release_check.contents(names)) == []
    odd = [name for name in names if name not in ("recsys/py.typed", "recsys_jobs/serve.py")] + ["tests/test_a.py"]
    assert [line.partition(",")[0].partition(":")[0] for line in release_check.contents(odd)] == [
        "the wheel lacks recsys/py.typed",
        "the wheel lacks recsys_jobs/serve.py",
        "the wheel holds tests/test_a.py",
    ]


def test_a_version_that_was_built_otherwise_is_found() -> None:
    assert list(release_check.built_version("sdist", f"Metadata-Version: 2.4\nVersion: {VERSION}\n\nText")) == []
    (line,) = release_check.built_version("wheel", "Metadata-Version: 2.4\nVersion: 9.9\n\nVersion: 1")
    assert line.startswith("the wheel is version 9.9, recsys/version.py says ")
