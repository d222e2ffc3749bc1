"""The socket side: real connections against uvicorn with our protocol and an application of one line."""

import contextlib
import socket
import time
from http.client import HTTPConnection

import httpx
import pytest
from starlette.responses import PlainTextResponse

from tests.ports import free_port
from tests.ui.conftest import PATIENCE
from wan_ui import limits
from wan_ui.addresses import address_of
from wan_ui.settings import Settings
from wan_ui.ui import server
from wan_ui.ui.visitor import group


@pytest.fixture
def served(monkeypatch):
    """Start it: served(host=..., max_connections=...) -> its address."""
    monkeypatch.setattr(limits, "HEADER_SECONDS", 2.0)
    monkeypatch.setattr(server.http_server, "start_server", None)
    running = []

    def start(**values) -> str:
        settings = Settings(port=free_port(), **values)
        server.install(settings, lambda app: app)
        *_, address, one = server.http_server.start_server(PlainTextResponse("here"), settings.host, settings.port)
        running.append(one)
        return address

    yield start
    for one in running:
        one.close()


def connect(address: str) -> socket.socket:
    url = httpx.URL(address)
    return socket.create_connection((url.host, url.port), timeout=PATIENCE)


def answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(address, trust_env=False).text == "here"
    return False


@pytest.mark.hardening(41)
@pytest.mark.limit("HEADER_SECONDS", "MAX_CONNECTIONS")
def test_half_sent_headers_are_ended_and_free_their_places(served):
    address = served(max_connections=8)
    half = [connect(address) for _ in range(8)]
    for one in half:
        one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
    ninth = connect(address)
    assert b"503 Service Unavailable" in ninth.recv(1000)
    assert [one.recv(10) for one in half] == [b""] * 8
    deadline = time.monotonic() + PATIENCE
    while not answers(address):
        assert time.monotonic() < deadline


def test_the_second_request_of_a_connection_has_to_end_its_headers_too(served):
    one = connect(served())
    one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert one.recv(10_000).startswith(b"HTTP/1.1 200")
    one.sendall(b"GET / HT")
    while one.recv(1000):
        pass


def test_an_idle_connection_serves_again(served):
    url = httpx.URL(served())
    one = HTTPConnection(url.host, url.port, timeout=PATIENCE)
    one.connect()
    first = one.sock
    for _ in range(2):
        one.request("GET", "/")
        answer = one.getresponse()
        assert answer.status == 200 and answer.read()
        assert one.sock is first


@pytest.mark.limit("KEEP_ALIVE")
def test_an_idle_connection_is_ended(served, monkeypatch):
    monkeypatch.setattr(limits, "KEEP_ALIVE", 1)
    one = connect(served())
    one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert one.recv(10_000).startswith(b"HTTP/1.1 200")
    while one.recv(1000):
        pass


@pytest.mark.parametrize(
    "host, words", [("::1", "http://[::1]:"), ("[::1]", "http://[::1]:"), ("::", "http://localhost:")]
)
def test_addresses_of_ipv6(served, host, words):
    try:
        address = served(host=host)
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert address.startswith(words) and answers(address)


def test_whose_connections_are_counted_together():
    assert group("::ffff:192.0.2.7") == group("192.0.2.7") == "192.0.2.7"
    assert group("2001:db8:1:2::5") == group("2001:db8:1:2:ffff::") != group("2001:db8:1:3::5")
    assert group("fe80::1%eth0") == "fe80::/64"
    assert address_of("0.0.0.0", 7860) == "http://localhost:7860/"
