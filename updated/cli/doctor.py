"""`doctor`: whether this device could be updated, for a person and for monitoring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from updated.cli import render
from updated.cli.formats import chosen_format
from updated.cli.parser import Arguments, UsageError
from updated.cli.render import printable
from updated.doctor.finding import EXIT_CODES, Finding, Level, worst

FORMATS = ("readable", "json", "json-pretty")
TITLES = {
    "config": "Configuration",
    "keyring": "Keyring",
    "keys": "Private keys",
    "clock": "Clock",
    "boot": "Boot environment",
    "slots": "Slots",
    "storage": "What is remembered",
    "tools": "Programs",
    "service": "Service",
}
_QUIET = (Level.OK,)
_WIDTH = 9  # of the column with the level


def doctor(arguments: Arguments) -> int:
    """The exit code is the verdict, as monitoring systems read it."""
    if arguments.positional:
        raise UsageError(f"Excess argument: {arguments.positional[0]}", command=arguments.command)
    output_format = "json" if arguments.flag("json") else chosen_format(arguments, FORMATS)
    if not arguments.flag("debug"):
        _keep_quiet()
    findings = _examine(arguments)
    if output_format == "readable":
        print(readable(findings, verbose=arguments.flag("verbose")))
    else:
        print(render.json_text(document(findings), pretty=output_format == "json-pretty"))
    return EXIT_CODES[worst(findings)]


def readable(findings: Sequence[Finding], *, verbose: bool) -> str:
    """Problems and notes by group, and at the end how many of each there are."""
    shown = [finding for finding in findings if verbose or finding.level not in _QUIET]
    lines: list[str] = []
    for group, members in groupby(shown, key=lambda finding: finding.group):
        lines += [f"=== {TITLES[group]} ===", *(line for each in members for line in _lines(each)), ""]
    return "\n".join([*lines, _verdict(findings)])


def document(findings: Sequence[Finding]) -> dict[str, object]:
    """What `--json` prints; every key is always there."""
    return {
        "overall": worst(findings).word,
        "counts": {level.word: sum(each.level is level for each in findings) for level in Level},
        "findings": [
            {
                "check": each.check,
                "level": each.level.word,
                "about": each.about,
                "text": each.text,
                "expected": each.expected,
                "got": each.got,
                "hint": each.hint,
            }
            for each in findings
        ],
    }


def _lines(finding: Finding) -> list[str]:
    about = f"{finding.about}: " if finding.about else ""
    compared = [
        f"{word} {text}" for word, text in (("expected", finding.expected), ("got", finding.got)) if text
    ]
    line = f"{finding.level.word:<{_WIDTH}}{about}{finding.text}"
    if compared:
        line += f" ({', '.join(compared)})"
    hint = [f"{'':{_WIDTH}}hint: {printable(finding.hint)}"] if finding.hint else []
    return [printable(line), *hint]


def _verdict(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.level for finding in findings)
    parts = [f"{counts[level]} {_plural(level, counts[level])}" for level in sorted(counts, reverse=True)]
    return f"Overall: {worst(findings).word} ({', '.join(parts)})"


def _plural(level: Level, count: int) -> str:
    many = count != 1 and level in (Level.ERROR, Level.WARNING, Level.NOTE)
    return f"{level.word}s" if many else level.word


def _examine(arguments: Arguments) -> list[Finding]:
    from updated.doctor.run import Request, examine

    def path(name: str) -> Path | None:
        text = arguments.text(name)
        return None if text is None else Path(text)

    overrides = arguments.texts("confopt")
    keyring, mount, cmdline = path("keyring"), path("mount"), path("cmdline")
    if keyring is not None:
        overrides += (f"keyring:path={keyring.absolute()}",)
    if mount is not None:
        overrides += (f"system:mountprefix={mount.absolute()}",)
    request = Request(
        conf=path("conf"),
        overrides=overrides,
        agent_conf=path("agent-conf"),
        override_boot_slot=arguments.text("override-boot-slot"),
    )
    if cmdline is not None:
        request = replace(request, places=replace(request.places, cmdline=cmdline))
    return examine(request)


def _keep_quiet() -> None:
    """What is logged on the way is among the findings."""
    import logging

    logging.getLogger("updated").addHandler(logging.NullHandler())
