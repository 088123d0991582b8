# Every target sets up what it needs: a virtual environment in $(VENV), once.

PYTHON ?= python3
VENV   ?= .venv
# Used where $(PYTHON) has no torch >= 2.11, and where torch has brought no Triton.
TORCH  ?= torch==2.13.0
TRITON ?= triton==3.9.0
# Test processes, each with one thread.
JOBS   ?= 2

BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
LIBRARY := $(VENV)/.library
CPP     := $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu)
FORMATTED := $(CPP) $(wildcard tests/emulator/*.h tests/emulator/*.cpp)
EMULATED := build/emulated/rnr_emulated.so
# The library with kernels for GPUs, beside any torch, where there is nvcc.
FOR_GPUS := build/cuda/.built
NVCC     := $(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-sanitize test-gpu-static test-browser bench gpu-check gpu-peers lint format wheel clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 24

setup: $(LIBRARY) ## Create the virtual environment and build the kernels
$(READY): .ci/setup .ci/requirements.txt pyproject.toml setup.py
	@.ci/setup "$(PYTHON)" "$(VENV)" "$(TORCH)" "$(TRITON)"
	@touch $@

# Compiles what has changed; without a compiler it says so, and the reference serves.
$(LIBRARY): $(READY) $(CPP)
	$(BIN)/python setup.py --quiet build_ext --inplace
	@if ls rnr_kernels/_C.* >/dev/null 2>&1; then touch $@; fi

$(EMULATED): $(READY) $(CPP) $(wildcard tests/emulator/*)
	tests/emulator/build $(BIN)/python $@ $(JOBS)

$(FOR_GPUS): $(READY) $(CPP)
	RNR_CUDA=1 RNR_BUILD_EXT=1 $(BIN)/python setup.py --quiet build --build-base build/cuda \
	  --build-lib build/cuda/lib
	@touch $@

demo: $(LIBRARY) ## Base beside base x rules on the embedded model, then the stored table
	$(BIN)/rnr-kernels generate --compare
	$(BIN)/python -m rnr_kernels.models.evaluate --stored

test: $(LIBRARY) ## Run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

test-sanitize: $(READY) ## Run the native kernels' tests under Address- and UndefinedBehaviorSanitizer
	.ci/sanitize $(BIN)/python -n $(JOBS)

test-gpu-static: $(LIBRARY) $(EMULATED) $(if $(NVCC),$(FOR_GPUS)) ## Run the GPU kernels on the CPU and compile them, without a GPU
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p emulated -n $(JOBS) -k "not linear and emulated" \
	  tests/gpu_static/on_cpu.py tests/gpu_static/emulated_clusters.py tests/test_backends.py \
	  tests/test_ops_*.py
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -k triton \
	  -W ignore::RuntimeWarning tests/gpu_static/on_cpu.py tests/test_backends.py tests/test_ops_*.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) tests/gpu_static/compiled.py \
	  tests/gpu_static/variants.py tests/gpu_static/cuda_kernels.py

test-browser: $(LIBRARY) ## Try the token-shift report in a headless Chromium, which must be installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/browser/report.py tests/browser/large_report.py

bench: $(LIBRARY) ## Measure the ops beside their peers (10 min on an idle machine; try with QUICK=1)
	$(BIN)/python -m pytest benchmarks -q --benchmark-columns=median,iqr,rounds,iterations \
	  --benchmark-sort=name $(if $(QUICK),--quick,--results benchmarks/results)
	$(if $(QUICK),,$(BIN)/python -m benchmarks.report --write)

# On $(PYTHON) as it is, with torch for CUDA, Triton and ninja: such a machine may have no network.
gpu-check: ## On a GPU: check the kernels, and measure them beside peers (8 min; try with QUICK=1)
	@$(PYTHON) -c 'import torch, triton' 2>/dev/null || \
	  { echo "gpu-check needs torch and triton, which '$(PYTHON)' lacks: PYTHON=..." >&2; exit 2; }
	@PYTHONPATH=. $(PYTHON) -m benchmarks.gpu $(if $(QUICK),--quick) $(if $(RESULTS),--results "$(RESULTS)")

gpu-peers: $(READY) ## Fetch what gpu-check measures the kernels beside, to be taken along
	.ci/gpu-peers $(BIN)/python .gpu-peers

lint: $(READY) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(if $(CPP),$(BIN)/clang-format --dry-run --Werror $(FORMATTED))
	$(BIN)/mypy
	$(BIN)/python -m pytest -q --noconftest tests/test_project.py

format: $(READY) ## Rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(CPP),$(BIN)/clang-format -i $(FORMATTED))

wheel: $(READY) ## Build sdist and wheel into dist/
	$(BIN)/python -m build --no-isolation

clean: ## Remove the environment and whatever was built or cached
	rm -rf $(VENV) build dist rnr_kernels/*.so *.egg-info .gpu-peers .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find benchmarks rnr_kernels tests -name __pycache__ -prune -exec rm -rf {} +
