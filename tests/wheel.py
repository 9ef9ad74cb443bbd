"""Builds the wheel of the checkout, and runs programs as a machine without the checkout would."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What the wheel requires is there already. An editable install of this checkout is not found in such a path.
REQUIRED = {"PYTHONPATH": sysconfig.get_path("purelib")}


def run(*command: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which has to be the exit code.

    It does not run in the checkout, which Python would find first.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=os.sep, check=False)
    assert done.returncode == code, f"{done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done


def build(folder: Path) -> Path:
    """Build the wheel in a folder, from a copy, so that the checkout gets no files."""
    source, wheels = folder / "source", folder / "wheels"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("recsys", "jobs", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source)
    (wheel,) = wheels.iterdir()
    return wheel


def environment(folder: Path) -> Path:
    """Python of a new environment that has nothing installed."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    return folder / "bin" / "python"
