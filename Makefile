# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NAME ?=
WORKERS ?= 2
DATA ?=
SIZE ?=
MODALITY ?=
REVIEW ?=
SIDE ?=
OUT ?= wheelhouse
CUDA ?=

.PHONY: setup demo test test-slow lint format bench docs reference wheelhouse clean

setup: $(STAMP)

$(STAMP): pyproject.toml common/pyproject.toml client/pyproject.toml server/pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] < (3, 14) else "Sfumato needs Python 3.11 to 3.13; set PYTHON=python3.11 (found %d.%d)" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,encoders]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/sfumato demo $(if $(DATA),--data $(DATA)) $(if $(SIZE),--size $(SIZE)) $(if $(MODALITY),--modality $(MODALITY)) $(if $(REVIEW),--review)
# the study's own figure is noised and charged; these are neither, which only open images allow
ifdef DATA
	$(BIN)/sfumato dataset evaluate demo-out/published --real $(DATA) --public --seeds 1 --minutes 6 --figures tstr,methods,fidelity,memorisation --out demo-out/evaluation.json --html
	$(BIN)/sfumato dataset card demo-out/published --figures demo-out/evaluation.json --out demo-out/cards
endif

# a worker a core, each with one thread: twice as fast as one process with two
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	@test -n "$(NAME)" || { echo "make bench NAME=...: one of" tests/bench/*.py; exit 2; }
	PYTHONPATH=tests $(BIN)/python tests/bench/$(NAME).py $(ARGS)

# all that one side installs, with hashes and a bill of materials, for a machine without network: docs/install.md
wheelhouse: $(STAMP)
	@test -n "$(SIDE)" || { echo "make wheelhouse SIDE=hospital, coordinator or whole [OUT=FOLDER] [CUDA=1]"; exit 2; }
	$(BIN)/python common/wheelhouse.py --side $(SIDE) --out $(OUT) $(if $(CUDA),--cuda)

# the documents as a site, with nothing from another host
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# the pages of docs/reference, from the code
reference: $(STAMP)
	$(BIN)/python docs/reference.py

clean:
	rm -rf demo-out bench-out docs-out .mypy_cache .ruff_cache .pytest_cache
