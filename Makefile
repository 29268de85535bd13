# Everything on a fresh machine: `make train` and `make test` set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := $(VENV)-oldest
OLDEST_TORCH := 2.10.0
# Tests run in as many processes as the machine has processors, a file in one, the longest (core, hardware) first. Each has two threads,
# so that kernels cut their work whatever the machine, and they sleep while they wait.
WORKERS := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
test test-fast test-nightly: export OMP_NUM_THREADS := 2
test test-fast test-nightly: export OMP_WAIT_POLICY := passive

.PHONY: train test test-fast test-gpu test-gpus test-nightly test-oldest lint docs bench lock area activity cells formal clean

train: $(READY)
	$(BIN)/lns-sim train

test: $(READY)
	$(BIN)/python -m pytest $(WORKERS)

# What takes under two minutes on two cores.
test-fast: $(READY)
	$(BIN)/python -m pytest -m fast $(WORKERS)

# What runs on a GPU, on one of them: under eight minutes with 16 cores.
test-gpu: $(READY)
	$(BIN)/python -c 'from lns_sim.checks import check_device; check_device("cuda")'
	$(BIN)/python -m pytest -m "gpu and not gpus" -n auto

# What needs two GPUs, all tests at once, as they mostly wait for processes that start: under three minutes.
test-gpus: $(READY)
	$(BIN)/python -c 'from lns_sim.checks import check_device; check_device("cuda:1")'
	$(BIN)/python -m pytest -m gpus -n 8

# Examples that nobody has tried yet; SEED=N repeats a run.
test-nightly: SEED := $(or $(SEED),$(shell od -An -N4 -tu4 /dev/urandom | tr -d ' '))
test-nightly: $(READY)
	@echo "hypothesis seed: $(SEED)"
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest --hypothesis-seed=$(SEED) $(WORKERS)

# The binary that the current torch built, in the oldest torch that it promises to run in; and torchvision's,
# timm's and diffusers' models.
test-oldest: $(READY) $(OLDEST)/.installed
	PYTHONPATH=$(CURDIR) $(OLDEST)/bin/python -m pytest -m fast

# Layout and rules of Python and C++, and the types of what users call (pyproject.toml, .clang-format).
lint: $(VENV)/.installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.inc' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/mypy

# The site, into build/site; a link that leads nowhere is an error.
docs: $(READY) $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "wrote build/site/index.html"

bench: $(READY)
	$(BIN)/lns-sim bench

area: $(READY)
	$(BIN)/python -m csrc.rtl.synthesis.area

activity: $(READY)
	$(BIN)/python -m csrc.rtl.synthesis.activity

# On OSU 0.18 um; LIBERTY=FILE NODE=NM measures on cells of your own, and leaves what the energy model reads as it is.
cells: $(READY)
	$(BIN)/python -m csrc.rtl.synthesis.cells $(if $(LIBERTY),--liberty $(LIBERTY)) $(if $(NODE),--node $(NODE))

formal: $(READY)
	$(BIN)/python -m csrc.rtl.formal

# Needs uv (pip install uv). On platforms other than Linux the environment is not pinned.
lock: requirements.txt
	(echo '# Every package of the environment on Linux, for every Python: constraints, of which a machine takes what applies. `make lock` writes'; \
	echo '# this file from requirements.txt.'; \
	uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate --no-emit-index-url $< \
	| grep -vE "== '(win32|emscripten|darwin)'") > requirements.lock.partial
	mv requirements.lock.partial requirements.lock

# The environment is made once; the extension is rebuilt when its sources change.
$(VENV)/.installed: requirements.txt requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "lns_sim needs Python 3.10 or newer, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt -c requirements.lock
	touch $@

$(VENV)/.docs: $(VENV)/.installed docs/site/requirements.txt
	$(BIN)/python -m pip install --quiet -r requirements.txt -r docs/site/requirements.txt -c requirements.lock
	touch $@

# On Linux this torch comes with CUDA's libraries: 3 GB to fetch, 8 GB on the disk.
$(OLDEST)/.installed: requirements.txt requirements.lock tests/models/requirements.txt
	$(PYTHON) -m venv $(OLDEST)
	sed 's/^torch==.*/torch==$(OLDEST_TORCH)/' requirements.txt > $(OLDEST)/requirements.txt
	sed -E '/^(torch==|triton|nvidia-|cuda-|setuptools)/d' requirements.lock > $(OLDEST)/requirements.lock
	$(OLDEST)/bin/python -m pip install --quiet --no-cache-dir -r $(OLDEST)/requirements.txt -c $(OLDEST)/requirements.lock -r tests/models/requirements.txt
	touch $@

$(READY): $(VENV)/.installed setup.py pyproject.toml lns_sim/version.py $(shell find csrc -path csrc/rtl -prune -o -type f -print)
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	touch $@

clean:
	rm -rf build *.egg-info lns_sim/*.so $(VENV) $(OLDEST)
