# Two commands: `make rebuild` makes every figure from nothing, `make test` checks everything. Each makes the environment it needs.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help rebuild test lint site clean

help:
	@echo "make rebuild   every figure of the paper, from nothing"
	@echo "make test      all tests, every notebook re-run and compared"
	@echo "make site      the notebooks as pages that work offline, in site/"
	@echo "make lint      format and lint only"
	@echo "make clean     remove the environment and caches"

rebuild: $(BIN)/.installed
	$(BIN)/conslaw rebuild

# Notebooks, then the tests, some of which compare the numbers that the notebooks have just left; several files at once.
test: lint
	fresh=$$(mktemp -d) && trap "rm -rf $$fresh" EXIT && export CONSLAW_FRESH=$$fresh; \
	pytest="$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile"; \
	$$pytest notebooks; notebooks=$$?; \
	$$pytest conslaw tests && exit $$notebooks

lint: $(BIN)/.installed
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

site: $(BIN)/.installed
	$(BIN)/conslaw site

clean:
	rm -rf site .venv *.egg-info .pytest_cache .ruff_cache .hypothesis figures/.stamps

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@
