# Every target makes what it needs: the environment in .venv, with the releases in constraints.txt.

BACKENDS := tensorflow jax torch
BACKEND ?= jax
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt
TEST_ENVIRONMENT := TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1 MPLBACKEND=agg

.PHONY: demo test test-protobuf6 lint docs bench gpu study worth soak soak-files clean

demo: $(VENV)/.demo-$(BACKEND)  ## train on real digits without and with echoing; BACKEND=jax|tensorflow|torch
	$(BIN)/keras-echo demo --backend $(BACKEND)

test: $(VENV)/.dev  ## the whole suite, once per backend; in three parts each, so that two cores have work to the end
	$(MAKE) --jobs=2 --output-sync=target \
		$(BACKENDS:%=test-library-%) $(BACKENDS:%=test-faults-%) $(BACKENDS:%=test-examples-%)

test-protobuf6: $(VENV)-protobuf6/.done  ## the reading of traces with protobuf 6, without a backend
	$(TEST_ENVIRONMENT) $(VENV)-protobuf6/bin/python -m pytest tests/profiling

$(VENV)-protobuf6/.done: pyproject.toml constraints.txt
	test -x $(VENV)-protobuf6/bin/python || python3 -m venv $(VENV)-protobuf6
	grep -v '^protobuf==' constraints.txt > $(VENV)-protobuf6/constraints.txt
	$(VENV)-protobuf6/bin/pip install --quiet --constraint $(VENV)-protobuf6/constraints.txt \
		--editable . 'protobuf==6.31.*' hypothesis pytest pytest-timeout
	touch $@

test-%: test-library-% test-faults-% test-examples-%
	@:

test-library-%: $(VENV)/.dev
	$(TEST_ENVIRONMENT) KERAS_BACKEND=$* $(BIN)/python -m pytest --ignore=tests/examples --ignore=tests/faults

test-faults-%: $(VENV)/.dev  # what they break stays in their process
	$(TEST_ENVIRONMENT) KERAS_BACKEND=$* $(BIN)/python -m pytest tests/faults

test-examples-%: $(VENV)/.dev
	$(TEST_ENVIRONMENT) KERAS_BACKEND=$* $(BIN)/python -m pytest tests/examples

lint: $(VENV)/.dev  ## formatting, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(VENV)/.dev  ## the pages, strictly, into site/
	NO_MKDOCS_2_WARNING=1 KERAS_BACKEND=jax $(BIN)/mkdocs build --strict --quiet

soak: $(BACKENDS:%=soak-%) soak-files  ## faults in their long form, 100,000 steps that may hold no more than at first, a million damaged files (hours)

soak-%: $(VENV)/.dev
	$(TEST_ENVIRONMENT) KERAS_BACKEND=$* $(BIN)/python benchmarks/soak.py
	$(TEST_ENVIRONMENT) KERAS_BACKEND=$* KERAS_ECHO_SOAK=1 $(BIN)/python -m pytest --timeout=3600 tests/faults

soak-files: $(VENV)/.dev
	$(TEST_ENVIRONMENT) KERAS_BACKEND=$(BACKEND) $(BIN)/python tests/security/fuzz.py --count 1000000

bench: $(VENV)/.dev  ## the tables in docs/benchmarks.md and docs/callback.md (an hour on two idle cores)
	$(BIN)/python benchmarks/whole_runs.py --jobs 3 --json docs/benchmarks/whole_runs.json
	$(BIN)/python benchmarks/ratio_accuracy.py --json docs/benchmarks/ratio_accuracy.json
	$(BIN)/python benchmarks/throughput.py --rounds 3 --json docs/benchmarks/throughput.json
	$(BIN)/python benchmarks/reader_speed.py --json docs/benchmarks/reader_speed.json
	$(BIN)/python benchmarks/cache_speed.py --json docs/benchmarks/cache_speed.json
	$(BIN)/python benchmarks/remedies.py --json docs/benchmarks/remedies.json
	KERAS_BACKEND=jax $(BIN)/python benchmarks/auto_readers.py --json docs/benchmarks/auto_readers.json
	$(BIN)/python benchmarks/pages.py

gpu: $(VENV)/.base  ## what an accelerator says, in a minute or two; BACKEND=jax|torch, built for it
	KERAS_BACKEND=$(BACKEND) $(BIN)/python benchmarks/on_gpu.py \
		--json docs/benchmarks/on_gpu_$(BACKEND).json

study: $(VENV)/.dev  ## fresh examples saved, on five workloads, into docs/study/ (three quarters of an hour on two idle cores; goes on where it was)
	$(BIN)/python benchmarks/echoing_study.py --jobs 2

worth: $(VENV)/.dev  ## what an echoed step is worth, into docs/worth.md (goes on where it was)
	$(BIN)/python benchmarks/worth_study.py --jobs 2

$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.demo-%: $(VENV)/.base
	$(PIP) --editable '.[$*,demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) --editable '.[tensorflow,jax,torch,profile,examples,docs,dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-protobuf6 site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
