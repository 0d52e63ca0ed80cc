"""`[[confirm.checks]]`: each kind with its defaults, and what is wrong with each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updated.config.agent_toml import parse_agent_config
from updated.config.check_tables import AnyCheck, HttpCheck, SocketCheck, is_local, names_of
from updated.errors import ConfigError

ALL = b"""
[confirm]
stable-for = 20
deadline = 600

[[confirm.checks]]
type = "unit"
unit = "kiosk.service"

[[confirm.checks]]
type = "target"

[[confirm.checks]]
type = "no-failed-units"

[[confirm.checks]]
type = "no-failed-units"
units = ["kiosk-*", "net*.service"]

[[confirm.checks]]
type = "http"
url = "https://me:secret@www.example.com/health?token=secret"

[[confirm.checks]]
type = "http"
url = "http://localhost:8080/health"
status = [200, 204]
body = "(?i)well"
timeout = 2.5
period = 2

[[confirm.checks]]
type = "command"
command = ["/usr/bin/selftest", "--quick"]

[[confirm.checks]]
type = "socket"
address = "broker.example.com:1883"

[[confirm.checks]]
type = "socket"
address = "/run/kiosk.socket"

[[confirm.checks]]
type = "mount"
path = "/data"
writable = true

[[confirm.checks]]
type = "free-space"
path = "/data"
min-free = 67108864

[[confirm.checks]]
type = "clock"
required = true
deadline = 120

