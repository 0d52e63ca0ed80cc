"""All commands and options, as data: what the parser accepts and the help shows."""

from __future__ import annotations

from updated.cli.parser import Command, Option

GENERAL = (
    Option("conf", "config file", "FILENAME", short="c"),
    Option(
        "confopt",
        "config setting that overrides the config file (may be repeated)",
        "SECTION:KEY=VALUE",
        short="C",
        repeat=True,
    ),
    Option("cert", "signing cert file", "PEMFILE", hidden=True),
    Option("key", "signing key file", "PEMFILE", hidden=True),
    Option("keyring", "keyring file", "PEMFILE", hidden=True),
    Option("intermediate", "intermediate CA file", "PEMFILE", repeat=True, hidden=True),
    Option("mount", "mount prefix", "PATH"),
    Option("debug", "enable debug output", short="d"),
    Option("version", "display version"),
    Option("help", "display help and exit", short="h"),
)

_KEYRING = Option("keyring", "keyring file", "PEMFILE")
_KEY = Option("key", "decryption key file", "PEMFILE")
_BUNDLE_ACCESS = (
    Option("tls-cert", "TLS client certificate file", "PEMFILE"),
    Option("tls-key", "TLS client key file", "PEMFILE"),
    Option("tls-ca", "TLS CA file", "PEMFILE"),
    Option("tls-no-verify", "do not verify TLS server certificate"),
    Option("http-header", "HTTP request header (may be repeated)", "'HEADER: VALUE'", short="H", repeat=True),
)
_TEXT_OR_JSON = Option("output-format", "output format (readable, json, json-pretty)", "FORMAT")
_SLOTS = "[booted | other | <SLOT_NAME>]"

