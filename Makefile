# Everything on a fresh machine: `make train` and `make test` set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: train test bench area activity clean

train: $(READY)
	$(BIN)/lns-sim train

test: $(READY)
	$(BIN)/python -m pytest

bench: $(READY)
	$(BIN)/lns-sim bench

area: $(READY)
	$(BIN)/python -m benchmarks.area

activity: $(READY)
	$(BIN)/python -m benchmarks.activity

# The environment is made once; the extension is rebuilt when its sources change.
$(VENV)/.installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "lns_sim needs Python 3.10 or newer, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(READY): $(VENV)/.installed setup.py pyproject.toml lns_sim/version.py $(shell find csrc -type f)
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	touch $@

clean:
	rm -rf build *.egg-info lns_sim/*.so $(VENV)
