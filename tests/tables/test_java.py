import os
import time
from pathlib import Path

import pytest

from recsys.tables import java


@pytest.fixture(autouse=True)
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where archives are kept; Java and Spark are files that are as good as any."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    binary = tmp_path / "java" / "bin" / "java"
    binary.parent.mkdir(parents=True)
    binary.touch(mode=0o755)
    monkeypatch.setenv("JAVA_HOME", str(binary.parents[1]))
    return tmp_path / "cache" / "recsys-stream" / "java-classes"


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    file = tmp_path / "delta.jar"
    file.touch()
    return file


def written_to(jar: Path) -> Path:
    """The archive that a process would write; it fails if one would be mapped instead."""
    (option,) = [one for one in java.archive_options([str(jar)]) if "Archive" in one]
    name, _, path = option.strip('"').partition("=")
    assert name == "-XX:ArchiveClassesAtExit"
    return Path(path)


def test_the_first_process_writes_an_archive_and_later_ones_map_it(jar: Path) -> None:
    archive = written_to(jar)
    archive.write_bytes(b"magic")
    assert java.archive_options([str(jar)]) == [f'"-XX:SharedArchiveFile={archive}"']


def test_what_a_dying_process_has_left_is_not_mapped(jar: Path) -> None:
    archive = written_to(jar)
    archive.write_bytes(bytes(8))
    assert written_to(jar) == archive


def test_of_archives_that_were_written_side_by_side_one_stays(jar: Path, archives: Path) -> None:
    archive = written_to(jar)
    for name in ("1", "2"):
        archive.with_name(f"{name}.jsa").write_bytes(b"magic")
    (option,) = java.archive_options([str(jar)])
    assert [str(file) for file in archives.glob("*/*.jsa")] == [option.strip('"').partition("=")[2]]


def test_another_jar_makes_another_archive_and_unused_ones_go(jar: Path, archives: Path) -> None:
    old = written_to(jar)
    old.write_bytes(b"magic")
    month_ago = time.time() - 31 * 86_400
    os.utime(old.parent, (month_ago, month_ago))
    jar.write_text("another build")
    new = written_to(jar)
    assert new.parent != old.parent
    assert list(archives.iterdir()) == [new.parent]


def test_another_class_path_makes_another_archive(jar: Path) -> None:
    plain = written_to(jar)
    plain.write_bytes(b"magic")
    (option,) = [one for one in java.archive_options([str(jar)], "kafka.jar") if "Archive" in one]
    assert "-XX:ArchiveClassesAtExit" in option
    assert str(plain.parent) not in option


def test_without_java_or_a_place_for_archives_there_are_no_options(
    jar: Path, archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.parent.mkdir(parents=True)
    archives.write_text("a file, so there can be no folder below it")
    assert java.archive_options([str(jar)]) == []
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert java.archive_options([str(jar)]) == []