COMMANDS = (
    Command("help", "Print help", handler="updated.cli.help:show"),
    Command(
        "bundle",
        "Create a bundle",
        "<INPUTDIR> <BUNDLENAME>",
        "Create a bundle from a content directory",
        (
            Option("mksquashfs-args", "mksquashfs extra args", "ARGS"),
            Option("cert", "signing cert file", "PEMFILE"),
            Option("key", "signing key file", "PEMFILE"),
            Option("intermediate", "intermediate CA file (may be repeated)", "PEMFILE", repeat=True),
            Option("signing-keyring", "post-signing verification keyring file", "PEMFILE"),
        ),
        "updated.cli.bundle:create",
    ),
    Command("resign", "Resign an already signed bundle"),
    Command("convert", "Convert classic to casync bundle"),
    Command("encrypt", "Encrypt a crypt bundle"),
    Command("replace-signature", "Replace the signature of an already signed bundle"),
    Command("extract-signature", "Extract the bundle signature"),
    Command("extract", "Extract the bundle content"),
    Command(
        "info",
        "Show bundle information",
        "<BUNDLE | URL>",
        "Print bundle info",
        (
            _KEYRING,
            Option("no-verify", "disable bundle verification"),
            Option("no-check-time", "don't check validity period of certificates against current time"),
            _KEY,
            Option("output-format", "output format (readable, shell, json, json-pretty, json-2)", "FORMAT"),
            Option("dump-cert", "dump certificate"),
            Option("dump-recipients", "dump recipients"),
            *_BUNDLE_ACCESS,
        ),
        "updated.cli.info:show",
    ),
    Command(
        "service",
        "Start the service",
        about="Run the update service: RAUC's D-Bus interface, and our own",
        options=(
            Option("handler-args", "extra arguments for full custom handler", "ARGS"),
            _KEYRING,
            Option("override-boot-slot", "override auto-detection of booted slot", "BOOTNAME"),
            Option("agent-conf", "our own config file (/etc/updated/updated.toml)", "FILENAME", ours=True),
            Option("runtime-directory", "what lives until the next boot (/run/updated)", "PATH", ours=True),
            Option("cmdline", "kernel command line (/proc/cmdline)", "FILENAME", ours=True),
            Option("boot-id", "boot id (/proc/sys/kernel/random/boot_id)", "FILENAME", ours=True),
        ),
        handler="updated.cli.service:run",
    ),
    Command(
        "install",
        "Install a bundle",
        "<BUNDLE | URL>",
        "Install a bundle",
        (
            Option("ignore-compatible", "disable compatible check"),
            Option("ignore-version-limit", "disable version check"),
            Option("transaction-id", "custom transaction id", "UUID"),
            Option("require-manifest-hash", "require a specific manifest hash", "HASH"),
            Option("progress", "show progress bar"),
            *_BUNDLE_ACCESS,
        ),
        "updated.cli.install:install",
    ),
    Command(
        "status",
        "Show status",
        about=(
            "Show system status\n\n"
            "List of status commands (default slot is the currently booted slot):\n"
            f"  mark-good {_SLOTS}    Mark the slot as good\n"
            f"  mark-bad {_SLOTS}     Mark the slot as bad\n"
            f"  mark-active {_SLOTS}  Mark the slot as active"
        ),
        options=(
            Option("detailed", "show more status details"),
            Option("output-format", "output format (readable, shell, json, json-pretty)", "FORMAT"),
        ),
        handler="updated.cli.status:show",
    ),
    Command("mount", "Mount a bundle"),
    Command("write-slot", "Write image to slot and bypass all update logic"),
    Command("mark-good", "Mark a slot as good", _SLOTS, handler="updated.cli.status:mark", ours=True),
    Command("mark-bad", "Mark a slot as bad", _SLOTS, handler="updated.cli.status:mark", ours=True),
    Command("mark-active", "Mark a slot as active", _SLOTS, handler="updated.cli.status:mark", ours=True),
    Command("cancel", "Stop the running install", handler="updated.cli.agent:cancel", ours=True),
    Command(
        "pause",
        "Let the running install rest",
        about="Let the stream of the running install rest, to have the link or the disk for something else",
        handler="updated.cli.agent:pause",
        ours=True,
    ),
    Command("resume", "Let it go on", handler="updated.cli.agent:resume", ours=True),
    Command(
        "why",
        "Say why nothing happens",
        about="Say why nothing is installed or rebooted now, and when it will be",
        options=(_TEXT_OR_JSON,),
        handler="updated.cli.agent:why",
        ours=True,
    ),
    Command(
        "consent",
        "Agree to an install or a reboot",
        "install | reboot",
        "Answer when the device asks before it installs or reboots ([consent] of updated.toml)",
        (Option("deny", "do not agree"),),
        "updated.cli.agent:consent",
        ours=True,
    ),
    Command(
        "inhibit",
        "Hold off updates for a while",
        "[-- COMMAND...]",
        "Let nothing begin and nothing reboot that nobody asked for by hand, while COMMAND runs;\n"
        "without one until Ctrl-C or until the time is over",
        (
            Option("who", "who holds it (the name of COMMAND)", "NAME"),
            Option("why", "what for, shown to people", "REASON"),
            Option("for", "at most so long (3600)", "SECONDS"),
        ),
        "updated.cli.inhibit:inhibit",
        ours=True,
    ),
    Command(
        "poll",
        "Show when a server is polled",
        about="Show when a server is polled for updates next, and what it said last",
        options=(Option("now", "poll soon"), _TEXT_OR_JSON),
        handler="updated.cli.poll:poll",
        ours=True,
    ),
    Command(
        "floor",
        "Show or reset the version floor",
        about="Show below which version nothing is installed",
        options=(Option("reset", "let any version in again (root only)"),),
        handler="updated.cli.agent:floor",
        ours=True,
    ),
    Command(
        "health",
        "Show how healthy the system is",
        about=(
            "Show what the health checks say of the running system, and which one decided;\n"
            "the exit code is 0 if it is good"
        ),
        options=(Option("limit", "of how many boots (1)", "NUMBER"), _TEXT_OR_JSON),
        handler="updated.cli.health:show",
        ours=True,
    ),
    Command(
        "heartbeat",
        "Say that an application is well",
        "<APPLICATION>",
        "Say that an application is well, for a check of type heartbeat ([confirm] of updated.toml)",
        handler="updated.cli.health:heartbeat",
        ours=True,
    ),
    Command(
        "quarantine",
        "Show or lift what must not be installed",
        "[list | lift <HASH>]",
        "Show which bundles failed on this device and are not tried again by themselves, or allow them again",
        (Option("all", "with lift: all of them"), _TEXT_OR_JSON),
        "updated.cli.health:quarantine",
        ours=True,
    ),
    Command(
        "reboot",
        "Start what was installed",
        about="Reboot into what starts next, in the way that the bootloader needs",
        handler="updated.cli.agent:reboot",
        ours=True,
    ),
    Command("confirm", "Say that the new system is good", handler="updated.cli.agent:confirm", ours=True),
    Command(
        "rollback",
        "Go back to the previous system",
        about="Take back the last update: mark its system bad and go back to the one before it",
        handler="updated.cli.agent:rollback",
        ours=True,
    ),
    Command(
        "history",
        "Show what was installed",
        about="Show how the last updates ended, the newest first",
        options=(
            Option("limit", "how many (10)", "NUMBER"),
            _TEXT_OR_JSON,
        ),
        handler="updated.cli.agent:history",
        ours=True,
    ),
    Command(
        "doctor",
        "Say whether this device can be updated",
        about=(
            "Say whether this device could be updated, confirmed and taken back, before it has to.\n"
            "Nothing is changed, and the service need not run.\n"
            "Exit code: 0 all well, 1 warnings, 2 errors, 3 something could not be found out"
        ),
        options=(
            Option("verbose", "show what is well, too", short="v"),
            Option("json", "the same as --output-format=json"),
            _TEXT_OR_JSON,
            _KEYRING,
            Option("override-boot-slot", "override auto-detection of booted slot", "BOOTNAME"),
            Option("agent-conf", "our own config file (/etc/updated/updated.toml)", "FILENAME"),
            Option("cmdline", "kernel command line (/proc/cmdline)", "FILENAME"),
        ),
        handler="updated.cli.doctor:doctor",
        ours=True,
    ),
    Command(
        "channel",
        "Put a bundle into a channel index",
        "<INDEX> <BUNDLE>",
        "Put a bundle into the JSON index that devices poll ([ota] of updated.toml), and sign the index",
        (
            Option("channel", "which channel (stable)", "NAME"),
            Option("url-prefix", "where the bundle is published (beside the index)", "URL"),
            Option("release-notes", "what is new", "URL"),
            Option("percent", "only for this part of the devices", "NUMBER"),
            Option("expires", "after so many days without a newer index devices raise an alarm", "DAYS"),
            Option("cert", "signing cert file", "PEMFILE"),
            Option("key", "signing key file", "PEMFILE"),
            Option("intermediate", "intermediate CA file (may be repeated)", "PEMFILE", repeat=True),
            Option("keyring", "verify the bundle with this keyring file, not with cert", "PEMFILE"),
        ),
        "updated.cli.channel:add",
        ours=True,
    ),
)
