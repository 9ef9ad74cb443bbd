"""Jars of servers that tests start, from Maven, through the Ivy that pyspark brings."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pyspark
from filelock import FileLock

from recsys.tables.jars import cache_folder


def jars(name: str, resolved: Mapping[str, str]) -> Path:
    """The folder with the jars of packages, in the cache of the user; the first call downloads them.

    Args:
        name: of the folder; it has the versions.
        resolved: what to leave out, by what to download together.
    """
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "servers.lock"):
        if not (cache / name).exists():
            with tempfile.TemporaryDirectory(dir=cache) as hidden:
                for packages, without in resolved.items():
                    _resolve(packages, without, Path(hidden))
                (Path(hidden) / "jars").rename(cache / name)
    return cache / name


def java() -> str:
    """The program that Spark would start, too."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=os.path.join(home, "bin") if home else None) or "java"


def _resolve(packages: str, without: str, folder: Path) -> None:
    """Download packages, and what they need, into `jars` in a folder."""
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    settings = {"spark.jars.packages": packages, "spark.jars.excludes": without, "spark.jars.ivy": str(folder)}
    command = [str(submit), "--master", "local[1]"]
    command += [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
    # Any class with a `main` that does little will do, once the packages are there.
    command += ["--class", "org.apache.hadoop.util.VersionInfo", "spark-internal"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{packages} did not come from Maven: {done.stderr[-3000:]}")
