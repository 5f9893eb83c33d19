# Every target works alone on a fresh machine, and repeats nothing that is done.

# What does not depend on each other is made at the same time: packages are fetched while C++ is compiled.
MAKEFLAGS += --jobs=2

VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps
DEBIAN := $(abspath $(VENV))/debian

# The first Python that is new enough; another one: make PYTHON=/path/to/python3.13
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# Exact versions: one set for Python 3.11 (jax 0.10), one for newer ones.
CONSTRAINTS = .setup/constraints-$(shell $(PYTHON) -c \
	'import sys; print("py311" if sys.version_info < (3, 12) else "py312")').txt
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet -c $(CONSTRAINTS)

# file that shows the package is there = package
BUILD_PACKAGES := usr/include/CLI/CLI.hpp=libcli11-dev usr/include/nlohmann/json.hpp=nlohmann-json3-dev \
	usr/include/png.h=libpng-dev usr/include/zlib.h=zlib1g-dev usr/include/sha2.h=libmd-dev
DATA_PACKAGES  := usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz=dataset-fashion-mnist \
	usr/share/fonts/truetype/noto/NotoColorEmoji.ttf=fonts-noto-color-emoji
TEST_PACKAGES  := usr/include/gtest/gtest.h=libgtest-dev

CPP_SOURCES = $(shell find cpp_runner -not -path '*/build/*' \( -name '*.cc' -o -name '*.h' \
	-o -name 'CMake*' \) 2>/dev/null)
PATH_WITH_TOOLS = PATH="$(abspath $(BIN)):$$PATH"

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-examples test-all test-newer test-python test-native lint format tidy native docs docs-figures bench lock clean distclean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

demo: $(STAMPS)/runtime $(STAMPS)/data $(BIN)/diffusion-sampler ## train on real images, export, sample natively, show it
	$(BIN)/python examples/demo.py --out demo

test: lint test-native test-python ## run all checks and tests but the long ones

test-long: PYTEST_FLAGS = -m 'long or example'
test-long: test-python ## run what trains for minutes or compiles much, and the examples (three quarters of an hour)

test-examples: PYTEST_FLAGS = -m example
test-examples: test-python ## run only the examples and benchmarks, in reduced settings, and judge their figures

test-all: PYTEST_FLAGS = -m ''
test-all: test ## run all checks and tests, the long ones too (an hour)

# A second Python, if this machine has a newer one: its tests run with the newest jax that its lock file allows.
PYENV := $(HOME)/.pyenv/versions
NEWER ?= $(shell for p in python3.13 $(wildcard $(PYENV)/3.13*/bin/python3) python3.12 $(wildcard $(PYENV)/3.12*/bin/python3); do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)
NEWER_VENV := .venv-newer

test-newer: $(STAMPS)/data ## run the quick Python tests by a newer Python, if there is one, in .venv-newer
	@if test -z "$(NEWER)"; then echo "test-newer: NOT RUN: this machine has no Python 3.12 or newer"; \
	elif $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then \
		echo "test-newer: nothing to do: the tests run by Python 3.12 or newer already"; \
	else set -e; test -d $(NEWER_VENV) || $(NEWER) -m venv $(NEWER_VENV); \
		$(NEWER_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
			-c .setup/constraints-py312.txt -e '.[dev]'; \
		$(NEWER_VENV)/bin/python -m pytest -n 2 --dist worksteal -m 'not long and not slow and not example and not native and not peer'; fi

PYTEST_FLAGS ?= -m 'not long and not example'

test-python: $(STAMPS)/dev $(STAMPS)/data $(BIN)/diffusion-sampler $(STAMPS)/asan ## run the Python tests
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_FLAGS)

test-native: $(STAMPS)/asan ## run the native program's own tests, under sanitizers
	cd cpp_runner && $(PATH_WITH_TOOLS) ctest --preset asan

lint: $(STAMPS)/dev ## check style, types and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/clang-format --dry-run -Werror $(filter %.cc %.h,$(CPP_SOURCES))

