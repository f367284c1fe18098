# Everything goes through here. `make help` lists the targets; the environment in .venv is built when it is needed.
#
#   PORT=9000 HOST=0.0.0.0 WORKERS=2 make serve      options of the server
#   ARGS="--log-sql" make serve                      any other option, of any command
#   PYTEST_ARGS="tests/web -k docs" make test        which tests, and how
#   PYTHON=/opt/python3.13/bin/python3 make serve    which Python builds the environment

.DEFAULT_GOAL := help
.PHONY: FORCE help serve test check format bench simulate demo verify migrate openapi docs lock clean
.SUFFIXES:

ROWLOCK = .venv/bin/rowlock
SOURCES = $(wildcard src tests benchmarks)
PYTEST_ARGS ?= -n 2 --dist worksteal

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1
export PIP_ROOT_USER_ACTION = ignore
unexport PYTHONHOME PYTHONPATH

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

serve: .venv/.runtime ## Serve the API, with a database of its own unless ROWLOCK_DATABASE_URL names one
	@exec $(ROWLOCK) serve $(if $(HOST),--host '$(HOST)') $(if $(PORT),--port '$(PORT)') \
		$(if $(WORKERS),--workers '$(WORKERS)') $(ARGS)

test: .venv/.dev ## Run the tests, against a PostgreSQL that they start and stop themselves
	@.venv/bin/python -m pytest $(PYTEST_ARGS)

check: .venv/.dev ## Lint, check the format, the types and who imports whom
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy $(SOURCES)
	.venv/bin/lint-imports --no-logo

format: .venv/.dev ## Format the code, and mend what can be mended by a tool
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/.dev ## Measure registrations per second
	@exec .venv/bin/python -m benchmarks $(ARGS)

simulate: .venv/.runtime ## Let many people register at once, and prove that nobody was sold a seat twice
	@exec $(ROWLOCK) simulate $(ARGS)

demo: .venv/.runtime ## Walk through the API, showing each request and its answer
	@exec $(ROWLOCK) demo $(ARGS)

verify: .venv/.runtime ## Recount orders, tickets and ledger against every counter
	@exec $(ROWLOCK) verify $(ARGS)

migrate: .venv/.runtime ## Bring the database's schema up to date (serve does it by itself)
	@exec $(ROWLOCK) migrate $(ARGS)

openapi: .venv/.runtime ## Print the OpenAPI document
	@exec $(ROWLOCK) openapi $(ARGS)

docs: .venv/.runtime ## Write the pages of docs/reference that are made from the code
	@.venv/bin/python docs/generate.py

lock: ## Choose the newest version of every dependency anew, and write down its hashes
	@$(require_python)
	@$(PYTHON) -m venv --clear build/lock
	@$(call quietly,build/lock/bin/python -m pip install uv)
	@$(COMPILE) --group dev --output-file requirements-dev.lock
	@$(COMPILE) --group build --constraint requirements-dev.lock --output-file requirements.lock
	@rm -rf build/lock

clean: ## Remove the environment and all caches; data of servers stay
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov
	find src tests $(wildcard benchmarks) -name __pycache__ -prune -exec rm -rf {} +

# The environment: .venv/.runtime says that what serving needs is installed, .venv/.dev that the tools are there too.
# One that does not fit (the checkout was moved, its Python is gone, setting it up broke off) is built anew.
FITS := $(shell .venv/bin/python -c "import os, pip, rowlock; print(os.path.samefile(rowlock.__path__[0], 'src/rowlock'))" 2>/dev/null)
ifneq ($(FITS),True)
.venv/.runtime: FORCE
endif

.venv/.runtime: requirements.lock pyproject.toml
	@$(require_python)
	@echo "Setting up Rowlock in .venv (about half a minute) …"
ifneq ($(FITS),True)
	@$(call quietly,$(PYTHON) -m venv --clear .venv)
endif
	@$(call quietly,.venv/bin/python -m pip install --require-hashes -r requirements.lock)
	@$(call quietly,.venv/bin/python -m pip install --no-build-isolation --no-deps --editable .)
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@echo "Adding the tools for development …"
	@$(call quietly,.venv/bin/python -m pip install --require-hashes -r requirements-dev.lock)
	@touch $@

# The first Python that is new enough and can make environments, which Debian's cannot without python3-venv.
PYTHONS = python3 python3.14 python3.13 python3.12 python3.11
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
USABLE = import ensurepip, venv; $(NEW_ENOUGH)
PYTHON ?= $(shell for it in $(PYTHONS); do "$$it" -c '$(USABLE)' 2>/dev/null && echo "$$it" && break; done)

define require_python
"$(PYTHON)" -c '$(USABLE)' 2>/dev/null || { \
	if [ "$(origin PYTHON)" != file ]; then \
		echo "PYTHON=$(PYTHON) is not a Python 3.11 or later with venv and ensurepip." >&2; exit 1; \
	fi; \
	for it in $(PYTHONS); do \
		if "$$it" -c '$(NEW_ENOUGH)' 2>/dev/null; then \
			echo "Rowlock needs Python's venv. On Debian or Ubuntu: apt install $$it-venv; else a Python from python.org." >&2; \
			exit 1; \
		fi; \
	done; \
	echo "Rowlock needs Python 3.11 or later: your system's, or one from python.org." >&2; \
	exit 1; \
}
endef

# Run a command, and show what it says only if it fails.
define quietly
log=$$(mktemp) && if $(1) >"$$log" 2>&1; then rm -f "$$log"; else cat "$$log" >&2; rm -f "$$log"; exit 1; fi
endef

COMPILE = build/lock/bin/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --custom-compile-command 'make lock'
