# Everything sets itself up: `make demo` shows the main job, `make test` runs all that needs no account.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo picture test bench soak lint clean

$(VENV)/.ready: pyproject.toml requirements-dev.lock tests/setup.py
	@$(PYTHON) tests/setup.py venv $(VENV)
	@touch $@

demo: $(VENV)/.ready
	@$(RUN) tests/setup.py demo
	@$(RUN) tests/demo/demo.py

picture: $(VENV)/.ready
	@$(RUN) tests/setup.py demo
	@$(RUN) tests/demo/picture.py

test: $(VENV)/.ready
	@$(RUN) tests/setup.py test
	@$(RUN) -m ruff check .
	@$(RUN) -m pytest -m "not soak" -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

soak: $(VENV)/.ready
	@$(RUN) tests/setup.py test
	@$(RUN) -m pytest -m soak $(PYTEST_ARGS)

bench: $(VENV)/.ready
	@$(RUN) tests/setup.py bench
	@$(RUN) -m tests.bench $(BENCH_ARGS)

lint: $(VENV)/.ready
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

clean:
	@rm -rf $(VENV) dist .pytest_cache .ruff_cache .hypothesis
