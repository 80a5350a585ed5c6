# `make demo` colours a first picture; `make test` runs every check. Both need only Python >= 3.11.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALL := $(RUN)/pip install --quiet --constraint requirements.lock
# Processes that test side by side, 3 GB each; a file's tests stay together and share its fixtures.
WORKERS := 2
# Programs of test size run for milliseconds, and optimising them would take longer than that. What
# users run is optimised: so are the slow tests.
QUICKLY := JAX_DISABLE_MOST_OPTIMIZATIONS=1

.PHONY: demo test lint clean

demo: $(VENV)/core
	$(RUN)/python scripts/demo.py --out demo

test: $(VENV)/checked lint
	$(QUICKLY) $(RUN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

lint: $(VENV)/checked
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/pyright --pythonpath $(RUN)/python

$(VENV)/core: pyproject.toml requirements.lock
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python >= 3.11 is needed')"
	test -x $(RUN)/pip || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/checked: $(VENV)/core
	$(INSTALL) --editable ".[parity,dev,art]"
	touch $@

clean:
	rm -rf $(VENV) demo
