# Every target does all of its own set-up from a fresh clone; `make help` lists them.
#
#   .venv-base   the base install alone (no torch): what a person who only draws has, and what the base tests run in
#   .venv        everything: torch, the training extra, the checks' tools
#   .venv-bench  the package installed as a user would, without tests: what is weighed and timed
#
# A stamp in each environment makes a second call fast; a changed pyproject.toml makes it install again.

PYTHON ?= python3
TORCH_SPEC ?= torch==2.13.0
PROMPT ?= космос внутри чайной чашки
OUT ?= out
BUNDLE ?= out/training-bundle.zip
SHARDS ?= data/shards
ARGS ?=
PYTEST_ARGS ?=

BASE := .venv-base
FULL := .venv
BENCH := .venv-bench
PIP_FLAGS := --quiet --disable-pip-version-check

export PROMPT OUT
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help draw studio test test-base test-torch check format promises browser soak bench ledger curves tables train-bundle clean

help:
	@echo 'make draw PROMPT="космос внутри чайной чашки"   set up the base install and draw into $(OUT)/ (ARGS="-n 4 --seed 7")'
	@echo 'make studio         set up the base install and open the studio in the browser (ARGS="--port 8188")'
	@echo 'make test           set up and run the tests: first without torch, then those that need it'
	@echo 'make check          format, lint, types, import contracts, tests'
	@echo 'make promises       the slow promises: the clean wheel, offline, torch-free'
	@echo 'make browser        the browser tests'
	@echo 'make soak           twenty thousand requests that are made of the OpenAPI document'
	@echo 'make bench          the figures: cold and warm drawing, import time, install size'
	@echo 'make ledger         what the package weighs, file by file, into docs/models/ledger.md'
	@echo 'make curves         the curves of all trainings, from docs/models/logs'
	@echo 'make tables         all tables and sheets of the weights in the tree, beside the training data in $(SHARDS)'
	@echo 'make train-bundle   pack what training needs on a bare machine into $(BUNDLE)'
	@echo 'make format         let ruff rewrite what it can'
	@echo 'make clean          remove environments, caches and build results (not $(OUT)/)'
	@echo 'PYTHON=python3.12 picks the interpreter, TORCH_SPEC=... the torch to install (now $(TORCH_SPEC))'

# --- environments -------------------------------------------------------------------------------------------------------

define new-venv
@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"chashka needs Python 3.11 or newer; $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 $(MAKECMDGOALS)")'
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || { rm -rf $(1); echo "cannot create $(1) with $(PYTHON) -m venv (on Debian: apt-get install python3-venv)" >&2; exit 1; }
endef

$(BASE)/.installed: pyproject.toml
	$(call new-venv,$(BASE))
	@echo "setting up $(BASE) (base install, no torch)"
	@$(BASE)/bin/python -m pip install $(PIP_FLAGS) -e .
	@touch $@

$(BASE)/.tests: $(BASE)/.installed
	@$(BASE)/bin/python -m pip install $(PIP_FLAGS) -e '.[test]'
	@touch $@

$(FULL)/.installed: pyproject.toml
	$(call new-venv,$(FULL))
	@echo "setting up $(FULL) (everything, $(TORCH_SPEC))"
	@$(FULL)/bin/python -m pip install $(PIP_FLAGS) '$(TORCH_SPEC)'
	@$(FULL)/bin/python -m pip install $(PIP_FLAGS) -e '.[dev]' '$(TORCH_SPEC)'
	@touch $@

# --- the two main jobs --------------------------------------------------------------------------------------------------

draw: $(BASE)/.installed
	@$(BASE)/bin/chashka draw "$$PROMPT" --out "$$OUT" $(ARGS)

studio: $(BASE)/.installed
	@$(BASE)/bin/chashka studio $(ARGS)

test: test-base test-torch

test-base: $(BASE)/.tests
	@if $(BASE)/bin/python -c 'import torch' 2>/dev/null; then echo 'torch is in $(BASE), which must stay without it: rm -r $(BASE)' >&2; exit 1; fi
	$(BASE)/bin/python -m pytest -m 'not torch and not extra and not promise' $(PYTEST_ARGS)

test-torch: $(FULL)/.installed
	$(FULL)/bin/python -m pytest -m '(torch or extra) and not promise' --ignore=tests/browser $(PYTEST_ARGS)

# --- checks -------------------------------------------------------------------------------------------------------------

check: $(FULL)/.installed
	$(FULL)/bin/ruff format --check .
	$(FULL)/bin/ruff check .
	$(FULL)/bin/mypy
	$(FULL)/bin/mypy benchmarks
	$(FULL)/bin/lint-imports
	@$(MAKE) --no-print-directory test

format: $(FULL)/.installed
	$(FULL)/bin/ruff format .
	$(FULL)/bin/ruff check --fix .

promises: $(FULL)/.installed
	$(FULL)/bin/python -m pytest -s -m promise $(PYTEST_ARGS)

