"""The command line that all jobs share: arguments, help, and exit codes."""

import argparse
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from recsys.config import load_settings
from recsys.config.table import default_weights, described_settings
from recsys.errors import InputError, OutsideDownError, RecsysError, is_forbidden, is_outage
from recsys.logs import configure
from recsys.memory import use_one_allocator

logger = logging.getLogger(__name__)

DONE, FAULT, BAD_INPUT, TRY_AGAIN = 0, 1, 2, 75

_WIDTH = 100
_LAST_WORDS = """\
all settings: docs/settings.md. A YAML file (--config) overrides the defaults, environment variables
  (RECSYS__STORAGE__ROOT=/data sets storage.root) override the file, and key.sub=value overrides both.
exit codes: 0 done; 2 bad configuration or input; 75 something outside is down or the feed is
  broken, try again; 1 anything else."""


def run_job(
    job: Callable[..., object],
    arguments: Sequence[str] | None = None,
    examples: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> int:
    """Run a job as a command.

    Args:
        job: takes the validated settings, and `options` by keyword; its docstring begins the help.
        arguments: command-line arguments; None for those of the process.
        examples: for the help: arguments by purpose.
        settings: for the help: keys of the settings that matter most; `weights` is one key.
        options: arguments of this job that are no settings, by name, as `argparse` takes them.

    Returns:
        Exit code: 0 done, 2 for bad settings or input, 75 if something outside is down, such as a source, the storage
        or MLflow, if the feed is broken, or if another job writes the tables (all with one line on stderr). Any other
        exception is a fault: it is raised, so that Python shows where it happened and exits with 1; where the log is
        JSON, it is logged, and the code is 1.
    """
    installed = sys.argv[0].startswith("recsys ")
    program = sys.argv[0] if installed else f"python jobs/{Path(sys.argv[0]).name}"
    parser = argparse.ArgumentParser(
        prog=program,
        description=textwrap.fill(" ".join((job.__doc__ or "").split()), _WIDTH),
        epilog="\n".join([*_examples(program, examples or {}), *_settings(settings), _LAST_WORDS]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [parser.add_argument(name, **how).dest for name, how in (options or {}).items()]
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        help="settings in YAML; the defaults apply without it. Given again, a later file overrides those before",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="settings that override the file and the environment"
    )
    parsed = parser.parse_intermixed_args(arguments)
    use_one_allocator()
    in_json = False
    try:
        loaded = load_settings(parsed.config, parsed.overrides)
        configure(loaded.logging.format)
        in_json = loaded.logging.format == "json"
        with logging_redirect_tqdm():
            job(loaded, **{name: getattr(parsed, name) for name in names})
    except Exception as error:
        explained = _explained(error)
        if explained is None and in_json:
            logger.critical("a fault of the program", exc_info=True)
            return FAULT
        if explained is None:
            raise
        if in_json:
            logger.error("%s", explained)
        else:
            print(f"error: {explained}", file=sys.stderr)
        return TRY_AGAIN if isinstance(explained, OutsideDownError) else BAD_INPUT
    return DONE


def _explained(error: Exception) -> RecsysError | None:
    """The error for people, or None for a fault of the program."""
    if isinstance(error, RecsysError):
        return error
    if isinstance(error, OSError):
        text = " ".join(str(error).split())
        if is_forbidden(error):
            return InputError(f"{text}: let the user that runs the job read and write there, then start again")
        return OutsideDownError(f"{text}: start again once that is mended") if is_outage(error) else None
    if "pyspark" not in sys.modules:
        return None
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    from recsys.tables.failures import explain_failure

    return explain_failure(error) if isinstance(error, PySparkException | Py4JJavaError) else None


def _examples(program: str, examples: Mapping[str, str]) -> Iterator[str]:
    if examples:
        yield "examples:"
    for purpose, words in examples.items():
        yield f"  # {purpose}\n  {program} {words}\n"


def _settings(keys: Sequence[str]) -> Iterator[str]:
    """Type, default and description of the keys.

    Raises:
        KeyError: there is no such setting.
    """
    described = {setting.key: setting for setting in described_settings()}
    if keys:
        yield "settings that matter most here:"
    for key in keys:
        setting = described[key]
        default = default_weights() if key == "weights" else setting.default
        yield f"  {key}  ({setting.kind}; default: {default})".replace("`", "")
        yield textwrap.fill(setting.meaning.replace("`", ""), _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    if keys:
        yield ""
