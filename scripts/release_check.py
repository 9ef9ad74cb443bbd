"""`make release-check`: builds the wheel and the sdist into dist/, and says in a line each what a release lacks."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from recsys.version import DELTA_TESTED, SPARK_TESTED, VERSION  # noqa: E402 - of this checkout

DIST = ROOT / "dist"
NOT_SHIPPED = {".venv", "bench", "notebooks", "tests", "var"}
PACKAGES = ("recsys", "recsys_jobs", "recsys_conf")
# Where a version may be quoted: the changelog speaks of earlier ones.
QUOTING = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "conf/**/*", "jobs/*.py", "notebooks/*.py")


def pins(constraints: str) -> dict[str, str]:
    """Tested version by package, as pip writes its name in lower case with hyphens."""
    found = re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def tested_lines(pinned: dict[str, str]) -> Iterator[str]:
    """What is wrong with the newest Spark and Delta of recsys/version.py."""
    for package, (_, newest) in {"pyspark": SPARK_TESTED, "delta-spark": DELTA_TESTED}.items():
        if pinned.get(package) != newest:
            yield (
                f"recsys/version.py names {package} {newest} as the newest tested one, constraints.txt pins "
                f"{pinned.get(package)}: make them equal"
            )


def quoted(name: str, text: str, pinned: dict[str, str]) -> Iterator[str]:
    """What is wrong with the versions that a file quotes, in Maven coordinates and names of wheels."""
    spark = pinned["pyspark"]
    line = ".".join(spark.split(".")[:2])
    right = {
        r"io\.delta:delta-spark_[\w.]+:[\w.-]*\w": f"io.delta:delta-spark_{line}_2.13:{pinned['delta-spark']}",
        r"org\.apache\.spark:spark-sql-kafka[\w.-]+:[\w.-]*\w": f"org.apache.spark:spark-sql-kafka-0-10_2.13:{spark}",
        r"recsys_stream-\d[\w.]*(?=-py3)": f"recsys_stream-{VERSION}",
    }
    for pattern, wanted in right.items():
        for found in sorted(set(re.findall(pattern, text)) - {wanted}):
            yield f"{name} quotes {found}: write {wanted}"


def changelog(text: str) -> Iterator[str]:
    """What is wrong with the changelog: its newest section has to be that of the version, with something in it."""
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    number, _, entries = sections[0].partition("\n") if sections else ("", "", "")
    title = number.strip()
    if not re.fullmatch(rf"\[{re.escape(VERSION)}\] - \d{{4}}-\d\d-\d\d", title):
        yield f"the first section of CHANGELOG.md is '{title}': name it '[{VERSION}] - ' and the date of the release"
    if "- " not in entries:
        yield "the first section of CHANGELOG.md is empty: say what the release changes"


def contents(names: Iterable[str]) -> Iterator[str]:
    """What is wrong with the files of a wheel: it holds the package, jobs and templates of the checkout, no others."""
    wanted = {file.relative_to(ROOT).as_posix() for file in (ROOT / "recsys").rglob("*.py")}
    wanted |= {"recsys/py.typed", "recsys/conf/log4j2.properties"}
    wanted |= {f"recsys/report/{file.name}" for file in (ROOT / "recsys" / "report").glob("*.html")}
    wanted |= {f"recsys_jobs/{file.name}" for file in (ROOT / "jobs").glob("*.py")}
    wanted |= {f"recsys_conf/{file.name}" for file in (ROOT / "conf").glob("*.yaml")}
    wanted |= {f"recsys_conf/monitoring/{file.name}" for file in (ROOT / "conf" / "monitoring").iterdir()}
    held = {name for name in names if not name.endswith("/")}
    own = {name for name in held if not name.split("/")[0].endswith(".dist-info")}
    for name in sorted(wanted - own):
        yield f"the wheel lacks {name}: add it to packages or package_data in setup.py"
    for name in sorted(own - wanted):
        yield f"the wheel holds {name}, which is not of the package: leave it out in setup.py, or remove it"
    if not any(name.endswith(".dist-info/METADATA") for name in held):
        yield "the wheel has no metadata: build it with pip, not by hand"


def built_version(kind: str, metadata: str) -> Iterator[str]:
    """What is wrong with the version that a built file says it is."""
    found = HeaderParser().parsestr(metadata)["Version"]
    if found != VERSION:
        yield f"the {kind} is version {found}, recsys/version.py says {VERSION}: setup.py has to take it from there"


def of_checkout() -> Iterator[str]:
    """What the files of the checkout lack for a release, before anything is built."""
    pinned = pins((ROOT / "constraints.txt").read_text("utf-8"))
    yield from tested_lines(pinned)
    for file in (file for pattern in QUOTING for file in sorted(ROOT.glob(pattern)) if file.is_file()):
        yield from quoted(file.relative_to(ROOT).as_posix(), file.read_text("utf-8"), pinned)


def of_dist() -> Iterator[str]:
    """Build the sdist, and the wheel from the sdist; what is wrong with them."""
    shutil.rmtree(DIST, ignore_errors=True)
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    built = _tool("the sdist cannot be built", "-c", build)
    if not built:
        (packed,) = DIST.glob("*.tar.gz")
        pip = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", str(packed))
        built = _tool("the wheel cannot be built from the sdist", *pip)
    for leftover in ROOT.glob("*.egg-info"):
        shutil.rmtree(leftover)
    if built:
        yield from built
        return
    (wheel,) = DIST.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        yield from contents(opened.namelist())
        metadata = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        yield from built_version("wheel", opened.read(metadata).decode())
    with tarfile.open(packed) as tar:
        names = tar.getnames()
        member = tar.extractfile(f"{names[0].split('/')[0]}/PKG-INFO")
        assert member is not None
        yield from built_version("sdist", member.read().decode())
    for name in sorted({name.split("/")[1] for name in names if "/" in name} & NOT_SHIPPED):
        yield f"the sdist holds {name}/: leave it out in MANIFEST.in"
    yield from _tool("twine check", "-m", "twine", "check", "--strict", str(wheel), str(packed))
    # W010: `recsys_conf` holds templates, and no Python.
    options = ("--no-config", "--ignore", "W010", "--toplevel", ",".join(PACKAGES))
    yield from _tool("check-wheel-contents", "-m", "check_wheel_contents", *options, str(wheel))


def _tool(name: str, *words: str) -> list[str]:
    """Run Python; if that fails, the line to show for it."""
    plain = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=plain, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    printed = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    told = [line for line in printed if re.search(r"error|warning|W\d{3}|No module", line, re.IGNORECASE)]
    return [f"{name}: {'; '.join(told or printed[-1:])}: mend it in setup.py"]


def main() -> int:
    """Print what is wrong, one line each; returns the exit code."""
    wrong = [*of_checkout(), *changelog((ROOT / "CHANGELOG.md").read_text("utf-8")), *of_dist()]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    if not wrong:
        print(f"{VERSION} is ready: {', '.join(sorted(file.name for file in DIST.iterdir()))} in dist/")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
