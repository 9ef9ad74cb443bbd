"""What every job's command line shares: the arguments, and what a failure looks like from outside."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from tqdm.contrib.logging import logging_redirect_tqdm

from recsys.config import Settings, load_settings
from recsys.errors import RecsysError

DONE, BAD_INPUT = 0, 2


def run_job(job: Callable[[Settings], object], arguments: Sequence[str] | None = None) -> int:
    """Run a job as a command.

    Args:
        job: Takes the checked settings; its docstring is the command's help.
        arguments: Command-line words; those of the process when left out.

    Returns:
        Exit code: 0 done, 2 for bad settings or input (one line on the error stream). Anything else that goes wrong
        is raised, so that Python shows where it happened and exits with 1.
    """
    parser = argparse.ArgumentParser(description=job.__doc__)
    parser.add_argument("--config", metavar="FILE", help="settings in YAML; without it the defaults apply")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="settings that win over the file and the environment"
    )
    parsed = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("recsys").setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm():
            job(load_settings(parsed.config, parsed.overrides))
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    return DONE
