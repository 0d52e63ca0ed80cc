"""Configuration to connection settings; what a caller changes; what is told about the device."""

from __future__ import annotations

import pytest

from updated.config.agent_tables import Http
from updated.config.sections import SEND_HEADERS, Streaming
from updated.core.link import LinkSettings
from updated.core.model import Access
from updated.errors import ConfigError, NotSupportedError, UpdatedError
from updated.install.link_settings import SENT, merge, send_headers, settings_from


def test_defaults() -> None:
    assert settings_from(Http(), Streaming()) == LinkSettings()


def test_updated_toml_comes_before_system_conf() -> None:
    streaming = Streaming(tls_ca="/rauc/ca", tls_cert="/rauc/cert", tls_key="/rauc/key")
    found = settings_from(Http(ca="/ours/ca"), streaming)
    assert (found.tls_ca, found.tls_cert, found.tls_key) == ("/ours/ca", "/rauc/cert", "/rauc/key")
    http = Http(proxy="", cert="/c", key="/k", user="u", netrc="/n", rate_limit=5, headers={"A": "b c"})
    found = settings_from(http, streaming)
    assert found == LinkSettings(
        proxy="",
        tls_ca="/rauc/ca",
        tls_cert="/c",
        tls_key="/k",
        user="u",
        netrc="/n",
        rate_limit=5,
        headers=(("A", "b c"),),
    )


def test_secrets_stay_in_their_files() -> None:
    """A file that is missing keeps nobody from starting."""
    assert settings_from(Http(bearer_token_file="/none"), Streaming()).bearer_file == "/none"
    found = settings_from(Http(user="u", password_file="/none"), Streaming())
    assert (found.user, found.password, found.password_file) == ("u", "", "/none")


@pytest.mark.parametrize(
    "headers",
    [
        {"A B": "c"},
        {"": "c"},
        {"A": "b\r\nC: d"},
        {"A": "\0"},
        {"A: b\nC": "d"},
        {"A:B": "c"},
        {"Range": "x"},
    ],
)
def test_headers_that_are_none(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^headers in \[http\] of updated.toml: "):
        settings_from(Http(headers=headers), Streaming())


SETTINGS = LinkSettings(
    tls_ca="/ca", tls_cert="/cert", tls_key="/key", headers=(("X-One", "1"), ("X-Two", "2")), bearer="t"
)


def test_nothing_wanted_is_nothing_changed() -> None:
    assert merge(SETTINGS, Access()) == SETTINGS


def test_each_wish_for_itself() -> None:
    found = merge(
        SETTINGS, Access(tls_cert="/mine", tls_no_verify=True, headers=("x-two: 22", "X-Two:  23 ", "N:"))
    )
    assert (found.tls_ca, found.tls_cert, found.tls_key) == ("/ca", "/mine", "/key")
    assert found.tls_no_verify
    assert found.headers == (("X-One", "1"), ("x-two", "22"), ("X-Two", "23"), ("N", ""))
    assert found.bearer == "t"


@pytest.mark.parametrize("line", ["", "A", ": b", "A b: c", "A: b\nC: d", "A: b\r", "A: \0", "Ä: b"])
def test_wishes_that_are_no_headers(line: str) -> None:
    with pytest.raises(UpdatedError, match="Invalid HTTP header"):
        merge(SETTINGS, Access(headers=(line,)))


@pytest.mark.parametrize("name", ["Range", "if-range", "Accept-Encoding", "CONTENT-LENGTH", "Connection"])
def test_headers_that_are_ours(name: str) -> None:
    with pytest.raises(UpdatedError, match=f"HTTP header '{name}' cannot be set"):
        merge(SETTINGS, Access(headers=(f"{name}: x",)))


@pytest.mark.parametrize("key", ["tls_cert", "tls_key", "tls_ca"])
def test_pkcs11(key: str) -> None:
    url = "pkcs11:token=a;object=b"
    wish = Access(
        tls_cert=url if key == "tls_cert" else "",
        tls_key=url if key == "tls_key" else "",
        tls_ca=url if key == "tls_ca" else "",
    )
    with pytest.raises(NotSupportedError, match="PKCS#11 URL, which is not supported yet") as caught:
        merge(SETTINGS, wish)
    assert caught.value.hint == "Use a PEM file."
    with pytest.raises(NotSupportedError):
        merge(settings_from(Http(), Streaming(tls_key=url)), Access())


def test_all_of_raucs_names_are_known() -> None:
    assert set(SENT) == SEND_HEADERS


def test_what_is_told() -> None:
    facts = {"boot-id": "b00t", "serial": "12 34\0\n", "variant": "", "uptime": "17.25", "machine-id": "m"}
    names = ("boot-id", "serial", "variant", "uptime", "transaction-id")
    assert send_headers(names, facts) == {
        "RAUC-Boot-ID": "b00t",
        "RAUC-Serial": "12 34",
        "RAUC-Uptime": "17.25",
    }
    assert send_headers((), facts) == {}
    assert send_headers(SEND_HEADERS, {"serial": "a\r\nEvil: b\x7fü"}) == {"RAUC-Serial": "aEvil: b"}
