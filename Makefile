# make demo: a map from the example scene, by the light install (no torch).
# make test: every extra, and the whole suite.   make test-light: the tests that need no extra.
# make test-quick: ten minutes of it.   make docs: the manual, into site/.   make bench: speed.
# Nothing is needed but Python 3.11 or newer and make.

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-output
BIN := $(VENV)/bin
# What "make demo" leaves to the first use, for tests that start many processes. Some packages hold
# files for other Pythons, which can't be compiled.
COMPILE = @$(BIN)/python -m compileall -q -q -j 0 $(VENV)/lib geoseg || true

.PHONY: demo test test-light test-quick lint docs bench clean

$(VENV)/.geoseg: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "geoseg needs Python 3.11 or newer; found $$($(PYTHON) --version): make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# Modules are compiled when they are first used; pip would compile all, which takes as long again.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e .
	touch $@

$(VENV)/.geoseg-test: $(VENV)/.geoseg
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	$(COMPILE)
	touch $@

demo: $(VENV)/.geoseg
	@mkdir -p $(OUT)
	$(BIN)/geoseg predict examples/landsat7_nc_2000.tif -o $(OUT)/landsat7_nc_2000_landcover.tif \
	  --preview $(OUT)/landsat7_nc_2000_preview.png --overwrite
	@$(BIN)/python examples/agreement.py $(OUT)/landsat7_nc_2000_landcover.tif \
	  examples/landsat7_nc_2000_labels.tif
	@echo
	@echo "class raster  $(OUT)/landsat7_nc_2000_landcover.tif"
	@echo "polygons      $(OUT)/landsat7_nc_2000_landcover.gpkg"
	@echo "preview       $(OUT)/landsat7_nc_2000_preview.png"

# Into an environment of its own, such as make test-light VENV=.venv-light: in one that has the
# extras, the whole suite runs, but for what takes long.
test-light: $(VENV)/.geoseg
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test-light]'
	$(COMPILE)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

lint: $(VENV)/.geoseg-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(VENV)/.geoseg-test
	$(BIN)/python -m pytest -n auto --dist worksteal

# What takes minutes: real scenes, all networks, training, kernels under bounds checks, servers,
# memory, stopping and resuming.
LONG = e2e $(foreach name,kernels memory networks notebooks remote resume scale smp speed stopping \
  streaming training vgg,test_$(name).py)
test-quick: $(VENV)/.geoseg-test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" $(LONG:%=--ignore=tests/%)

$(VENV)/.geoseg-docs: $(VENV)/.geoseg
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

docs: $(VENV)/.geoseg-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the manual    site/index.html"

bench: $(VENV)/.geoseg-test
	$(BIN)/python benchmarks/peers.py

clean:
	rm -rf $(VENV) $(OUT) site build *.egg-info
