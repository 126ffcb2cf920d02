# One-word tasks. `make demo` and `make test` bring everything they need: Python >= 3.11 with pip is enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# All of the packages' bytecode at once; empty leaves it to their first import, which is quicker for a few tests.
COMPILE ?= --compile-bytecode
export UV_PYTHON_DOWNLOADS = never

.PHONY: demo test test-slow check lint types format parity lock bench table smoke clean

demo: $(VENV)/.installed  ## simulated cells -> pretrain -> evaluate -> report (about 5 minutes on 2 cores)
	$(BIN)/protloc demo --out runs/demo

test: $(VENV)/.installed  ## the default tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.installed  ## the long forms of the tests as well
	$(BIN)/python -m pytest -m "slow or not slow"

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'Python 3.11 or newer is needed, this is ' + sys.version"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet $(COMPILE) --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

check: lint types test  ## everything that must pass before a merge

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Only the files that have such a test: importing the other 270 takes longer than some of these tests.
parity: $(VENV)/.torch  ## the tests against PyTorch, timm and transformers (about 4 minutes)
	PROTLOC_TEST_COMPILATION=full $(BIN)/python -m pytest -n 2 --dist loadfile -m "torch and not slow" \
	  $$(grep -rl --include='test_*.py' 'mark\.torch' tests)

# pip and not uv for PyTorch: pip's own settings may name a CPU build, where the default is one for CUDA (3 GB).
$(VENV)/.torch: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps timm==1.0.31 torchvision==0.28.0
	$(BIN)/uv pip install --quiet --python $(BIN)/python transformers==5.24.0 pyyaml
	touch $@

lock: $(VENV)/.installed  ## renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --extra tracking --group dev \
	  --generate-hashes --custom-compile-command "make lock" --upgrade -o requirements.lock

smoke: $(VENV)/.installed  ## a pretraining run of seconds
	$(BIN)/protloc data pack simulated --preset opencell --out runs/smoke-data --n-proteins 24 --fovs-per-protein 2 --size 64
	$(BIN)/protloc pretrain --config configs/smoke.py data.records=runs/smoke-data run.out=runs/smoke

bench: $(VENV)/.installed  ## the benchmarks; run on a quiet machine
	$(BIN)/python -m benchmarks

table: $(VENV)/.installed  ## the README's table of speed and its picture, from benchmarks/results
	$(BIN)/python -m benchmarks.table --write README.md

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
