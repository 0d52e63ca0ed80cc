"""Our key files read and write as those of the real GLib (through ctypes)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.bundle.keyfile import Consumer, Group, KeyFileError, KeyNotFoundError, parse, render, suggest

GLIB = ctypes.CDLL("libglib-2.0.so.0")
for _name in ("new", "get_groups", "get_keys", "get_value", "get_string", "get_string_list", "to_data"):
    getattr(GLIB, f"g_key_file_{_name}").restype = ctypes.c_void_p
GLIB.g_key_file_get_uint64.restype = ctypes.c_uint64


class GError(ctypes.Structure):
    _fields_ = (("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p))


class GLibKeyFile:
    """The real thing."""

    def __init__(self, data: bytes = b"") -> None:
        self.pointer = ctypes.c_void_p(GLIB.g_key_file_new())
        self.error = ""
        if data:
            self.call("load_from_data", data, ctypes.c_size_t(len(data)), 0)

    def call(self, function: str, *args: object) -> int | None:
        error = ctypes.POINTER(GError)()
        result: int | None = getattr(GLIB, f"g_key_file_{function}")(self.pointer, *args, ctypes.byref(error))
        self.error = error.contents.message.decode(errors="replace") if error else ""
        return result

    def text(self, function: str, *args: object) -> bytes | None:
        return ctypes.cast(self.call(function, *args) or 0, ctypes.c_char_p).value


def strings(pointer: int | None) -> list[str]:
    """A NULL-terminated array of C strings."""
    if not pointer:
        return []
    array = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_char_p))
    found: list[str] = []
    while (text := array[len(found)]) is not None:
        found.append(text.decode(errors="replace"))
    return found


def glib_view(data: bytes) -> object:
    """{group: [(key, value), ...]} as GLib reads it, or its error text."""
    file = GLibKeyFile(data)
    if file.error:
        return file.error
    view = {}
    names = GLIB.g_key_file_get_groups(file.pointer, None)
    for name in strings(names):
        keys = strings(file.call("get_keys", name.encode(), None))
        view[name] = [(key, file.text("get_value", name.encode(), key.encode())) for key in keys]
    return view


def our_view(data: bytes) -> object:
    try:
        file = parse(data)
    except KeyFileError as error:
        return str(error)

    def raw(group: Group, key: str) -> bytes:
        found = group.find(key)
        assert found
        return found.raw

    return {g.name: [(entry.key, raw(g, entry.key)) for entry in g.entries] for g in file.groups}


ALPHABET = '[]=#;\\ \t\r\n\f\vsab1Cé-_."“\x7f\x01'
LINES = st.sampled_from(
    """[update]|[a]|[update]  | [b] |[]|[a[b]|[x]y|a=1|a = 2 |=v|a|a b=c|# c|; c|a[de]=x|a[]=x|a [de]=x|a[d=x
|[a]=b||  |k=v # x|Encoding=utf-8|Encoding=x|a\t=b|\va=b|a\\=b|a=b=c|\ufeff[a]""".split("|")  # noqa: SIM905
)
FILES = st.lists(st.one_of(LINES, st.text(ALPHABET, max_size=8)), max_size=8).map("\n".join)


@given(FILES, st.sampled_from(["", "\n", "\r", "\r\n"]))
def test_reads_what_glib_reads(text: str, end: str) -> None:
    data = (text + end).encode()
    if data and "[C]" not in text:  # GLib keeps translations of the running locale
        assert our_view(data) == glib_view(data)


GETTERS: dict[str, Callable[[Group], object]] = {
    "get_string": lambda group: group.get_string("k"),
    "get_string_list": lambda group: group.get_list("k"),
    "get_uint64": lambda group: group.get_uint64("k"),
    "get_integer": lambda group: group.get_integer("k"),
    "get_boolean": lambda group: group.get_boolean("k"),
}


def glib_value(getter: str, data: bytes) -> object:
    file = GLibKeyFile(data)
    extra = (None,) if getter == "get_string_list" else ()
    result = file.call(getter, b"g", b"k", *extra)
    if getter == "get_string" and result:
        return (ctypes.cast(result, ctypes.c_char_p).value or b"").decode()
    if file.error:
        return file.error
    if getter == "get_string_list":
        return tuple(strings(result))
    return bool(result) if getter == "get_boolean" else result


def our_value(getter: str, data: bytes) -> object:
    group = parse(data).group("g")
    assert group
    try:
        return GETTERS[getter](group)
    except KeyFileError as error:
        return str(error)


@pytest.mark.parametrize("getter", GETTERS)
@given(
    value=st.one_of(
        st.text("\\;snqt é x", max_size=10),
        st.sampled_from(
            [
                "true",
                "false",
                "1 ",
                "0\t",
                "TRUE",
                "yes",
                "-1",
                "+5",
                "-0",
                "007",
                "1k",
                "0x1",
                "- 1",
                "--1",
                "1.0",
            ]
        ),
        st.integers(-(2**70), 2**70).map(str),
        st.sampled_from([2**31, 2**32, 2**63, 2**64]).flatmap(
            lambda n: st.sampled_from([str(n), str(n - 1), str(-n), str(-n - 1)])
        ),
    )
)
def test_values_are_what_glib_makes_of_them(getter: str, value: str) -> None:
    data = f"[g]\nk={value}\n".encode()
    assert our_value(getter, data) == glib_value(getter, data)


