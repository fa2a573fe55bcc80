# make demo        set everything up, train and evaluate a detector on real faces, draw pictures, and compare three ways
#                  to train it (about 10 minutes)
# make test        set everything up and run lint, types and tests
# make wheel       build the one wheel, for any Python >= 3.11 and torch >= 2.10
# make test-wheel  build it, and test its ops beside other releases of torch, in environments of their own
# make test-gpu    build for the GPU and test the ops there; it fails where there is no GPU
# make bench       measure the ops and a training step on the CPU, the quick way; in full (hours): make bench BENCH=
# make bench-gpu   the same on the GPU; in full: make bench-gpu BENCH=
# make clean       remove what was built, but not .venv and runs

PYTHON ?= python3
# torch and torchvision must pair. For another CUDA or torch: make test TORCH="torch==2.13.* torchvision==0.28.*"
TORCH ?= torch==2.14.* torchvision==0.29.*

# The other releases of torch that the wheel is tested beside, each of which is downloaded once.
WHEEL_TORCHES ?= 2.13.0
# What runs on a GPU, with torch and pytest alone.
GPU_TESTS ?= tests/ops/test_cuda.py tests/ops/test_cuda_device.py
BENCH ?= --quick

BIN := .venv/bin
# What finds no .venv, on a machine with a GPU and a torch of its own, runs with the interpreter that is there.
AT_HAND = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
PACKAGING := setup.cfg setup.py pyproject.toml
SOURCES := $(shell find csrc -type f 2>/dev/null)
BENCHMARKS := $(wildcard benchmarks/ops.py benchmarks/step.py)
SANITIZER := $(firstword $(shell command -v compute-sanitizer) $(wildcard /usr/local/cuda/bin/compute-sanitizer))
WHEEL_TESTS := $(WHEEL_TORCHES:%=test-wheel-%)

.PHONY: demo test lint wheel test-wheel test-wheel-own wheel-under-test $(WHEEL_TESTS) test-gpu bench bench-gpu clean

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
	@echo
	$(BIN)/python tools/compare.py configs/compare/demo-quick.yaml
	@echo "Open runs/demo/comparison/report.html: cross entropy, focal loss and bootstrapping at equal compute."

# A process for each core, of one thread each: more use of the cores than small tensors make of threads.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

lint: .venv/installed-test .venv/built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy detkit

# Without an older build's copies of modules, which would be packed although they are gone.
BUILD_WHEEL = rm -rf build/lib*; $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir

wheel: .venv/torch
	$(BUILD_WHEEL) dist .

# The tests of the ops with an installed detkit: -P, and a folder beside it, keep the checkout's out of sight. Those of
# csrc's headers are left out, which are no part of the wheel.
CHECK_WHEEL = import sys, torch; from detkit.ops import _library as found; \
	print("torch", torch.__version__, "with", found.__file__); \
	sys.exit(found.CPU.reason or "$(CURDIR)/detkit/" in found.__file__ and "those are not of the wheel")
TEST_WHEEL = -P -m pytest -p no:cacheprovider $(CURDIR)/tests/ops --ignore=$(CURDIR)/tests/ops/test_formulas.py

test-wheel: test-wheel-own $(WHEEL_TESTS)

# Beside .venv's own torch, in a folder that Python looks in first.
test-wheel-own: wheel-under-test
	$(BIN)/python -m pip install --quiet --no-deps --target build/wheel/own build/wheel/*.whl
	cd build/wheel && PYTHONPATH=$(CURDIR)/build/wheel/own $(abspath $(BIN))/python -P -c '$(CHECK_WHEEL)'
	cd build/wheel && PYTHONPATH=$(CURDIR)/build/wheel/own $(abspath $(BIN))/python $(TEST_WHEEL)

$(WHEEL_TESTS): test-wheel-%: build/wheel-env-%/installed wheel-under-test
	build/wheel-env-$*/bin/python -m pip install --quiet --no-deps --force-reinstall build/wheel/*.whl
	cd build/wheel && ../wheel-env-$*/bin/python -P -c '$(CHECK_WHEEL)'
	cd build/wheel && ../wheel-env-$*/bin/python $(TEST_WHEEL)

wheel-under-test: .venv/installed-test .venv/built
	rm -rf build/wheel
	$(BUILD_WHEEL) build/wheel .

build/wheel-env-%/installed: | .venv/torch
	$(BIN)/python -m venv --clear build/wheel-env-$*
	build/wheel-env-$*/bin/python -m pip install --quiet 'torch==$*' pytest hypothesis numpy
	touch $@

CHECK_GPU = import sys, torch; from detkit.ops import _library as found; \
	print("torch", torch.__version__, "with", *map(torch.cuda.get_device_name, range(torch.cuda.device_count()))); \
	sys.exit(found.CUDA.reason or not torch.cuda.is_available() and "torch finds no GPU")

test-gpu bench-gpu: export PYTHONPATH := .

test-gpu:
	$(AT_HAND) setup.py --quiet build_ext --inplace
	$(AT_HAND) -c '$(CHECK_GPU)'
	$(AT_HAND) -m pytest $(GPU_TESTS)
ifeq ($(SANITIZER),)
	@echo "compute-sanitizer is not found: its memcheck and racecheck are left out"
else
	for tool in memcheck racecheck; do \
		PYTORCH_NO_CUDA_MEMORY_CACHING=1 $(SANITIZER) --tool $$tool --error-exitcode 1 --target-processes all \
			$(AT_HAND) -m pytest -m sanitize $(GPU_TESTS) || exit 1; \
	done
endif

bench: .venv/installed-test .venv/built
	for benchmark in $(BENCHMARKS); do $(BIN)/python $$benchmark $(BENCH) || exit 1; done

bench-gpu:
	$(AT_HAND) setup.py --quiet build_ext --inplace
	for benchmark in $(BENCHMARKS); do $(AT_HAND) $$benchmark --device cuda $(BENCH) || exit 1; done

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