[[confirm.checks]]
type = "heartbeat"
name = "the kiosk"
application = "org.example.Kiosk"
within = 30
"""


def checks(text: str | bytes) -> tuple[AnyCheck, ...]:
    return parse_agent_config(text if isinstance(text, bytes) else text.encode()).confirm.checks


def test_all_kinds() -> None:
    found = checks(ALL)
    assert names_of(found) == [
        "unit kiosk.service",
        "target multi-user.target",
        "no-failed-units",
        "no-failed-units kiosk-* net*.service",
        "http https://www.example.com/health",
        "http http://localhost:8080/health",
        "command /usr/bin/selftest --quick",
        "socket broker.example.com:1883",
        "socket /run/kiosk.socket",
        "mount /data",
        "free-space /data",
        "clock",
        "the kiosk",
    ]
    far = {"http https://www.example.com/health", "socket broker.example.com:1883", "clock", "the kiosk"}
    named = dict(zip(names_of(found), found, strict=True))
    assert {name for name, check in named.items() if check.remote} == far
    assert {name for name, check in named.items() if not check.counts} == far - {"clock"}
    assert [check.deadline for check in found if check.deadline is not None] == [120]


def one(kind: str, lines: str) -> str:
    return f'[[confirm.checks]]\ntype = "{kind}"\n{lines}\n'


UNIT = one("unit", 'unit = "a.service"')


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "[[confirm.checks]]\nunit = 'a.service'",
            "confirm.checks[0] has no type, expected one of unit, ",
            "",
        ),
        (UNIT + one("htttp", ""), "confirm.checks[1]: unknown type 'htttp'", "Did you mean 'http'?"),
        ("[[confirm.checks]]\ntype = 7", "confirm.checks[0]: unknown type 7", "Known here: unit, target, "),
        ("[confirm]\nchecks = 7", "confirm.checks: Expected `array`, got `int`", ""),
        ("[confirm]\nchecks = [7]", "confirm.checks[0]: Expected `object`, got `int`", ""),
        (
            one("mount", "path='/a'\nwriteable=true"),
            "confirm.checks[0]: unknown key 'writeable' of a check of type 'mount'",
            "Did you mean 'writable'?",
        ),
        (one("clock", "x=1"), "confirm.checks[0]: unknown key 'x'", "Known here: type, name, required, "),
        (one("unit", ""), "confirm.checks[0]: Object missing required field `unit`", ""),
        (one("unit", "unit = 7"), "confirm.checks[0].unit: Expected `str`, got `int`", ""),
        (one("unit", "unit = 'kiosk'"), "confirm.checks, unit kiosk: unit is 'kiosk', expected a name", ""),
        (
            one("unit", "unit = 'getty@.service'"),
            "unit is 'getty@.service', expected a name with its type",
            "",
        ),
        (one("unit", "unit = 'a*.service'"), "unit is 'a*.service', expected a name with its type", ""),
        (one("target", "target = 'a.service'"), "target is 'a.service', expected a name as multi-user", ""),
        (one("no-failed-units", "units = []"), "units is [], expected names or patterns of units", ""),
        (one("no-failed-units", "units = ['']"), "units is [''], expected names or patterns of units", ""),
        (one("http", "url = '/health'"), "url is '/health', expected http(s)://HOST/PATH", ""),
        (one("http", "url = 'http://'"), "url is 'http://', expected http(s)://HOST/PATH", ""),
        (one("http", "url = 'http://[::1'"), "url is 'http://[::1', expected http(s)://HOST/PATH", ""),
        (one("http", "url = 'http://a:99999/'"), "expected http(s)://HOST/PATH", ""),
        (one("http", "url = 'http://me:secret@a b/'"), "expected http(s)://HOST/PATH", ""),
        (one("http", "url='http://a/'\nstatus=[]"), "status is [], expected one or more of 100 to 599", ""),
        (one("http", "url='http://a/'\nstatus=[99]"), "status is [99], expected one or more of 100", ""),
        (
            one("http", "url='http://a/'\nbody='('"),
            "body is '(', which is no regular expression: missing",
            "",
        ),
        (one("http", "url='http://a/'\nbody='a{99999999999}'"), "which is no regular expression: ", ""),
        (one("http", "url='http://a/'\nbody=''"), "body has 0 characters, expected 1 to 1000", ""),
        (
            one("http", 'url="http://a/"\nbody="\\u0000"'),
            "body has 1 characters, expected 1 to 1000, and",
            "",
        ),
        (one("http", "url='http://a/'\ntimeout=0"), "timeout is 0, expected 0.1 to 3600 s", ""),
        (one("http", "url='http://a/'\ntimeout=nan"), "timeout is nan, expected 0.1 to 3600 s", ""),
        (one("command", "command = []"), "command is [], expected a program and its arguments", ""),
        (one("command", "command = ['']"), "command is [''], expected a program and its arguments", ""),
        (one("command", 'command = ["a\\u0000"]'), "expected a program and its arguments", ""),
        (one("socket", "address = 'a'"), "address is 'a', expected \"host:port\" or the absolute path", ""),
        (one("socket", "address = 'a:0'"), "address is 'a:0', expected \"host:port\"", ""),
        (one("socket", "address = 'a:65536'"), "address is 'a:65536', expected", ""),
        (one("socket", "address = 'a:٣'"), 'expected "host:port"', ""),
        (one("socket", "address = '::1:80'"), "address is '::1:80', expected \"host:port\"", ""),
        (one("socket", "address = '[::1:80'"), "address is '[::1:80', expected \"host:port\"", ""),
        (one("socket", f"address = '/{'a' * 107}'"), "or the absolute path of a unix socket", ""),
        (one("mount", "path = 'data'"), "path is 'data', expected an absolute path", ""),
        (one("free-space", "path = 'data'\nmin-free=1"), "path is 'data', expected an absolute path", ""),
        (one("free-space", "path = '/data'\nmin-free=0"), "min-free is 0, expected 1 to ", ""),
        (one("free-space", "path = '/data'\nmin-free=0.5"), "min-free: Expected `int`, got `float`", ""),
        (one("heartbeat", "application = 'a b'"), "application is 'a b', expected letters, digits and", ""),
        (one("heartbeat", "application = 'a'\nwithin = 0.5"), "within is 0.5, expected 1 to 86400 s", ""),
        (one("clock", "name = ''"), "name is '', expected 1 to 100 printable characters", ""),
        (one("clock", 'name = "a\\nb"'), "name is 'a\\nb', expected 1 to 100 printable characters", ""),
        (one("clock", "name = 'watchdog'"), "name is 'watchdog', which is that of the built-in check", ""),
        (one("clock", "period = 0.01"), "period is 0.01, expected 0.1 to 3600 s", ""),
        (one("clock", "deadline = 301"), "deadline is 301, expected 1 to 300 s, that of [confirm]", ""),
        (
            one("clock", "deadline = 10"),
            "confirm.checks, clock: deadline is 10 s, expected at least stable-for and a period (11 s)",
            "",
        ),
        (one("clock", "period = 295"), "deadline is 300 s, expected at least stable-for and a period", ""),
        (
            one("clock", "name = 'a'") + one("target", "name = 'a'"),
            "confirm.checks: two checks are named 'a', expected another name for each",
            "",
        ),
    ],
)
def test_refusals(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checks(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("confirm.checks")
    assert caught.value.hint.startswith(hint)
    assert "secret" not in str(caught.value)


def test_good_patterns_and_addresses() -> None:
    for unit in (
        "a.service",
        "dev-disk-by\\\\x2dlabel-data.device",
        "getty@tty1.service",
        "-.mount",
        "x.slice",
    ):
        assert checks(one("unit", f'unit = "{unit}"'))
    for address in ("localhost:1", "[fe80::1%eth0]:65535", "10.0.0.1:80", "/run/a"):
        assert checks(one("socket", f"address = '{address}'"))
    assert checks(one("http", "url = 'HTTP://A.example'"))


def test_names_are_never_taken_twice() -> None:
    found = checks(UNIT + one("clock", "name = 'unit a.service (2)'") + UNIT + UNIT + one("clock", ""))
    assert names_of(found) == [
        "unit a.service",
        "unit a.service (2)",
        "unit a.service (3)",
        "unit a.service (4)",
        "clock",
    ]


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("kiosk.localhost", True),
        ("127.0.0.1", True),
        ("127.4.5.6", True),
        ("::1", True),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_this_device(host: str, local: bool) -> None:
    assert is_local(host) is local
    shown = f"[{host}]" if ":" in host else host
    assert HttpCheck(url=f"http://{shown}:8080/").remote is not local
    assert SocketCheck(address=f"{shown}:8080").remote is not local


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["type", "unit", "url", "status", "body", "command", "address", "path", "min-free", "period", "name"]
)
KINDS = st.sampled_from(["unit", "http", "command", "socket", "mount", "free-space", "heartbeat"])


@given(st.dictionaries(KEYS, VALUES, max_size=4), KINDS)
def test_never_another_error(table: dict[str, object], kind: str) -> None:
    document = "[confirm]\nchecks = [" + _toml({"type": kind, **table}) + "]"
    try:
        found = checks(document)
    except ConfigError:
        return
    assert all(name for name in names_of(found))
    assert all(check.remote in (True, False) for check in found)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "0"
        case int():
            return str(value)
        case float():
            return repr(value)
        case str():
            return (
                '"'
                + "".join(f"\\U{ord(c):08x}" if not 0xD800 <= ord(c) < 0xE000 else "?" for c in value)
                + '"'
            )
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{_toml(str(key))} = {_toml(one)}" for key, one in value.items()) + "}"
    raise AssertionError(value)
