# `make help` lists what there is. Every target sets up what it needs.

VENV := .venv
RUN := $(VENV)/bin/python
# There only while the environment is whole; older than what it was made from, it is brought up to date.
READY := $(VENV)/.ready
# Tried in this order; `make PYTHON=/path/to/python3.11` tries that one only.
PYTHON ?= python3.11 python3
INSTALL := $(RUN) scripts/uv.py pip install --compile-bytecode --python $(RUN) -c constraints.txt -b constraints.txt \
	-e '.[demo,dev,bench,docs,release]'
GET_UV := $(RUN) -m pip install --quiet -c constraints.txt uv
# Words passed on: make test ARGS="-k totals", make demo ARGS="seed=1".
ARGS ?=
# Two shards side by side, each file on one of them; more of them would share two cores and take more memory.
PYTEST := OMP_WAIT_POLICY=passive $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# What the fast loop leaves out: whatever starts a JVM, a server or a process, or learns for long.
SLOW := spark or mlflow or process or encoder or bench or docs or heavy

# The same in every shell: text is UTF-8, and the Spark of the environment is used, not another one of the machine.
export LC_ALL := C.UTF-8
export PYTHONUTF8 := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1
unexport PYTHONHOME PYTHONPATH SPARK_HOME

# Stops make with one line, if there is one.
complain = $(if $(1),$(error $(1)))
ask_java = $(call complain,$(shell sh scripts/check_machine.sh java 2>&1))
ask_python = $(call complain,$(shell sh scripts/check_machine.sh python $(PYTHON) 2>&1 >/dev/null))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo demo-kafka test-fast test test-all fire lint format wheel release-check docs docs-serve settings bench clean java

##@ Start here
help:  ## list the targets
	@sed -n -e 's/^##@ \(.*\)/\n\1/p' -e 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | \
		while IFS='|' read -r target text; do printf "$${text:+%-19s }%s\n" "$$target" $${text:+"$$text"}; done

setup: $(READY)  ## make .venv with the tested versions (3 GB of downloads, once)
	@echo "The environment $(VENV) is up to date."

demo: java $(READY)  ## half a year of real purchases through the whole path, from the start
	rm -rf var/demo
	$(RUN) jobs/demo.py --config conf/demo.yaml $(ARGS)

demo-kafka: java $(READY)  ## the same through a Kafka broker, which comes from Maven and ends with the demo
	rm -rf var/demo_kafka
	$(RUN) -m scripts.kafka_broker purchases $(RUN) jobs/demo.py --config conf/demo_kafka.yaml $(ARGS)

##@ Checks
test-fast: $(READY)  ## the tests that start no Spark, MLflow, encoder or process: side by side
	$(PYTEST) -m "not ($(SLOW))" $(ARGS)

test: java $(READY)  ## all tests but the heaviest
	$(PYTEST) -m "not heavy" $(ARGS)

test-all: java $(READY)  ## all tests
	$(PYTEST) $(ARGS)

fire: java $(READY)  ## kill every job at every durable effect, and compare (hours; ARGS=--quick: minutes)
	$(RUN) -m tests.fire $(ARGS)

lint: $(READY)  ## ruff, and mypy (strict on recsys/ and jobs/)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(READY)  ## let ruff correct and format the code
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

wheel: $(READY)  ## build the package with its jobs into dist/, for clusters
	rm -rf build/lib dist
	$(RUN) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

release-check: $(READY)  ## build wheel and sdist into dist/; what a release lacks, in a line each
	$(RUN) scripts/release_check.py

##@ Docs
docs: $(READY)  ## build the site into build/site; a dead link or reference fails
	$(RUN) -m mkdocs build $(ARGS)

docs-serve: $(READY)  ## show the site on this machine, and again after every change
	$(RUN) -m mkdocs serve $(ARGS)

settings: $(READY)  ## write docs/settings.md from the typed settings
	$(RUN) -m recsys.config.table docs/settings.md

##@ Benches
bench: java $(READY)  ## measure the stream (under a minute)
	$(RUN) -m bench.speed.stream --quick $(ARGS)

##@ Clean
clean:  ## remove the environment, caches, the site and what the demo wrote
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis var/demo var/demo_kafka
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

java:
	@:$(ask_java)

# What cannot be resolved changes nothing. Cut off while it installs, it leaves no $(READY), and the next time begins
# with an empty environment, which uv fills from what was downloaded already.
$(READY): setup.py recsys/version.py constraints.txt scripts/uv.py
	@:$(ask_python)
	@if [ -e $@ ] && [ "`$(RUN) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null`" = 3.11 ]; then \
		echo "Bringing $(VENV) up to date."; \
		$(GET_UV) && $(INSTALL) --quiet --dry-run || exit; \
	else \
		echo "Installing the tested versions into $(VENV): 3 GB of downloads the first time, then a minute of compiling."; \
		"`sh scripts/check_machine.sh python $(PYTHON)`" -m venv --clear $(VENV) && $(GET_UV) || exit; \
	fi; \
	rm -f $@; \
	$(INSTALL) && $(RUN) scripts/uv.py pip check --quiet --python $(RUN) && touch $@
