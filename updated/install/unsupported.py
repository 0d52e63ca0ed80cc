"""What system.conf asks for that this version does not do: said at start, refused where it is used."""

from __future__ import annotations

from collections.abc import Iterator

from updated.config.system_conf import SystemConfig


def unsupported(config: SystemConfig) -> Iterator[str]:
    """A sentence for each thing that is configured and has no effect yet."""
    system = config.system
    if "updated-artifacts" in config.polling.reboot_criteria:
        yield "reboot-criteria=updated-artifacts in [polling] has no effect"
    if config.casync.storepath or config.casync.use_desync:
        yield "[casync] is not supported yet: bundles that need it are refused"
    for repo in config.artifacts:
        yield f"[artifacts.{repo.name}] is not supported yet: bundles with artifacts are refused"
    if system.perform_pre_check:
        yield "perform-pre-check has no effect: every block is checked before it is used"
    handlers = config.handlers
    if handlers.system_info or handlers.pre_install or handlers.post_install:
        yield "system-info, pre-install and post-install handlers are not supported yet: installs are refused"
