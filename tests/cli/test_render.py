"""The shared pieces of the output, against GLib itself where GLib is the model."""

from __future__ import annotations

import ctypes
import json
import subprocess

import pytest

from updated.cli import render

GLIB = ctypes.CDLL("libglib-2.0.so.0")
GLIB.g_format_size_full.restype = ctypes.c_char_p
GLIB.g_format_size_full.argtypes = [ctypes.c_uint64, ctypes.c_int]
GLIB.g_shell_quote.restype = ctypes.c_char_p
GLIB.g_shell_quote.argtypes = [ctypes.c_char_p]
LONG_FORMAT = 1


@pytest.mark.parametrize(
    "count",
    [
        0,
        1,
        2,
        999,
        1000,
        1050,
        1150,
        1250,
        999_949,
        999_999,
        10**6,
        2**20,
        10**9,
        10**12,
        10**15,
        10**18,
        2**63,
    ],
)
def test_sizes_look_as_in_glib(count: int) -> None:
    assert render.size(count) == GLIB.g_format_size_full(count, LONG_FORMAT).decode()


@pytest.mark.parametrize("text", ["", "plain", "it's", "'", "a\nb", "$HOME `id` \\", "ü"])
def test_shell_quoting_is_that_of_glib_and_a_shell_reads_it_back(text: str) -> None:
    assert render.shell_quote(text) == GLIB.g_shell_quote(text.encode()).decode()
    script = f'x={render.shell_quote(text)}; printf %s "$x"'
    read = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=10, check=True)
    assert read.stdout == text


def test_shell_variables() -> None:
    assert render.shell([("A", "x y"), ("B", None), ("C", 3)]) == "A='x y'\nB=''\nC='3'"


def test_json_is_written_as_json_glib_writes_it() -> None:
    data = {"a": [], "b": None, "c": ["ü\x7f\x1b\n", 1]}
    assert render.json_text(data, pretty=False) == '{"a":[],"b":null,"c":["ü\\u007f\\u001b\\n",1]}'
    pretty = render.json_text(data, pretty=True)
    assert pretty.splitlines()[:4] == ["{", '  "a" : [],', '  "b" : null,', '  "c" : [']
    assert json.loads(pretty) == data


def test_what_a_stranger_wrote_cannot_steer_the_terminal() -> None:
    assert render.printable("a\x1b[2Jb\nSlot:\r\x9b") == "a\\x1b[2Jb\\x0aSlot:\\x0d\\x9b"
    assert render.printable("ünï – €") == "ünï – €"
    assert render.printable(None) == "(null)"
    assert render.lines("one\n\ttwo\x1b") == "one\n two\\x1b"


@pytest.mark.parametrize(
    ("name", "key"),
    [("my-key", "MY_KEY"), ("a_1", "A_1"), ("a.b", None), ("é", None), ("a b", None), ("", "")],
)
def test_names_of_variables(name: str, key: str | None) -> None:
    assert render.env_key(name) == key


def test_plain_takes_away_our_colors_only() -> None:
    assert render.plain(f"{render.BOLD}[x]{render.NORMAL} {render.GREEN}ok{render.NORMAL}") == "[x] ok"