@pytest.mark.parametrize("getter", GETTERS)
def test_a_missing_key_has_glibs_text(getter: str) -> None:
    assert our_value(getter, b"[g]\n") == "Key file does not have key “k” in group “g”"
    assert our_value(getter, b"[g]\n") == glib_value(getter, b"[g]\n")


def test_a_value_that_is_not_utf8_is_refused_when_read() -> None:
    assert our_value("get_string", b"[g]\nk=\xff\n") == (
        "Key file contains key “k” with value “\ufffd” which is not UTF-8"
    )


@given(
    st.lists(
        st.tuples(st.sampled_from("gh"), st.sampled_from("ab"), st.text("\\;\n\r\t é x", max_size=8)),
        min_size=1,
    ),
    st.booleans(),
)
def test_renders_the_bytes_that_glib_renders(values: list[tuple[str, str, str]], as_list: bool) -> None:
    groups: dict[str, dict[str, str | list[str]]] = {}
    file = GLibKeyFile()
    for group, key, text in values:
        items = text.split("x")
        groups.setdefault(group, {})[key] = items if as_list else text
        if as_list:
            array = (ctypes.c_char_p * len(items))(*(item.encode() for item in items))
            GLIB.g_key_file_set_string_list(
                file.pointer, group.encode(), key.encode(), array, ctypes.c_size_t(len(items))
            )
        else:
            GLIB.g_key_file_set_string(file.pointer, group.encode(), key.encode(), text.encode())
    ours = render((name, entries.items()) for name, entries in groups.items())
    assert ours == file.text("to_data", None)


@given(st.text(st.characters(blacklist_characters="\0\f", blacklist_categories=["Cs"]), max_size=20))
def test_a_rendered_string_reads_back(text: str) -> None:
    group = parse(render([("g", [("k", text)])])).group("g")
    assert group and group.get_string("k") == text


def test_renders_numbers_booleans_and_raw_values() -> None:
    assert (
        render([("g", [("n", 7), ("b", True), ("r", b" \\s")]), ("h", [])])
        == b"[g]\nn=7\nb=true\nr= \\s\n\n[h]\n"
    )


@given(st.binary(max_size=60))
def test_any_bytes_parse_or_raise_our_error(data: bytes) -> None:
    our_view(data)


def consumer(data: str) -> Consumer:
    return Consumer(parse(data.encode()).groups[0])


def test_the_consumer_refuses_what_nobody_took_and_names_the_nearest_key() -> None:
    update = consumer("[update]\ncompatible=x\nversoin=1\n")
    assert update.string("compatible") == "x"
    assert update.optional_string("version") is None
    with pytest.raises(KeyFileError, match=r"^Invalid key 'versoin' in group '\[update\]'$") as caught:
        update.finish()
    assert caught.value.line == 3
    assert caught.value.hint == "Did you mean 'version'?"


def test_the_consumer_refuses_a_repeated_key_even_across_repeated_groups() -> None:
    update = consumer("[update]\nversion=1\n[x]\n[update]\nversion=2\n")
    assert update.optional_string("version") == "2"
    with pytest.raises(KeyFileError, match="Invalid key 'version'") as caught:
        update.finish()
    assert caught.value.line == 2
    assert caught.value.hint == "The key is there more than once."


def test_the_consumer_tells_absent_from_empty_only_where_rauc_does() -> None:
    update = consumer("[update]\na=\nb=\nl=\nbad=a\\q\n")
    assert update.optional_string("a") is None
    with pytest.raises(KeyFileError, match=r"^Missing value for key 'b'$"):
        update.string("b")
    with pytest.raises(KeyNotFoundError):
        update.string("c")
    assert update.optional_list("l") == ()
    assert update.optional_list("bad") is None
    assert [entry.key for entry in update.left] == ["bad"]
    with pytest.raises(KeyFileError, match="Invalid key 'bad'") as caught:
        update.finish()
    assert caught.value.hint == "Its value cannot be read."


def test_numbers_and_booleans_are_optional_but_never_wrong() -> None:
    group = consumer("[g]\nn=5\ni=-3\nb=1\nbad=x\nskip=?\n")
    assert (group.optional_uint64("n"), group.optional_integer("i"), group.optional_boolean("b")) == (
        5,
        -3,
        True,
    )
    assert group.optional_uint64("none") is None
    group.ignore("skip")
    group.ignore("none")
    with pytest.raises(KeyFileError, match="cannot be interpreted"):
        group.optional_boolean("bad")
    assert [entry.key for entry in group.left] == ["bad"]


def test_nothing_near_means_no_suggestion() -> None:
    assert suggest("zzz", ["compatible"]) == ""
