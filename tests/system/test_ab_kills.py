"""The service killed with SIGKILL in every state, on machines that really boot: the update arrives.

The service's own signals say when.  Where a state is over in no time, it gets little processor time until
then.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.system.ab_both import LOADERS, Story, with_both
from tests.system.ab_bundle import make_bundle
from tests.system.ab_factory import Factory
from tests.system.ab_image import Files, Loader
from tests.system.ab_machine import WAIT, Boot, Machine
from tests.system.conftest import Signer

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.long]

# Three in a boot: after the fourth the service stays up and does nothing for an hour.
KILLS: Mapping[Loader, Sequence[str]] = {
    "grub": ("discover", "verify", "install"),
    "uboot": ("idle", "download", "reboot-pending"),
}
SHORT = ("discover", "download", "verify")
PATIENT: Files = {  # so that there is time to kill it while it confirms
    "/etc/updated/updated.toml": """\
data-directory = "/data/updated"

[confirm]
stable-for = 10

[reboot]
when = "immediately"
"""
}
UNIT = "/sys/fs/cgroup/system.slice/updated.service"
# All that the service says goes to the console.  When that is the state in /tmp/kill, it is killed.
WATCH = """\
busctl --system --json=short --match="type='signal',interface='org.updated.Agent1',member='StateChanged'" \
    monitor 2>&1 | while read -r line; do
        state=none
        read -r state </tmp/kill
        case $line in *'"data":["'"$state"'",'*)
            echo 1 >UNIT/cgroup.kill
            echo none >/tmp/kill
        esac
        echo "$line" >/dev/ttyS0
    done
""".replace("UNIT", UNIT)
SAID = re.compile(r'"sender":"(:[\d.]+)".*"data":\["([a-z-]+)",')


def test_kills(factory: Factory, signer: Signer, tmp_path: Path) -> None:
    disks = {}
    for loader in LOADERS:
        bundle = make_bundle(factory.system(loader), tmp_path / loader, signer, "2", PATIENT)
        disks[loader] = factory.disk(loader, f"kills-{loader}", bundle)

    def run(loader: Loader) -> None:
        with Machine(disks[loader], tmp_path / loader) as machine, Story(loader, machine) as tell:
            machine.wait_for_idle("A")
            watch(machine)
            for state in KILLS[loader]:
                kill(machine, state)
                tell(f"killed in state {state}")
            machine.wait_for("grep slot=B /proc/cmdline")
            check_last_words(machine.boots[0], KILLS[loader])
            kill_while_confirming(machine)
            tell("killed in state confirming")
            machine.wait_for_idle("B")
            assert machine.version == "2"
            assert machine.is_good("B")
            assert machine.history()[0] == "confirmed"
            assert len(machine.boots) == 2

    with_both(run)


def watch(machine: Machine) -> None:
    machine.run("systemctl set-property --runtime updated.service CPUWeight=100")  # now there is cpu.max
    machine.begin(WATCH)
    deadline = time.monotonic() + WAIT
    while "Monitoring" not in machine.boots[-1].console:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill(machine: Machine, state: str) -> None:
    """Returns when the service is up again, or the machine reboots."""
    killed = restarts(machine)
    machine.run(f"echo {state} >/tmp/kill" if state != "idle" else f"echo 1 >{UNIT}/cgroup.kill")
    if state in SHORT:
        machine.run(f"echo '10000 100000' >{UNIT}/cpu.max")  # until it is started anew
        machine.begin("updated install /data/bundles/system-2.raucb")  # a person: the kill is the end of it
    elif state != "idle":
        machine.run("mv /data/bundles/system-2.raucb /data/drop")  # where it lies until it is installed
    up = f"test $(systemctl show -P NRestarts updated) = {killed + 1} && systemctl is-active updated"
    machine.wait_for(f"grep slot=B /proc/cmdline || {{ {up}; }}")


def kill_while_confirming(machine: Machine) -> None:
    machine.wait_for("systemctl show -P StatusText updated | grep 'Running version 2'")
    machine.run(f"echo 1 >{UNIT}/cgroup.kill")
    machine.wait_for("test $(systemctl show -P NRestarts updated) = 1")
    assert not machine.is_good("B")


def restarts(machine: Machine) -> int:
    return int(machine.run("systemctl show -P NRestarts updated"))


def check_last_words(boot: Boot, states: Sequence[str]) -> None:
    """Of each process that was killed, which did not come any further."""
    last = dict(SAID.findall(boot.console))  # sender on the bus -> its last state
    killed = [state for state in states if state != "idle"]
    assert [state for state in last.values() if state in killed][: len(killed)] == killed
