# Two commands: `make rebuild` makes every figure from nothing, `make test` checks everything. Each makes the environment it needs.
PYTHON ?= python3
BIN := .venv/bin
CONSTRAINTS ?= constraints.txt
INSTALL := $(BIN)/pip install $(addprefix --constraint ,$(CONSTRAINTS)) --editable
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help env rebuild test test-notebook check check-uncompiled lint mutants site test-site clean

help:
	@echo "make rebuild   every figure of the paper, from nothing"
	@echo "make test      all tests, every notebook re-run and compared"
	@echo "make env       only the environment for rebuilding and for JupyterLab"
	@echo "make site      the notebooks as pages that work offline, in site/"
	@echo "make test-site those pages in a browser: accessible, and do filters and sliders work?"
	@echo "make check     for development: lint and the tests of the core, without notebooks"
	@echo "make test-notebook NAME=fig1b_drift_scaling"
	@echo "               one notebook re-run, its output and its numbers compared"
	@echo "make lint      format and lint only"
	@echo "make mutants   a sample of changes of the core: which do its tests notice? (half an hour)"
	@echo "make clean     remove the environment and caches"

rebuild: env
	$(BIN)/conslaw rebuild

env: $(BIN)/.installed

# Notebooks, then the tests, some of which compare the numbers that the notebooks have just left; several files at once.
test: lint
	fresh=$$(mktemp -d) && trap "rm -rf $$fresh" EXIT && export CONSLAW_FRESH=$$fresh; \
	pytest="$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile"; \
	$$pytest notebooks; notebooks=$$?; \
	$$pytest conslaw tests && exit $$notebooks

# The same for one notebook.
test-notebook: $(BIN)/.installed-test
	@test -f "notebooks/$(NAME).ipynb" || { echo "NAME=$(NAME): there is no notebook notebooks/$(NAME).ipynb" >&2; exit 2; }
	$(BIN)/pytest "notebooks/$(NAME).ipynb" "tests/test_notebooks.py" -k "$(NAME)"

check: lint
	$(BIN)/pytest conslaw tests --ignore tests/test_variants.py --numprocesses auto --maxprocesses 4 --dist worksteal

# The compiled steps as plain Python, which checks every index against its bounds; without the tests of the machinery around the core.
check-uncompiled: $(BIN)/.installed-test
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest conslaw tests --ignore conslaw/paper $(addprefix --ignore ,$(shell grep -l 'conslaw\.paper' tests/*.py)) \
		--numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(BIN)/.installed-test
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

# In two copies of the project, so that it can be edited meanwhile.
mutants: $(BIN)/.installed-test
	$(BIN)/python -c "import cosmic_ray" 2>/dev/null || $(INSTALL) '.[test,mutants]'
	$(BIN)/python benchmarks/mutants.py --sample $(or $(SAMPLE),200) --seed $(or $(SEED),0)

site: env
	$(BIN)/conslaw site

# The pages in headless Chromium: that of the machine, or the one that Playwright downloads.
test-site: $(BIN)/.installed-test
	$(BIN)/python -c "import playwright" 2>/dev/null || $(INSTALL) '.[test,browser]'
	command -v chromium >/dev/null || $(BIN)/playwright install --with-deps chromium
	$(BIN)/pytest tests/test_site.py tests/test_browser.py

clean:
	rm -rf site build .venv *.egg-info .pytest_cache .ruff_cache .hypothesis figures/.stamps

# The environment for rebuilding, and the same with what the tests need: whichever comes first, the other adds what is missing.
$(BIN)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing the packages into .venv. This takes some minutes and about 2 GB, or 6 GB where torch comes with CUDA (see README)."
	$(INSTALL) '.[notebooks]'
	touch $@

$(BIN)/.installed-test: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing the packages, with those of the tests, into .venv. This takes some minutes and about 2 GB, or 6 GB where torch comes with CUDA (see README)."
	$(INSTALL) '.[test]'
	touch $(BIN)/.installed $@

$(BIN)/pip:
	$(PYTHON) -m venv .venv
