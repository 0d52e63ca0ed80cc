"""Read a command line as GLib's GOption does for RAUC (GLib manual, "Commandline option parser").

Options may stand anywhere, before or after the command; long names are never abbreviated; `--name=value`,
`--name value` and `-n value` are the same, flags of one letter may be joined (`-dh`), and `--` ends them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from updated.errors import UpdatedError


class UsageError(UpdatedError):
    """The command line cannot be understood.  `command` is the one whose help may help, if it is known."""

    def __init__(self, message: str, *, command: Command | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.command = command


@dataclass(frozen=True, slots=True)
class Option:
    """One option.  Without `metavar` it is a flag."""

    name: str  # without dashes
    help: str = ""
    metavar: str = ""
    short: str = ""  # one letter
    repeat: bool = False  # every use counts, not just the last
    hidden: bool = False  # works, but is not in the help
    ours: bool = False  # RAUC has no such option


@dataclass(frozen=True, slots=True)
class Command:
    """One command and what it takes."""

    name: str
    summary: str  # one line, for the list of commands
    usage: str = ""  # arguments after the name
    about: str = ""  # more lines, for its own help
    options: tuple[Option, ...] = ()
    handler: str = ""  # "module:function", imported when it is called; empty: not supported yet
    ours: bool = False  # RAUC has no such command


@dataclass(frozen=True, slots=True)
class Arguments:
    """What was found on the command line."""

    program: str  # "updated" or "rauc": how we were called
    command: Command | None
    positional: tuple[str, ...] = ()  # without the command
    given: dict[str, list[str]] = field(default_factory=dict)  # option -> its values; a flag has ""

    def flag(self, name: str) -> bool:
        return name in self.given

    def text(self, name: str) -> str | None:
        """The last value of an option, None if it was not given."""
        return self.given[name][-1] if name in self.given else None

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of an option, in the order given."""
        return tuple(self.given.get(name, ()))


def parse(
    program: str, argv: Sequence[str], options: Sequence[Option], commands: Sequence[Command]
) -> Arguments:
    """Split `argv` (without the program's name).

    As with RAUC the command is the first word that is neither an option nor the value of one of the general
    `options`; the command's own options are known only after that.  Raises UsageError with GLib's texts.
    """
    given: dict[str, list[str]] = {}
    rest = _Scan(options, given, strict=False).run(argv)
    name = next((word for word in rest if not word.startswith("-")), None)
    if name is None:
        unknown = next((word for word in rest if word != "--"), None)
        if unknown is not None:
            raise UsageError(f"Unknown option {unknown}")
        return Arguments(program, None, given=given)
    command = next((each for each in commands if each.name == name), None)
    if command is None:
        raise UsageError(f"Invalid command '{name}' given")
    try:
        words = _Scan((*options, *command.options), given, strict=bool(command.handler)).run(rest)
    except UsageError as error:
        error.command = command
        raise
    words.remove(name)
    if "--" in words:
        words.remove("--")  # what comes after it is not ours, another `--` neither
    return Arguments(program, command, tuple(words), given)


class _Scan:
    """One pass over the words, which takes out the options it knows."""

    def __init__(self, options: Sequence[Option], given: dict[str, list[str]], *, strict: bool) -> None:
        self._long = {option.name: option for option in options}
        self._short = {option.short: option for option in options if option.short}
        self._given = given
        self._strict = strict

    def run(self, argv: Sequence[str]) -> list[str]:
        """The words that are left.  Unknown options are an error if strict, else they are left too."""
        words = list(argv)
        left: list[str] = []
        while words:
            word = words.pop(0)
            if word == "--":
                return [*left, word, *words]
            if not word.startswith("-") or word == "-":
                left.append(word)
                continue
            unknown = self._name(word, words) if word.startswith("--") else self._letters(word, words)
            if unknown and self._strict:
                raise UsageError(f"Unknown option {unknown}")
            if unknown:
                left.append(unknown)
        return left

    def _name(self, word: str, words: list[str]) -> str:
        """Take `--name` or `--name=value`; returns what of it is unknown."""
        name, equals, value = word[2:].partition("=")
        option = self._long.get(name)
        if option is None or (equals and not option.metavar):
            return word
        if option.metavar and not equals:
            value = self._value(f"--{name}", words)
        self._store(option, value)
        return ""

    def _letters(self, word: str, words: list[str]) -> str:
        """Take `-a`, `-abc` or `-a value`; returns what of it is unknown."""
        unknown = ""
        for position, letter in enumerate(word[1:], 2):
            option = self._short.get(letter)
            if option is None:
                unknown += letter
                continue
            if option.metavar and position < len(word):
                raise UsageError(f"Error parsing option -{letter}")
            self._store(option, self._value(f"-{letter}", words) if option.metavar else "")
        return f"-{unknown}" if unknown else ""

    def _value(self, shown: str, words: list[str]) -> str:
        if not words:
            raise UsageError(f"Missing argument for {shown}")
        return words.pop(0)

    def _store(self, option: Option, value: str) -> None:
        if option.repeat:
            self._given.setdefault(option.name, []).append(value)
        else:
            self._given[option.name] = [value]
