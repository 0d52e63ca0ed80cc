# Two commands do everything on a fresh Debian machine: `make demo` and `make test`.
# Missing Debian packages are installed when you are root, else named with the command.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What a device or a build host needs, then what only the tests need.
DEMO_PACKAGES := python3-venv squashfs-tools e2fsprogs dbus
TEST_PACKAGES := $(DEMO_PACKAGES) rauc grub-common libubootenv-tool dosfstools mtools openssl mount \
	util-linux libglib2.0-bin systemd gcc python3-dev liblzo2-dev
E2E_PACKAGES := $(TEST_PACKAGES) systemd-container mmdebstrap

.PHONY: help demo test lint e2e bench clean

help:
	@echo "make demo    the main job on a virtual device, no root needed (under a minute after set-up)"
	@echo "make test    ruff, mypy and the tests (root for loop devices and mounts)"
	@echo "make e2e     the slow system tests: a real systemd in a container (root)"
	@echo "make bench   speed and memory, beside the real rauc in the same run (root)"

demo: | $(VENV)/.ready
	@sh .ci/packages $(DEMO_PACKAGES)
	@$(BIN)/python examples/demo/demo.py

test: | test-packages $(VENV)/.ready
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -m "not slow"

lint: | $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

e2e: | e2e-packages $(VENV)/.ready
	$(BIN)/pytest -m slow

bench: | test-packages $(VENV)/.ready
	$(BIN)/python tests/benchmarks/run.py

.PHONY: test-packages e2e-packages
test-packages:
	@sh .ci/packages $(TEST_PACKAGES)
e2e-packages:
	@sh .ci/packages $(E2E_PACKAGES)

# Made anew when the dependencies change.
$(VENV)/.ready: pyproject.toml
	@sh .ci/packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .[terminal] --group dev
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
