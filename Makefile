# Everything starts with scripts/bootstrap.sh, which makes .venv once and then costs nothing.
# Kept to what GNU make 3.81 knows, the one that macOS has.

.DEFAULT_GOAL := help
.PHONY: help bootstrap run test mutants bench bench-quick demo simulate lint format lock psql stop \
	reset clean

PYTHON_IN_VENV := .venv/bin/python
SHELL := /bin/sh

help: ## show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

bootstrap:
	@sh scripts/bootstrap.sh

# exec, so that Ctrl-C and kill reach the service and not a shell in between.
run: bootstrap ## start the service and its own PostgreSQL on port 8080 (PORT=...), until Ctrl-C
	@exec $(PYTHON_IN_VENV) -m hq_service serve

# A file stays in one process, which has a server of its own: its tests share a database. Not so
# many tests at once: ARGS="-n 0".
test: bootstrap ## run the tests on a throwaway PostgreSQL (ARGS="-k lock" and the like)
	@exec $(PYTHON_IN_VENV) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

# Not part of the tests: it runs them once for each defect that it plants in a copy of the tree.
mutants: bootstrap ## plant defects and see that the tests find each (ARGS="--list", "--only NAME")
	@exec $(PYTHON_IN_VENV) -m tests.mutants.run $(ARGS)

bench: bootstrap ## measure the service beside PostgreSQL and Flask (ARGS="--only redeem")
	@exec $(PYTHON_IN_VENV) -m benchmarks $(ARGS)

bench-quick: bootstrap ## the same from less work, in two minutes
	@exec $(PYTHON_IN_VENV) -m benchmarks --quick $(ARGS)

demo: bootstrap ## lock, redeem and settle an offline batch twice, and print the balances
	@exec $(PYTHON_IN_VENV) -m hq_service demo

simulate: bootstrap ## let a fleet of tills lose its connections, and compare (ARGS="--seed 8")
	@exec $(PYTHON_IN_VENV) -m hq_service simulate --outages --break-locks $(ARGS)

lint: bootstrap ## check style, format, types and the Compose file
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m mypy
	$(PYTHON_IN_VENV) -m check_jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: bootstrap ## put the code into the one format, and mend what can be mended
	$(PYTHON_IN_VENV) -m ruff check --fix .
	$(PYTHON_IN_VENV) -m ruff format .

# No address of an index and no local path may come into a lock: it must work for everybody.
LOCK := uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
	--python-version 3.11

lock: ## refresh the hash locks after editing requirements/*.in (ARGS=--upgrade for newest versions)
	@command -v uv >/dev/null || { echo "make lock needs uv: pipx install uv" >&2; exit 1; }
	@$(LOCK) $(ARGS) requirements/runtime.in --output-file requirements/runtime.lock >/dev/null
	@$(LOCK) $(ARGS) requirements/development.in --constraints requirements/runtime.lock \
		--output-file requirements/development.lock >/dev/null
	@! grep -n '://' requirements/*.lock

psql: bootstrap ## open psql on the service's own PostgreSQL
	@exec $(PYTHON_IN_VENV) -m hq_service db psql

stop: bootstrap ## stop the service's own PostgreSQL (ARGS=--force while a service uses it)
	@exec $(PYTHON_IN_VENV) -m hq_service db stop $(ARGS)

reset: bootstrap ## delete the service's own PostgreSQL with all data, after asking (ARGS=--yes)
	@exec $(PYTHON_IN_VENV) -m hq_service db reset $(ARGS)

clean: ## remove .venv and every cache; the data stays
	@sh scripts/clean.sh
