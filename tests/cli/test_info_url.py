"""`info` of bundles on a real server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import pytest

Run = Callable[..., CompletedProcess[str]]

NGINX = """\
user root;
daemon off;
error_log {0}/error.log;
pid {0}/pid;
events {{}}
http {{
  client_body_temp_path {0}/t; proxy_temp_path {0}/t; fastcgi_temp_path {0}/t;
  uwsgi_temp_path {0}/t; scgi_temp_path {0}/t;
  log_format bytes '$body_bytes_sent';
  access_log {0}/bytes.log bytes;
  server {{
    listen 127.0.0.1:{1};
    root {0}/www;
    location /whole/ {{ alias {0}/www/; max_ranges 0; }}
    location /private/ {{ alias {0}/www/; if ($http_x_key != "letmein") {{ return 403; }} }}
  }}
  server {{
    listen 127.0.0.1:{2} ssl;
    ssl_certificate {0}/server.pem;
    ssl_certificate_key {0}/server.key;
    ssl_client_certificate {3}/ca.pem;
    ssl_verify_client on;
    root {0}/www;
  }}
}}
"""


class Web(NamedTuple):
    """A server with `verity.raucb` and `plain.raucb`."""

    folder: Path
    http: str
    https: str  # wants a certificate of the client

    def sent(self) -> list[int]:
        """Bytes of each answer so far."""
        return [int(line) for line in (self.folder / "bytes.log").read_text().split()]


def openssl(folder: Path, *words: str | Path) -> None:
    command = ["openssl", *(str(word) for word in words)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=20)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, pki: Path, bundles: Mapping[str, Path]) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "www").mkdir()
    for name, bundle in bundles.items():
        shutil.copy(bundle, folder / "www" / f"{name}.raucb")
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    about = ("-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "30")
    openssl(folder, "req", "-x509", *ec, "-keyout", "server.key", "-out", "server.pem", *about)
    http, https = free_ports()
    (folder / "nginx.conf").write_text(NGINX.format(folder, http, https, pki))
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as nginx:
        deadline = time.monotonic() + 10
        while not (folder / "pid").exists():
            assert time.monotonic() < deadline, (folder / "error.log").read_text()
            time.sleep(0.01)
        yield Web(folder, f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}")
        nginx.terminate()


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


@pytest.mark.parametrize("extra", [(), ("--no-verify",), ("--output-format=json-2",)])
def test_it_is_what_the_file_says(
    updated: Run, pki: Path, bundles: Mapping[str, Path], web: Web, extra: tuple[str, ...]
) -> None:
    words = ("info", f"--keyring={pki}/ca.pem", *extra)
    for bundle_format, bundle in bundles.items():
        file = updated(*words, bundle)
        url = updated(*words, f"{web.http}/{bundle_format}.raucb")
        assert (url.returncode, url.stderr) == (0, "")
        assert url.stdout == file.stdout


def test_only_the_end_of_a_verity_bundle_is_read(
    updated: Run, pki: Path, bundles: Mapping[str, Path], web: Web
) -> None:
    before = len(web.sent())
    assert updated("info", f"--keyring={pki}/ca.pem", f"{web.http}/verity.raucb").returncode == 0
    (sent,) = web.sent()[before:]
    assert sent < bundles["verity"].stat().st_size


@pytest.mark.parametrize(
    ("path", "error", "hint"),
    [
        ("/whole/verity.raucb", "Server cannot send parts of", "range requests"),
        ("/nosuch.raucb", "Failed to read", "withdrawn"),
        ("/private/verity.raucb", "Failed to read", "token"),
    ],
)
def test_a_server_that_does_not_help(updated: Run, web: Web, path: str, error: str, hint: str) -> None:
    got = updated("info", "--no-verify", web.http + path)
    assert (got.returncode, got.stdout) == (1, "")
    first, second = got.stderr.splitlines()
    assert first.startswith(error)
    assert second.startswith("hint: ")
    assert hint in second


def test_no_server_at_all(updated: Run) -> None:
    got = updated("info", "--no-verify", f"http://127.0.0.1:{free_ports()[0]}/x.raucb")
    assert (got.returncode, got.stdout) == (1, "")
    assert "Traceback" not in got.stderr


def test_headers_are_sent(updated: Run, web: Web) -> None:
    url = f"{web.http}/private/verity.raucb"
    assert updated("info", "--no-verify", "-H", "X-Key: letmein", url).returncode == 0
    assert updated("info", "--no-verify", "-H", "X-Key: wrong", url).returncode == 1


def test_tls_as_the_command_line_says(updated: Run, web: Web, pki: Path) -> None:
    client = (f"--tls-cert={pki}/dev.pem", f"--tls-key={pki}/dev.key")
    url = f"{web.https}/verity.raucb"

    def info(*words: str) -> int:
        return updated("info", "--no-verify", *words, url).returncode

    assert info(*client) == 1  # nobody vouches for the server
    assert info(*client, f"--tls-ca={web.folder}/server.pem") == 0
    assert info(*client, "--tls-no-verify") == 0
    assert info(f"--tls-ca={web.folder}/server.pem") == 1  # it wants to know who we are


def test_tls_as_the_configuration_says(updated: Run, web: Web, pki: Path, device: Path) -> None:
    conf = device / "system.conf"
    section = f"tls-cert={pki}/dev.pem\ntls-key={pki}/dev.key\ntls-ca={web.folder}/server.pem\n"
    conf.write_text(f"{conf.read_text()}\n[streaming]\n{section}")
    url = f"{web.https}/verity.raucb"
    assert updated("info", "-c", conf, url).returncode == 0
    assert updated("info", "-c", conf, f"--tls-ca={pki}/ca.pem", url).returncode == 1
