# Everything runs in .venv, which is made on first use; a stamp per extra keeps later calls from installing again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
PYTEST_ARGS ?= -n auto --maxprocesses 4

# Other people's models and pruners, for comparison only. Without dependencies: they would ask for another torch.
PEERS := torchvision==0.28.0 timm==1.0.31 torch-pruning==1.6.1 torch-kirigami==0.2.1 \
	transformers==5.24.0 tokenizers==0.23.3 regex segmentation_models_pytorch==0.6.0

# One thread a process: tests run side by side, and benchmarks count the time of one core.
test test-all bench: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format bench train clean

help:
	@echo "make demo    prune MODNet and LeNet on real pictures, with nothing to download but packages"
	@echo "make test    run the tests (PYTEST_ARGS='-k lenet' to choose)"
	@echo "make test-all  the slow ones too: every member of torchvision's families"
	@echo "make check   format, lint, types and the import order"
	@echo "make format  let ruff put the format right"
	@echo "make bench   speed of the engine, beside its peers where they are installed"
	@echo "make train   train the built-in matting networks from public pictures (SECATEUR_DATA=DIR, see recipes/modnet.py; a day on two cores, goes on where it was stopped)"
	@echo "make clean   remove the environment and what was built"

demo: $(VENV)/.demo
	@$(BIN)/secateur demo

test: $(VENV)/.test $(VENV)/.peers
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: $(VENV)/.test $(VENV)/.peers
	$(BIN)/python -m pytest -m 'slow or not slow' $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test $(VENV)/.peers
	$(BIN)/python benchmarks/engine.py

train: $(VENV)/.test
	$(BIN)/python recipes/modnet.py $(TRAIN_ARGS)

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.created:
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.demo $(VENV)/.test $(VENV)/.dev: $(VENV)/.%: $(VENV)/.created pyproject.toml constraints.txt
	@echo "installing secateur[$*] into $(VENV) (minutes, the first time) ..."
	@$(PIP) -e '.[$*]'
	@touch $@

$(VENV)/.peers: $(VENV)/.test
	@echo "installing other people's models into $(VENV), to compare with ..."
	@$(PIP) --no-deps $(PEERS) && $(PIP) huggingface_hub \
		|| echo "could not install $(PEERS): the tests that compare with them are skipped" >&2
	@touch $@
