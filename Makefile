# Everything runs in .venv, which the first target that needs it creates. Tests run against the
# installed wheel, from a folder without the sources.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ROOT   := $(CURDIR)
SOURCES := $(shell find featcache cli -name '*.py' -o -path '*/templates/*' -type f -o -path '*/serve/page/*' -type f) featcache/py.typed README.md LICENSE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-browser test-gpu lint types contracts format reference walk bench \
  bench-heads bench-coverage bench-decoding bench-extract bench-together bench-unfreeze clean faults \
  faults-tests

help:                                                 ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## / \t/' | expand -t 14

# What it depends on, from pyproject.toml; again only when that changes.
$(VENV)/.dependencies: pyproject.toml
	@echo "==> setting up $(VENV): PyTorch and what else is needed; a few minutes the first time"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11; run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "==> installing; unpacking PyTorch is silent for a minute or two"
	$(BIN)/python -m pip install --progress-bar off --disable-pip-version-check ".[dev]"
	@touch $@

# The wheel of these sources; again only when they change.
$(VENV)/.wheel: $(VENV)/.dependencies $(SOURCES)
	@echo "==> building and installing the wheel"
	@rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/*.whl
	@touch $@

setup: $(VENV)/.wheel                                 ## create .venv and install featcache in it

demo: $(VENV)/.wheel                                  ## the main job on handwritten digits
	@echo "==> featcache demo"
	$(BIN)/featcache demo

lint: $(VENV)/.wheel                                  ## ruff: lint and format
	@echo "==> lint"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.wheel                                 ## basedpyright
	@echo "==> types"
	$(BIN)/basedpyright --pythonpath $(BIN)/python

contracts: $(VENV)/.wheel                             ## who may import whom
	@echo "==> contracts"
	PYTHONPATH=$(ROOT):$(ROOT)/cli $(BIN)/lint-imports --no-cache

# From a folder without the sources, and -P keeps it off the path: only the wheel can be imported.
# One worker a core, each with one thread: what is small goes no faster with more.
PYTEST = mkdir -p build/tests && cd build/tests && \
  $(ROOT)/$(BIN)/python -P -c 'import featcache; assert "site-packages" in featcache.__file__' && \
  OMP_NUM_THREADS=1 $(ROOT)/$(BIN)/python -P -m pytest -n auto --dist worksteal --durations 15 \
  -c $(ROOT)/pyproject.toml --rootdir=$(ROOT) $(ROOT)/tests

test: lint types contracts                            ## lint, types, contracts, tests
	@echo "==> tests, against the installed wheel"
	$(PYTEST) -m "not slow and not gpu and not network and not browser"

test-slow: $(VENV)/.wheel                             ## the tests that take long
	@echo "==> slow tests, against the installed wheel"
	$(PYTEST) -m "slow and not gpu and not network and not browser"

test-browser: $(VENV)/.wheel                          ## the tests that open pages in Chromium
	$(PYTEST) -n 0 -m browser

test-gpu: $(VENV)/.wheel                              ## the tests that need a CUDA device
	$(PYTEST) -n 0 -m gpu

# What was tried, how often it failed, and what a user sees of it.
faults: $(VENV)/.wheel                                ## every fault that tests make, and a table
	@mkdir -p build && rm -f build/faults.jsonl
	@FEATCACHE_FAULTS=$(ROOT)/build/faults.jsonl $(MAKE) --no-print-directory faults-tests; \
	  tests=$$?; $(BIN)/python benchmarks/faults.py build/faults.jsonl && exit $$tests

faults-tests:
	$(PYTEST) -m "faults and not gpu and not network"

bench: bench-heads                                    ## ratios against peers
	cd build && $(ROOT)/$(BIN)/python -P $(ROOT)/benchmarks/rescan.py

bench-decoding: $(VENV)/.wheel                        ## decoders and resize beside Pillow
	mkdir -p build && cd build && OMP_NUM_THREADS=1 PYTHONPATH=$(ROOT)/benchmarks \
	  $(ROOT)/$(BIN)/python -P $(ROOT)/benchmarks/decoding.py --json decoding.json

bench-heads: $(VENV)/.wheel                           ## heads beside scikit-learn, half an hour
	mkdir -p build && cd build && PYTHONPATH=$(ROOT)/benchmarks \
	  $(ROOT)/$(BIN)/python -P $(ROOT)/benchmarks/heads.py --rows all --json heads.json

bench-coverage: $(VENV)/.wheel                        ## how often the interval holds the truth
	mkdir -p build && cd build && $(ROOT)/$(BIN)/python -P $(ROOT)/benchmarks/coverage.py

bench-unfreeze: $(VENV)/.wheel                        ## tails beside the usual loop, half an hour
	mkdir -p build && cd build && PYTHONPATH=$(ROOT)/benchmarks \
	  $(ROOT)/$(BIN)/python -P $(ROOT)/benchmarks/unfreeze.py --rows all --json unfreeze.json

# The pictures stay in build/ for the next time; what is compared with is measured where installed.
bench-together: $(VENV)/.wheel                        ## several backbones in one pass beside in turn
	mkdir -p build && cd build && PYTHONPATH=$(ROOT)/benchmarks \
	  $(ROOT)/$(BIN)/python -P $(ROOT)/benchmarks/together.py --pictures bench-pictures

bench-extract: $(VENV)/.wheel                         ## extraction beside the usual loop, 90 minutes
	mkdir -p build && cd build && PYTHONPATH=$(ROOT)/benchmarks \
	  $(ROOT)/$(BIN)/python -P $(ROOT)/benchmarks/extract.py --rows all --pictures bench-pictures \
	  --json extract.json

reference: $(VENV)/.wheel                             ## docs/commands.md, docs/python.md from the code
	$(BIN)/python docs/reference.py

walk: $(VENV)/.wheel                                  ## docs/walk.md and its pictures, recorded again
	$(BIN)/python docs/recording.py

format: $(VENV)/.wheel                                ## let ruff format and mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:                                                ## remove .venv and what was built
	rm -rf $(VENV) build dist featcache-demo
