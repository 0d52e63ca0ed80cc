"""`health`, `heartbeat` and `quarantine`."""

from __future__ import annotations

from updated.api.client import Client
from updated.cli import render_agent
from updated.cli.agent import ask, number
from updated.cli.bundle_path import only_argument
from updated.cli.formats import chosen_format
from updated.cli.parser import Arguments, UsageError

_NOT_GOOD = 1


def show(arguments: Arguments) -> int:
    """Returns 0 if the running system is good."""
    if arguments.positional:
        raise UsageError(f"Excess argument: {arguments.positional[0]}", command=arguments.command)
    output_format = chosen_format(arguments, render_agent.FORMATS)
    limit = number(arguments, "limit", 1)
    judgements = ask(lambda client: client.health(limit))
    print(render_agent.health(judgements, output_format))
    return 0 if judgements and judgements[0].get("state") == "good" else _NOT_GOOD


def heartbeat(arguments: Arguments) -> int:
    application = only_argument(arguments, "The name of the application must be provided")
    ask(lambda client: client.heartbeat(application))
    return 0


def quarantine(arguments: Arguments) -> int:
    match arguments.positional:
        case () | ("list",) if not arguments.flag("all"):
            output_format = chosen_format(arguments, render_agent.FORMATS)
            print(render_agent.quarantine(ask(Client.quarantine), output_format))
        case ("lift",) if arguments.flag("all"):
            count = ask(lambda client: client.lift(""))
            print(f"{count} bundle{'' if count == 1 else 's'} may be installed again.")
        case ("lift", str(manifest_hash)) if not arguments.flag("all") and manifest_hash:
            ask(lambda client: client.lift(manifest_hash))
            print(f"Bundle {manifest_hash} may be installed again.")
        case _:
            raise UsageError("Expected `list`, `lift <HASH>` or `lift --all`", command=arguments.command)
    return 0
