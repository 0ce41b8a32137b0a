# Every target does its own set-up; a bare machine with Python 3.11+ and pip is enough.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
LABEL_STUDIO_VENV := .venv-label-studio
LABEL_STUDIO_VERSION := 1.23.2
LABEL_STUDIO_ML_VENV := .venv-label-studio-ml
LABEL_STUDIO_ML_VERSION := 1.0.9
# The CPU wheel first: plain `torch` would pull gigabytes of CUDA.  Set TORCH= to keep one of your own.
TORCH ?= torch==2.13.0
REPORT ?= demo-report
SEED ?= 0
HOST_THREADS := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2}

.DEFAULT_GOAL := help
.PHONY: help install install-label-studio install-label-studio-ml demo demo-check test test-fast lint format bench latency soak docs clean evaluate-tiny

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the CPU build of torch and everything else into $(VENV) (a few minutes the first time)."
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(TORCH)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(MAKE) --no-print-directory install-crf
	touch $@

.PHONY: install-crf
install-crf:
	@CPPFLAGS="-DNPY_IN_ARRAY=NPY_ARRAY_IN_ARRAY" $(VENV)/bin/pip install --quiet --disable-pip-version-check setuptools wheel simplecrf==0.2.1.1 --no-build-isolation \
	  || echo "SimpleCRF could not be built here (needs a C++ compiler and Python headers); the dense-crf refiner stays off, everything else works."

install: $(VENV)/.installed ## Make .venv with everything the project and its tests need

$(LABEL_STUDIO_VENV)/.installed-$(LABEL_STUDIO_VERSION):
	$(PYTHON) -m venv $(LABEL_STUDIO_VENV)
	@echo "Installing Label Studio $(LABEL_STUDIO_VERSION) into $(LABEL_STUDIO_VENV) (about 1 GB, a minute or two)."
	$(LABEL_STUDIO_VENV)/bin/pip install --quiet --disable-pip-version-check label-studio==$(LABEL_STUDIO_VERSION)
	touch $@

install-label-studio: $(LABEL_STUDIO_VENV)/.installed-$(LABEL_STUDIO_VERSION) ## Make Label Studio's own environment

# label-studio-ml pins Flask 1.1.2 and Werkzeug 2.0.2, so its environment is its own; torch and what else the two agree on
# is read out of $(VENV), after its own packages, which spares CI a second 1.6 GB.  redis and rq: it imports them and
# does not say so.
$(LABEL_STUDIO_ML_VENV)/.installed-$(LABEL_STUDIO_ML_VERSION): $(VENV)/.installed
	rm -rf $(LABEL_STUDIO_ML_VENV)
	$(PYTHON) -m venv $(LABEL_STUDIO_ML_VENV)
	@echo "Installing label-studio-ml $(LABEL_STUDIO_ML_VERSION) into $(LABEL_STUDIO_ML_VENV)."
	$(LABEL_STUDIO_ML_VENV)/bin/pip install --quiet --disable-pip-version-check label-studio-ml==$(LABEL_STUDIO_ML_VERSION) redis rq
	$(PY) -c "import sysconfig; print(sysconfig.get_path('purelib'))" > "$$($(LABEL_STUDIO_ML_VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/zz-shared.pth"
	$(LABEL_STUDIO_ML_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

install-label-studio-ml: $(LABEL_STUDIO_ML_VENV)/.installed-$(LABEL_STUDIO_ML_VERSION) ## Make label-studio-ml's own environment, with the adapter

.PHONY: install-postgresql
install-postgresql: ## PostgreSQL's programs for the tests, which start a server of their own (root on Debian or Ubuntu)
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null; } \
	  || { [ -z "$$OVAM_REQUIRE_POSTGRES" ] && echo "PostgreSQL cannot be installed here; its tests will be skipped."; }

.PHONY: install-chromium
install-chromium: ## Chromium for the tests of the pages (root on Debian)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || { [ -z "$$OVAM_REQUIRE_BROWSER" ] && echo "Chromium cannot be installed here; the tests of the pages in a browser will be skipped."; }

demo: install install-label-studio ## Start the whole loop in the browser on this machine
	$(HOST_THREADS) $(VENV)/bin/ovam-labeler demo

demo-check: install install-label-studio ## Play the annotator and write REPORT=folder (SEED=N)
	$(HOST_THREADS) $(VENV)/bin/ovam-labeler demo --headless --report "$(REPORT)" --seed "$(SEED)"

evaluate-tiny: install ## Every figure of the embedded model beside its bar (QUICK=1: every third concept)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check resvg-py || echo "without resvg-py the unseen styles are left out"
	OMP_NUM_THREADS=1 $(PY) -m ovam_labeler.evaluation.embedded $(if $(QUICK),--quick)

test: install install-label-studio install-label-studio-ml install-postgresql install-chromium ## All tests
	$(HOST_THREADS) $(PY) -m pytest

test-fast: install install-postgresql ## Tests without the real Label Studio and without slow ones
	$(HOST_THREADS) $(PY) -m pytest -m "not real_label_studio and not slow"

lint: install ## ruff, mypy, import rules, compose and Dockerfile
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	LABEL_STUDIO_PASSWORD=lint LABEL_STUDIO_USER_TOKEN=lint OVAM_WEBHOOK_SECRET=lint $(VENV)/bin/docker-compose -f compose.yaml config -q
	$(VENV)/bin/hadolint Dockerfile

format: install ## Reformat the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: install ## Benchmarks as ratios in one run (JSON=file to keep them)
	$(HOST_THREADS) $(PY) -m benchmarks $(if $(JSON),--json "$(JSON)")

latency: install install-label-studio ## From webhook to new model version, beside Label Studio's page loads (JSON=file)
	$(HOST_THREADS) $(PY) -m benchmarks.latency $(if $(JSON),--json "$(JSON)")

soak: install install-label-studio install-postgresql ## The long runs
	$(HOST_THREADS) OVAM_SOAK=1 $(PY) -m pytest -s tests/soak
	$(HOST_THREADS) OVAM_FUZZ=10000 $(PY) -m pytest -s tests/unit/label_studio/test_fuzz.py
	$(HOST_THREADS) OVAM_CONTEND_SECONDS=60 OVAM_KILLS=50 $(PY) -m pytest -s tests/unit/token_store/test_store_under_load.py

docs: install ## Regenerate the generated parts of docs/ (CLI help, settings)
	$(PY) -m docs.generate

clean: ## Remove what the targets made (not the demo's data)
	rm -rf $(VENV) $(LABEL_STUDIO_ML_VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
