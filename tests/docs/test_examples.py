"""What the pages show works as it stands: settings, indexes, commands, links."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from updated.bundle.signature import parse_signed_data
from updated.bundle.trust import Keyring, KeyringPolicy
from updated.cli.commands import COMMANDS, GENERAL
from updated.config.agent_tables import AgentConfig
from updated.config.agent_toml import parse_agent_config
from updated.config.system_conf import parse_system_config
from updated.sources.index import DeviceFacts, Entry, Index, bundle_url, choose, read_index

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/README.md")))
OTA = ROOT / "docs/ota.md"

TABLES = {field.encode_name for field in msgspec.structs.fields(AgentConfig)}
SYSTEM_CONF = {"system", "polling", "streaming", "keyring"}
OTHERS = {"Unit", "Service", "image.rootfs"}  # systemd's, and a manifest's
DEVICE = b"[system]\ncompatible=Example Device\nbootloader=noop\n"


def blocks(page: Path) -> Iterator[str]:
    """Fenced and indented code, without the indent."""
    text = page.read_text()
    yield from re.findall(r"^```.*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for found in re.finditer(r"(?:^ {4,}\S.*\n|^\n(?= {4}))+", text, re.MULTILINE):
        indent = re.search(r"^ +", found[0], re.MULTILINE)
        assert indent
        yield re.sub(rf"^{indent[0]}", "", found[0].strip("\n"), flags=re.MULTILINE).lstrip()


def configurations() -> Iterator[Any]:
    for page in PAGES:
        for number, block in enumerate(blocks(page)):
            if head := re.match(r"\[{1,2}([\w.-]+)\]", block):
                yield pytest.param(head[1], block, id=f"{page.parent.name}-{page.stem}-{number}")


@pytest.mark.parametrize(("head", "block"), [*configurations()])
def test_settings_are_taken(head: str, block: str) -> None:
    head = head.removesuffix(".checks")
    assert head in TABLES | SYSTEM_CONF | OTHERS
    if head in TABLES:
        parse_agent_config(block.encode())
    elif head in SYSTEM_CONF:
        given = block.encode()
        parse_system_config(given if head == "system" else DEVICE + given, Path("/etc/rauc/system.conf"))


def example_index() -> str:
    (found,) = (block for block in blocks(OTA) if block.startswith("{"))
    return found


def test_the_index_is_taken() -> None:
    index = read_index(example_index().encode())
    device = DeviceFacts("Example Device", "1.2.0", "0" * 32, "aarch64")
    assert set(index.channels) == {"stable", "beta"}
    for channel in index.channels:
        choice = choose(index, channel, device, datetime(2026, 12, 1, tzinfo=UTC))
        assert choice.entry
        assert bundle_url(choice.entry.bundle_url, "https://updates.example.com/board/manifest.json")


@pytest.mark.parametrize("kind", [Index, Entry])
def test_every_key_of_the_index_is_explained(kind: type[msgspec.Struct]) -> None:
    keys = [
        key for row in re.findall(r"^\| (`.*?`) \|", OTA.read_text(), re.MULTILINE) for key in row.split("`")
    ]
    assert {field.encode_name for field in msgspec.structs.fields(kind)} <= set(keys)


def test_the_index_is_signed_as_it_says(tmp_path: Path) -> None:
    """With the real openssl."""
    (command,) = (block for block in blocks(OTA) if block.startswith("openssl"))
    body = example_index().encode()
    (tmp_path / "manifest.json").write_bytes(body)
    make = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=vendor -days 2"
    for words in (make.split(), command.split()):
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    message = parse_signed_data((tmp_path / "manifest.json.p7s").read_bytes())
    keyring = Keyring.load([(tmp_path / "cert.pem").read_bytes()], KeyringPolicy())
    message.verify(keyring, datetime.now(UTC) + timedelta(hours=1))
    assert message.detached


def commands(page: Path) -> Iterator[str]:
    """`updated ...`, in a line of code or between backticks."""
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", page.read_text())
    for code in (*spans, *(line for block in blocks(page) for line in block.splitlines())):
        words = " ".join(code.replace("\\\n", " ").split())
        if words.startswith("updated ") and not words.startswith("updated <"):
            yield words.partition(" -- ")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_commands_and_their_options_exist(page: Path) -> None:
    known = {command.name: command for command in COMMANDS}
    for line in commands(page):
        name = line.split()[1]
        assert name in known, line
        options = {option.name for option in (*GENERAL, *known[name].options)}
        assert set(re.findall(r" --([a-z-]+)", line)) <= options, line


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, place = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if place:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert place in map(anchor, headings), link
