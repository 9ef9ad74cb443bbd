# `make help` lists what there is. Every target sets up what it needs.

VENV := .venv
RUN := $(VENV)/bin/python
# Written when the environment is complete; older than setup.py or constraints.txt, it is brought up to date.
READY := $(VENV)/.ready
# Tried in this order; `make PYTHON=/path/to/python3.11` tries that one only.
PYTHON ?= python3.11 python3
# Words passed on: make test ARGS="-k fold", make demo ARGS="seed=1".
ARGS ?=

# The same in every shell: text is UTF-8, and the Spark of the environment is used, not another one of the machine.
export LC_ALL := C.UTF-8
export PYTHONUTF8 := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONHOME PYTHONPATH SPARK_HOME

# Stops make with one line, if there is one.
complain = $(if $(1),$(error $(1)))
ask_java = $(call complain,$(shell sh scripts/check_machine.sh java 2>&1))
ask_python = $(call complain,$(shell sh scripts/check_machine.sh python $(PYTHON) 2>&1 >/dev/null))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test lint format bench docs clean java

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | \
		while IFS='|' read -r target text; do printf '%-14s %s\n' "$$target" "$$text"; done

setup: $(READY)  ## make .venv with the tested versions (3 GB of downloads, once)

demo: java $(READY)  ## half a year of real purchases through the whole path, from the start
	rm -rf var/demo
	$(RUN) jobs/demo.py --config conf/demo.yaml $(ARGS)

test: java $(READY)  ## run the tests
	$(RUN) -m pytest $(ARGS)

lint: $(READY)  ## ruff, and mypy (strict on recsys/)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(READY)  ## let ruff correct and format the code
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: java $(READY)  ## measure the stream (under a minute)
	$(RUN) -m bench.speed.stream --quick $(ARGS)

docs: $(READY)  ## write docs/settings.md from the typed settings
	$(RUN) -m recsys.config.table docs/settings.md

clean:  ## remove the environment, caches and what the demo wrote
	rm -rf $(VENV) build dist recsys.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis var/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

java:
	@:$(ask_java)

$(READY): setup.py constraints.txt
	@:$(ask_python)
	@[ "`$(RUN) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null`" = 3.11 ] || \
		"`sh scripts/check_machine.sh python $(PYTHON)`" -m venv --clear $(VENV)
	@echo "Installing the tested versions into $(VENV): 3 GB of downloads and a few minutes the first time."
	@$(RUN) -m pip install --quiet -c constraints.txt -e '.[demo,dev,bench]'
	@touch $@
