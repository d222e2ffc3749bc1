# `make run` starts the page, `make test` runs every check; both set up what they need. `make lightx2v` adds LightX2V,
# `make ray` more machines.

# The first interpreter that runs (a pyenv shim may not) and is 3.11 or 3.12.
RIGHT := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p -c '$(RIGHT)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Debian splits venv from Python; install the one of this interpreter where we may.
APT := $(if $(filter 0,$(shell id -u)),,sudo -n) env DEBIAN_FRONTEND=noninteractive apt-get -qq
# What is imported is compiled then; to compile every file of torch takes longer than the rest of installing it.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-compile

# Settings of the shell that would put other packages into the environment, or ours somewhere else; or have every start
# compile everything again.
unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PYTHONDONTWRITEBYTECODE
export PIP_USER := 0

.PHONY: run test test-upstream lightx2v dwpose ray lint lock audit clean

run: $(VENV)/.installed
	$(BIN)/python app.py

test: $(VENV)/.installed-dev
	$(BIN)/python tools/install_chromium.py
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadgroup

# make test-upstream LIGHTX2V=/path/to/LightX2V MUSETALK=/path/to/MuseTalk FASTVIDEO=/path/to/FastVideo: our code
# against theirs, on the CPU.
test-upstream: $(VENV)/.installed-upstream
	@$(if $(LIGHTX2V)$(MUSETALK)$(FASTVIDEO),,echo "Say where a checkout is: make test-upstream LIGHTX2V=/path MUSETALK=/path FASTVIDEO=/path"; exit 1)
	CUDA_VISIBLE_DEVICES= $(if $(LIGHTX2V),WAN_UI_LIGHTX2V_PATH=$(abspath $(LIGHTX2V))) \
		$(if $(MUSETALK),WAN_UI_MUSETALK_PATH=$(abspath $(MUSETALK))) \
		$(if $(FASTVIDEO),WAN_UI_FASTVIDEO_PATH=$(abspath $(FASTVIDEO))) \
		$(BIN)/python -m pytest -n 2 $(if $(LIGHTX2V),tests/lightx2v) $(if $(MUSETALK),tests/lipsync) \
		$(if $(FASTVIDEO),tests/fastvideo)

lightx2v: $(VENV)/.installed
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.version.cuda else "LightX2V needs a CUDA build of torch; \
this one is for the CPU. A checkout can still be tried: WAN_UI_LIGHTX2V_PATH")'
	$(PIP) --no-deps -r requirements-lightx2v.txt

dwpose: $(VENV)/.installed
	$(PIP) --no-deps -r requirements-dwpose.txt

ray: $(VENV)/.installed
	$(PIP) -r requirements-ray.txt

lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# After a pin has changed: the lock files, with all checksums. It asks the package index.
lock: | $(BIN)/python
	$(PIP) -qq pip-tools==7.6.2
	$(BIN)/python tools/lock.py

# Known weaknesses of what is installed. It asks an advisory service, so it is no part of `make test`. An exception is an
# --ignore-vuln here, with its reason in SECURITY.md.
audit: $(VENV)/.installed
	$(PIP) -qq pip-audit==2.10.1
	$(BIN)/python -m pip_audit --strict --disable-pip --no-deps --require-hashes -r requirements.lock

$(BIN)/python:
	@$(or $(PYTHON),false) -c '$(RIGHT)' || \
		{ echo "Wan UI needs Python 3.11 or 3.12; say which with: make run PYTHON=/path/to/python3.12"; exit 1; }
	@rm -rf $(VENV)  # of an interpreter that is gone, with the packages of its version
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
		{ rm -rf $(VENV); $(APT) update; $(APT) install -y $(notdir $(PYTHON))-venv && $(PYTHON) -m venv $(VENV); } || \
		{ echo "Python's venv module is missing: sudo apt-get install $(notdir $(PYTHON))-venv"; rm -rf $(VENV); exit 1; }

# Each package is the one of the lock file, to its checksum; torch, of which there are several, follows by its version.
$(VENV)/.installed: requirements.txt requirements.lock | $(BIN)/python
	@echo "Installing what Wan UI needs into $(VENV): a gigabyte or more, once"
	@$(PIP) -qq --no-deps --require-hashes -r requirements.lock
	@$(PIP) -qq "$$(grep '^torch==' requirements.txt)"
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-dev.lock requirements-dwpose.txt $(VENV)/.installed
	@$(PIP) -qq --no-deps --require-hashes -r requirements-dev.lock
	@$(PIP) -qq --no-deps -r requirements-dwpose.txt
	@touch $@

$(VENV)/.installed-upstream: requirements-upstream.txt $(VENV)/.installed-dev
	@$(PIP) -qq -r requirements-upstream.txt
	@touch $@

clean:
	rm -rf $(VENV) test-artifacts .pytest_cache .ruff_cache .mypy_cache