browser: $(FULL)/.installed
	$(FULL)/bin/python -m pytest tests/browser $(PYTEST_ARGS)

soak: $(FULL)/.installed
	CHASHKA_SOAK_REQUESTS=20000 $(FULL)/bin/python -m pytest -s tests/promises/test_openapi_promise.py

# Installed anew every time: what was measured is then what is in the tree.
bench:
	$(call new-venv,$(BENCH))
	@$(BENCH)/bin/python -m pip install $(PIP_FLAGS) --upgrade --force-reinstall --no-deps .
	@$(BENCH)/bin/python -m pip install $(PIP_FLAGS) .
	@$(BENCH)/bin/python benchmarks/import_time.py
	@$(BENCH)/bin/python benchmarks/install_size.py
	@$(BENCH)/bin/python benchmarks/cold_draw.py
	@$(BENCH)/bin/python benchmarks/warm_draw.py

# The wheel is built anew, so that its size is that of the tree.
ledger: $(FULL)/.installed
	@rm -rf build/ledger
	@$(FULL)/bin/python -m build --wheel --no-isolation --outdir build/ledger . >/dev/null
	@$(FULL)/bin/chashka models ledger --plans docs/models/planned.toml --wheel build/ledger/*.whl --out docs/models/ledger.md
	@rm -rf build/ledger

# Runs in the order of training. The U-Net's first four predicted something else, and from the sixteenth on it knows other latents: those
# errors do not compare.
UNETS := first second third fourth fifth sixth seventh eighth ninth tenth twelfth thirteenth fourteenth fifteenth sixteenth seventeenth twenty-second twenty-third twenty-fourth twenty-fifth
CURVES := autoencoder clip t5 picture distil judge-a judge-b stable
RUNS_autoencoder := autoencoder autoencoder-second decoder-first
RUNS_clip := clip-first clip-second clip-third clip-fourth clip-fifth clip-sixth clip-seventh
RUNS_t5 := t5-first t5-second t5-third t5-fourth t5-fifth t5-sixth
RUNS_picture := picture picture-third picture-fourth picture-fifth picture-sixth
RUNS_distil := distil-first distil-second distil-third
RUNS_judge-a := judge-a-first judge-a-second
RUNS_judge-b := judge-b-first judge-b-second
RUNS_stable := stable-first stable-second stable-third
logs = $(patsubst %,docs/models/logs/%.jsonl,$(1))

curves: $(FULL)/.installed
	@$(FULL)/bin/chashka evaluate curve $(call logs,$(addprefix unet-,$(UNETS))) --anew unet-fifth --anew unet-sixteenth --presentations \
		--title "The U-Net's runs" --out docs/models/kandinsky-teacup/curve.svg
	@mkdir -p docs/models/curves
	@$(foreach stage,$(CURVES),$(FULL)/bin/chashka evaluate curve $(call logs,$(RUNS_$(stage))) --presentations \
		$(if $(filter stable,$(stage)),--anew stable-second --anew stable-third) --title $(stage) --out docs/models/curves/$(stage).svg &&) true

# Everything in docs/models/kandinsky-teacup that is drawn by the weights in the tree, in turn. What was stopped in the
# composed prompts goes on. Precision wants an export beside it, and versions a name: docs/models/README.md.
TABLES := docs/models/kandinsky-teacup
LANGUAGES := en,ru,de,fr,mn,fa
EVALUATE := $(FULL)/bin/chashka evaluate
tables: $(FULL)/.installed
	$(EVALUATE) recognition -n 2 --shards $(SHARDS) --out $(TABLES)/recognition.json
	$(EVALUATE) recognition -n 2 --fast --shards $(SHARDS) --out $(TABLES)/drafts/recognition.json
	$(EVALUATE) sheet --shards $(SHARDS) --out $(TABLES)
	$(EVALUATE) sheet --fast --shards $(SHARDS) --out $(TABLES)/drafts
	$(EVALUATE) teacup --languages $(LANGUAGES) --out $(TABLES)/composition
	$(EVALUATE) teacup --fast --languages $(LANGUAGES) --out $(TABLES)/drafts/composition
	$(EVALUATE) teacup --reworded --languages $(LANGUAGES) --out $(TABLES)/reworded
	$(EVALUATE) teacup --steps 20 --languages en --out $(TABLES)/twenty-steps
	$(EVALUATE) distribution --shards $(SHARDS) --out $(TABLES)
	$(EVALUATE) memory --shards $(SHARDS) --out $(TABLES)
	$(EVALUATE) thresholds --shards $(SHARDS) --out $(TABLES)/thresholds.json

train-bundle: $(FULL)/.installed
	@mkdir -p "$(dir $(BUNDLE))"
	@$(FULL)/bin/python -m chashka.training.bundle "$(BUNDLE)"

clean:
	rm -rf $(BASE) $(FULL) $(BENCH) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
