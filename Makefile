# make train [ARGS="key=value ..."]   set up and train          make test       set up and test
# make evaluate ARGS="checkpoint=..."                            make test-all   the longer proofs too
# make setup   the set-up alone       make lint   ruff and basedpyright       make lock   pin anew
# make soak   half an hour of kills and resumes, compared with a run that was left alone
# make learning   what recipes, corrections, networks and missions are worth, some hours: docs/results.md
# make rivals   against cogames train and the seed notebook, with the same minutes
# make benchmark   speed and memory against the seed's loop and cogames train, and how they scale
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
# The first Python 3.12 there is: pyenv reads .python-version, so its `python` may be one.
FIND_PYTHON = for candidate in $$PYTHON3 python3.12 python3 python; do \
	"$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null && echo "$$candidate" && break; done
UV = $(shell command -v uv || echo $(VENV)/bin/uv)

.PHONY: setup train evaluate test test-all lint lock docs learning rivals benchmark soak clean
setup: $(READY)

# The stamp holds what was installed, so a changed lock is seen even where git sets new times on old files.
$(READY): requirements.lock pyproject.toml
	@cmp -s <(cat requirements.lock pyproject.toml) $(READY) && touch $(READY) && exit 0; \
	set -e; \
	if [ ! -x $(PYTHON) ]; then \
		python=$$($(FIND_PYTHON)) || true; \
		if [ -z "$$python" ]; then \
			echo "No Python 3.12 found (tried python3.12, python3, python): install it, for instance with" >&2; \
			echo "'pyenv install 3.12' or 'apt install python3.12 python3.12-venv', or name it: make setup PYTHON3=/path/to/python3.12" >&2; \
			exit 1; \
		fi; \
		echo "Making $(VENV) with $$($$python --version)"; \
		"$$python" -m venv $(VENV); \
	fi; \
	command -v uv >/dev/null || [ -x $(VENV)/bin/uv ] || $(PYTHON) -m pip install --quiet --disable-pip-version-check \
		"$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"; \
	echo "Installing requirements.lock"; \
	$(UV) pip sync --quiet --python $(PYTHON) --require-hashes requirements.lock; \
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .; \
	cat requirements.lock pyproject.toml > $(READY)

train: $(READY)
	$(PYTHON) train.py $(ARGS)

evaluate: $(READY)
	$(PYTHON) evaluate.py $(ARGS)

test: $(READY)
	$(PYTHON) -m pytest -n 2 -m "not slow" $(ARGS)

test-all: $(READY)
	$(PYTHON) -m pytest -n 2 $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/basedpyright

# Versions and hashes alone: no download host may stand in the lock.
lock: $(READY)
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--all-extras --python-version 3.12 pyproject.toml -o requirements.lock

docs: $(READY)
	$(PYTHON) docs/make_configuration.py

# Some hours; what is in benchmarks/learning already is not made again.
learning: $(READY)
	$(PYTHON) benchmarks/learning.py $(ARGS)

# Most of an hour for each seed. ARGS=--report writes the table anew. Leave the machine alone meanwhile.
rivals: $(READY)
	$(PYTHON) benchmarks/rivals.py $(ARGS)

# ARGS=--scaling makes its second part alone. Leave the machine alone meanwhile.
benchmark: $(READY)
	$(PYTHON) benchmarks/speed.py $(ARGS)

# ARGS="--minutes 5" makes it shorter.
soak: $(READY)
	$(PYTHON) benchmarks/soak.py $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
