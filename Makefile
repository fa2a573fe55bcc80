# make demo    set everything up, train and evaluate a detector on real faces, draw pictures (about 5 minutes)
# make test    set everything up and run lint, types and tests
# make wheel   build the one wheel, for any Python >= 3.11 and torch >= 2.10
# make clean   remove what was built, but not .venv and runs

PYTHON ?= python3
# torch and torchvision must pair. For another CUDA or torch: make test TORCH="torch==2.13.* torchvision==0.28.*"
TORCH ?= torch==2.14.* torchvision==0.29.*

BIN := .venv/bin
PACKAGING := setup.cfg setup.py pyproject.toml
SOURCES := $(shell find csrc -type f 2>/dev/null)

.PHONY: demo test lint wheel clean

demo: .venv/installed-demo .venv/built
	$(BIN)/python tools/make_demo_data.py data/demo
	$(BIN)/python tools/train.py configs/demo.yaml --resume
	$(BIN)/python tools/evaluate.py runs/demo/best.pt --output runs/demo
	$(BIN)/python tools/predict.py runs/demo/best.pt data/demo/images/val --output runs/demo/pictures --limit 24
	@echo
	@echo "The trained detector, its log, metrics and curve are in runs/demo:"
	@echo "  runs/demo/metrics.json   what it scores on the validation images"
	@echo "  runs/demo/curves.png     its training"
	@echo "  runs/demo/pictures/      its detections, contact_sheet.png first"

test: lint
	$(BIN)/python -m pytest

lint: .venv/installed-test .venv/built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy detkit

wheel: .venv/torch
	$(BIN)/python -m pip wheel --no-build-isolation --no-deps --wheel-dir dist .

# The environment in three steps, each redone only when what it depends on is newer.
.venv/torch: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "detkit needs Python 3.11 or newer; found $$($(PYTHON) --version). Run: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip 'setuptools>=77' wheel
	@echo "Installing torch and torchvision (up to 5.5 GB with CUDA; once)"
	$(BIN)/python -m pip install $(patsubst %,'%',$(TORCH))
	touch $@

.venv/installed-%: .venv/torch $(PACKAGING)
	PYTHONWARNINGS=ignore DETKIT_BUILD=0 $(BIN)/python -m pip install --quiet --no-build-isolation -e '.[$*]'
	touch $@

.venv/built: .venv/torch setup.py $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace
	touch $@

clean:
	rm -rf build dist *.egg-info detkit/ops/*.so .venv/built
