"""The command `recsys`, which an installed wheel has: its jobs, and templates of their settings."""

import argparse
import importlib.util
import pkgutil
import runpy
import sys
from pathlib import Path

# The folders `jobs` and `conf` of a checkout, under the names that they have in a wheel.
JOBS, TEMPLATES = "recsys_jobs", "recsys_conf"


def main() -> None:
    """Run a job, `recsys stream-update --config my.yaml`, or print a template, `recsys template local > my.yaml`.

    The job's own arguments, help and exit code are those of `python jobs/NAME.py`.
    """
    parser = argparse.ArgumentParser(
        prog="recsys",
        description="Jobs of a recommender that learns from every micro-batch.",
        epilog="recsys JOB --help explains a job; recsys template NAME prints a template of the settings",
    )
    folders = {name: _folder(name) for name in (JOBS, TEMPLATES)}
    jobs = {name.replace("_", "-"): name for _, name, _ in pkgutil.iter_modules([str(folders[JOBS])])}
    templates = {file.stem: file for file in sorted(folders[TEMPLATES].glob("*.yaml"))}
    parser.add_argument("job", choices=[*jobs, "template"], metavar="JOB", help=", ".join([*jobs, "template"]))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="those of the job")
    given = parser.parse_args()
    if given.job == "template":
        template = argparse.ArgumentParser(prog="recsys template", description="Print a template of the settings.")
        template.add_argument("name", choices=list(templates))
        sys.stdout.write(templates[template.parse_args(given.arguments).name].read_text("utf-8"))
        return
    sys.argv = [f"recsys {given.job}", *given.arguments]
    try:
        runpy.run_module(f"{JOBS}.{jobs[given.job]}", run_name="__main__")
    except SystemExit as ended:
        # Databricks calls this function in a notebook's Python, where an exit with 0 is a failed task, too.
        if ended.code:
            raise


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("error: the jobs are not installed: pip install recsys-stream, or run python jobs/NAME.py")
    return Path(next(iter(spec.submodule_search_locations)))