format: $(STAMPS)/dev ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(filter %.cc %.h,$(CPP_SOURCES))

tidy: $(STAMPS)/dev $(BIN)/diffusion-sampler ## clang-tidy over the native program
	$(BIN)/clang-tidy --quiet -p cpp_runner/build/release $(wildcard cpp_runner/src/*.cc)

native: $(BIN)/diffusion-sampler ## build the native program into .venv/bin

docs: $(STAMPS)/docs ## build the documentation site into docs/site, without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file docs/mkdocs.yml
	@$(BIN)/python -m tests.pages

docs-figures: $(STAMPS)/runtime ## make the documentation's figures and tables anew
	$(BIN)/python docs/figures.py
	$(BIN)/python docs/tables.py

bench: $(STAMPS)/dev $(BIN)/diffusion-sampler ## time sampling of the demo's model in Python and natively
	@test -f demo/sampler.safetensors || { echo "bench: run make demo first; its model is what is timed" >&2; exit 1; }
	$(BIN)/python benchmarks/sampling.py demo/model.safetensors demo/sampler.safetensors

lock: $(STAMPS)/dev ## rewrite the exact versions from what is installed now
	$(PIP) -e '.[docs]'
	{ echo '# Exact versions of all that `make demo`, `make test` and `make docs` install; rewritten by `make lock`.'; \
	$(BIN)/python -m pip freeze --exclude-editable --all | sed -E 's/\+cpu$$//' \
	| grep -vE '^(pip|setuptools|wheel)==|@' ; } > $(CONSTRAINTS)

clean: ## delete what was built
	rm -rf cpp_runner/build docs/site demo

distclean: clean ## delete the environments too
	rm -rf $(VENV) $(NEWER_VENV)

$(STAMPS)/venv:
	@test -n "$(PYTHON)" || { echo "setup: Python 3.11 or newer is needed; give it as make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "setup: $(PYTHON) cannot make virtual \
	environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/runtime: $(STAMPS)/venv pyproject.toml $(wildcard .setup/constraints-*.txt)
	$(PIP) -e '.[native]'
	@touch $@

$(STAMPS)/dev: $(STAMPS)/runtime
	$(PIP) -e '.[native,dev,peers,tensorflow]'
	@touch $@

$(STAMPS)/docs: $(STAMPS)/runtime
	$(PIP) -e '.[docs]'
	@touch $@

$(STAMPS)/data: $(STAMPS)/venv
	.setup/debian.sh $(DEBIAN) $(DATA_PACKAGES)
	@touch $@

# Debian's packages one set after the other: apt allows no two at once.
$(STAMPS)/build-packages: $(STAMPS)/venv | $(STAMPS)/data
	.setup/debian.sh $(DEBIAN) $(BUILD_PACKAGES)
	@touch $@

$(STAMPS)/test-packages: $(STAMPS)/venv | $(STAMPS)/build-packages
	.setup/debian.sh $(DEBIAN) $(TEST_PACKAGES)
	@touch $@

$(BIN)/diffusion-sampler: $(STAMPS)/runtime $(STAMPS)/build-packages $(CPP_SOURCES)
	cd cpp_runner && export $(PATH_WITH_TOOLS) && \
	cmake --preset release -DDIFFUSION_SAMPLER_VENV=$(abspath $(VENV)) -DCMAKE_PREFIX_PATH=$(DEBIAN)/usr --log-level=WARNING && \
	cmake --build --preset release && \
	cmake --install build/release --prefix $(abspath $(VENV)) --strip >/dev/null
	@touch $@

$(STAMPS)/asan: $(STAMPS)/runtime $(STAMPS)/build-packages $(STAMPS)/test-packages $(CPP_SOURCES)
	cd cpp_runner && export $(PATH_WITH_TOOLS) && \
	cmake --preset asan -DDIFFUSION_SAMPLER_VENV=$(abspath $(VENV)) -DCMAKE_PREFIX_PATH=$(DEBIAN)/usr --log-level=WARNING && \
	cmake --build --preset asan
	@touch $@
