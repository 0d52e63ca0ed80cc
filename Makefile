# Two commands do everything on a fresh Debian machine: `make demo` and `make test`.
# Missing Debian packages are installed when you are root, else named with the command.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What a device or a build host needs, then what only the tests need.
DEMO_PACKAGES := squashfs-tools e2fsprogs dbus
TEST_PACKAGES := $(DEMO_PACKAGES) rauc grub-common libubootenv-tool dt-utils efibootmgr dosfstools mtools openssl mount \
	util-linux libglib2.0-bin systemd gcc python3-dev liblzo2-dev udev iproute2 nginx-light fdisk \
	systemd-journal-remote
E2E_PACKAGES := $(TEST_PACKAGES) systemd-container mmdebstrap qemu-system-x86 qemu-utils cpio exfatprogs ntfs-3g \
	grub-pc-bin u-boot-qemu u-boot-tools binutils user-mode-linux ovmf systemd-boot-efi
BENCH_PACKAGES := $(TEST_PACKAGES) curl

.PHONY: help demo test lint e2e e2e-long bench install clean

help:
	@echo "make demo    the main job on a virtual device, no root needed (under a minute after set-up)"
	@echo "make test    ruff, mypy and the tests (root for loop devices and mounts)"
	@echo "make e2e     the slow system tests: a real systemd in a container, a real kernel in QEMU (root)"
	@echo "make e2e-long  more of the latter: UEFI, kills in every state (root)"
	@echo "make install into DESTDIR with PREFIX, see docs/install.md"
	@echo "make bench   speed and memory, beside the real rauc in the same run (root)"

demo: | demo-packages $(VENV)/.runtime
	@$(BIN)/python examples/demo/demo.py

test: | test-packages $(VENV)/.ready
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -m "not slow" --numprocesses=2 --dist=loadfile

lint: | $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

e2e: | e2e-packages $(VENV)/.ready
	$(BIN)/pytest -m "slow and not long"

e2e-long: | e2e-packages $(VENV)/.ready
	$(BIN)/pytest -m long

bench: | bench-packages $(VENV)/.ready
	$(BIN)/python -m tests.benchmarks.run

.PHONY: demo-packages test-packages e2e-packages bench-packages
demo-packages:
	@sh .ci/packages $(DEMO_PACKAGES)
test-packages:
	@sh .ci/packages $(TEST_PACKAGES)
e2e-packages:
	@sh .ci/packages $(E2E_PACKAGES)
bench-packages:
	@sh .ci/packages $(BENCH_PACKAGES)

# Made anew when the dependencies change.
$(VENV)/.runtime: pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh .ci/packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --editable .[terminal]
	@touch $@

# The dev group has a package that is compiled: `make test` sees to the compiler first.
$(VENV)/.ready: $(VENV)/.runtime
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --editable .[terminal,lzo] --group dev
	@touch $@

# Into an image: DESTDIR=/path/to/rootfs.  See docs/install.md.
PREFIX ?= /usr
UNIT_DIR ?= $(PREFIX)/lib/systemd/system
DBUS_DIR ?= /usr/share/dbus-1
STATE_DIR ?= /var/lib/updated
TARGET_PYTHON ?= /usr/bin/python3
BUS_NAMES := de.pengutronix.rauc org.updated.Agent1
LIB := $(DESTDIR)$(PREFIX)/lib/updated

.PHONY: install-python install-units
install: install-python install-units

# The package and what it needs, in a folder of its own: no pip on the device, nothing of the system's is touched.
install-python:
	rm -rf $(LIB)/updated
	install -d $(LIB) $(DESTDIR)$(PREFIX)/bin
	cp -R updated $(LIB)
ifneq ($(DEPS),0)
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
		| $(PYTHON) -m pip install --quiet --no-compile --upgrade --target=$(LIB) $(PIP_FLAGS) --requirement=/dev/stdin
	rm -rf $(LIB)/bin
endif
	find $(LIB) -name __pycache__ -prune -exec rm -rf {} +
	$(PYTHON) -m compileall -q --invalidation-mode unchecked-hash -s '$(DESTDIR)' $(LIB)
	printf '#!%s -I\nimport sys\n\nsys.path.insert(0, "%s")\n' $(TARGET_PYTHON) $(PREFIX)/lib/updated >$(DESTDIR)$(PREFIX)/bin/updated
	printf 'from updated.__main__ import main\n\nsys.exit(main())\n' >>$(DESTDIR)$(PREFIX)/bin/updated
	chmod 755 $(DESTDIR)$(PREFIX)/bin/updated
ifeq ($(RAUC),1)
	ln -sf updated $(DESTDIR)$(PREFIX)/bin/rauc
endif

install-units:
	install -d $(DESTDIR)$(UNIT_DIR)
	install -d -m 700 $(DESTDIR)$(STATE_DIR)
	sed 's|/usr/bin/|$(PREFIX)/bin/|' units/updated.service >$(DESTDIR)$(UNIT_DIR)/updated.service
	install -D -m 644 units/updated.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/updated.conf
	install -D -m 644 units/updated.tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/updated.conf
	install -D -m 644 units/updated.catalog $(DESTDIR)$(PREFIX)/lib/systemd/catalog/updated.catalog
	install -D -m 644 -t $(DESTDIR)$(DBUS_DIR)/system.d $(BUS_NAMES:%=units/%.conf)
	install -D -m 644 -t $(DESTDIR)$(DBUS_DIR)/system-services $(BUS_NAMES:%=units/%.service)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
