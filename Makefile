PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
PEERS := .venv-peers

.PHONY: demo test test-long test-all test-lowest coverage check docs native-check format bench bench-quick interop fuzz fuzz-nightly faults gallery sbom clean help

demo: $(VENV)/.installed-demo
	$(BIN)/jaxsnn demo -o demo-output --report demo-output/report.html --force

help:
	@sed -n 's/^[.]PHONY: /make TARGET, one of: /p' Makefile
	@echo "CONTRIBUTING.md says what they do."

# What a test compiles runs a few times only, so it is not optimised, which takes less than half the time. Where the last
# digits count, and what optimising does to them, tests compile as users do; so does all of test-all.
QUICKLY = $(shell $(BIN)/python -m jaxsnn.network.compiling)
# Programs are kept for the next time, which then takes little more than half as long.
KEPT := JAX_COMPILATION_CACHE_DIR="$(CURDIR)/.pytest_cache/programs" \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
# Neighbours stay in one process, for they share what is set up for them.
PARALLEL := -n 2 --dist worksteal
test: $(VENV)/.installed-test
	$(KEPT) $(BIN)/python -m pytest -q $(PARALLEL) -m "last_digits and not slow" tests/event
	$(KEPT) XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m pytest -q $(PARALLEL) -m "not last_digits and not slow and not long"

# The rest of the fast tests: those that would make `make test` longer than ten minutes, listed in tests/long_tests.txt.
test-long: $(VENV)/.installed-test
	$(KEPT) XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m pytest -q $(PARALLEL) -m "long and not slow"

test-all: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q $(PARALLEL)

# Which lines the tests of `make test` run, without optimising, which changes none of them.
coverage: $(VENV)/.installed-test
	$(PIP) install -e '.[coverage]'
	$(BIN)/python -m coverage erase
	XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m coverage run -m pytest -q $(PARALLEL) -m "not last_digits and not slow"
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --skip-covered --sort=cover

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo --no-cache pyproject.toml .ci/imports_on_load.toml

# Reading, checking, converting and writing, with the oldest versions that pyproject.toml allows.
LOWEST := .venv-lowest
LOWEST_TESTS := tests/nir/test_parse.py tests/nir/test_export.py tests/nir/test_checks.py tests/nir/test_convert.py \
	tests/faults/test_hostile_corpus.py tests/faults/test_read_limits.py tests/network/test_lower.py tests/train/test_checkpoint.py
test-lowest: $(LOWEST)/.installed
	XLA_FLAGS="$(QUICKLY)" $(LOWEST)/bin/python -m pytest -q $(PARALLEL) -m "not slow and not interop" $(LOWEST_TESTS)

# NIR files and other files that are broken at random, so many of both or for so many seconds, and graphs that are edited at
# random. What is found is printed with the number that makes it, or the edits.
FILES ?= 2000
SECONDS ?= 300
FIRST ?= 0
fuzz: $(VENV)/.installed-test
	for kind in nir others; do \
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.fuzz.file_journeys --kind $$kind --first $(FIRST) --files $(FILES) \
	--seconds $(SECONDS) --workers 2 || exit 1; done
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.fuzz.edited_graphs

fuzz-nightly:
	$(MAKE) fuzz FILES=100000 SECONDS=28800 FIRST=$$(date +%s)

# Faults of the disk, interrupts and stops in every command that writes; the counts go into the page.
faults: $(VENV)/.installed-test
	XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m tests.faults.injected --write docs/reliability.md

# The versions that are installed, and their bill of materials, for which all extras are installed.
sbom: $(VENV)/.installed-docs
	$(PIP) install -e '.[coverage]'
	$(BIN)/python -m tests.supply.versions lock

# The pictures and notebooks of the examples, from runs of full size, in some minutes. Fashion-MNIST is needed (Debian's
# dataset-fashion-mnist), and `pip install flax tensorboard`.
gallery: $(VENV)/.installed-test
	$(BIN)/python docs/example_runs.py

# The site, into docs/_build/html.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The kernels under the sanitizers of addresses and undefined behaviour. They are built first, as the compiler would run under
# them, too: a process into which they are not loaded from the start ends where it loads the kernels.
SANITIZED := -O0 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined
BUILD := from jaxsnn.event.native.native_build import native_library; native_library
NATIVE_TESTS := $(addprefix tests/event/test_,native.py native_by_target.py native_groups.py native_levels.py native_places.py native_readout.py native_recorded.py native_weights.py streaming.py)
native-check: $(VENV)/.installed-test
	-JAXSNN_CXXFLAGS="$(SANITIZED)" $(BIN)/python -c "$(BUILD)('float32')"
	-JAXSNN_CXXFLAGS="$(SANITIZED)" $(BIN)/python -c "$(BUILD)('float64')"
	JAXSNN_CXXFLAGS="$(SANITIZED)" LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m pytest -q -m "not slow" $(NATIVE_TESTS)

format: $(VENV)/.installed-test
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

bench: $(VENV)/.installed-demo $(patsubst benchmarks/peers/%.txt,$(PEERS)/%/.installed,$(wildcard benchmarks/peers/*.txt))
	$(BIN)/python benchmarks/run.py

# Work of real size alone, in some minutes.
bench-quick: $(VENV)/.installed-demo $(addprefix $(PEERS)/,spyx/.installed torch/.installed)
	$(BIN)/python benchmarks/run.py --quick

interop: $(PEERS)/interop/.installed
	INTEROP_DOCUMENT=docs/interop.md $(PEERS)/interop/bin/python -m pytest -q tests/interop
	$(PEERS)/interop/bin/python -m tests.interop.counting --write docs/interop.md

clean:
	rm -rf build dist demo-output docs/_build docs/generated benchmarks/results
	rm -rf .venv-lowest .hypothesis .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV)"
	@$(PIP) install -e '.[plot]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV), with the extras for development and interoperability"
	@$(PIP) install -e '.[dev,plot,data,interop]'
	@touch $@ $(VENV)/.installed-demo

$(LOWEST)/.installed: pyproject.toml
	@echo "installing the oldest versions into $(LOWEST)"
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip --disable-pip-version-check -q install -e '.[dev]' $$($(PYTHON) -m tests.supply.versions lowest)
	@touch $@

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/.installed-test
	@echo "installing what builds the site"
	@$(PIP) install -e '.[docs]'
	@touch $@

$(PEERS)/%/.installed: benchmarks/peers/%.txt
	@echo "installing a peer into $(PEERS)/$*"
	@$(PYTHON) -m venv $(PEERS)/$*
	@$(PEERS)/$*/bin/python -m pip --disable-pip-version-check -q install -r $<
	@touch $@

$(PEERS)/interop/.installed: pyproject.toml
	@echo "installing into $(PEERS)/interop, with Spyx beside the other simulators"
	@$(PYTHON) -m venv $(PEERS)/interop
	@$(PEERS)/interop/bin/python -m pip --disable-pip-version-check -q install -e '.[dev,data,interop]' 'spyx>=1.0'
	@touch $@
