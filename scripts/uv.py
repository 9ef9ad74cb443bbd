"""Runs the uv of this environment with the index, certificates and proxy that pip is configured with here.

uv reads neither pip.conf nor pip's variables. What uv's own variables say goes first.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# pip's option -> the variable that says the same to uv, and what stands between several values there.
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", ""),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "timeout": ("UV_HTTP_TIMEOUT", ""),
    "no-index": ("UV_NO_INDEX", ""),
    "client-cert": ("SSL_CLIENT_CERT", ""),
    "cert": ("SSL_CERT_FILE", ""),
    "proxy": ("ALL_PROXY", ""),
}


def pip_options(listing: str) -> dict[str, str]:
    """What `pip config list` says, by option; of one that is said twice, what pip itself goes by.

    Files come first, then the variables of the environment, which win; in each, `install` wins over `global`.
    """
    options: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        rank = {"global": 0, "install": 1, ":env:": 2}.get(section)
        if rank is not None and rank >= options.get(option, (0, ""))[0]:
            options[option] = (rank, ast.literal_eval(value))
    return {option: value for option, (_, value) in options.items()}


def uv_variables(options: Mapping[str, str]) -> dict[str, str]:
    """The same for uv, which stops at a folder of wheels that is not there, where pip goes on."""
    variables = {}
    for option, (variable, between) in VARIABLES.items():
        words = options.get(option, "").split()
        if option == "find-links":
            words = [word for word in words if "://" in word or Path(word).is_dir()]
        if words:
            variables[variable] = between.join(words) if between else options[option].strip()
    return variables


def main() -> None:
    """Becomes uv."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    uv = Path(sys.executable).with_name("uv")
    environment = uv_variables(pip_options(listing)) | os.environ
    os.execve(uv, [str(uv), *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
