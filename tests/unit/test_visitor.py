"""Names, pages and proxies: who is answered, and who is the person at this machine."""

import pytest
from starlette.datastructures import Headers

from wan_ui.settings import Settings
from wan_ui.ui.visitor import is_cross_site, is_known_host, is_loopback, visitor


@pytest.mark.parametrize(
    "host, expected",
    [
        *[(name, True) for name in ("127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9", "::ffff:127.0.0.1")],
        ("a.localhost", True),
        *[(name, False) for name in ("0.0.0.0", "::", "10.0.0.5", "localhost.evil.example", "")],
        ("127.0.0.1.evil.example", False),
    ],
)  # fmt: skip
def test_loopback(host, expected):
    assert is_loopback(host) is expected


HERE, NAMED = Settings(), Settings(hosts="wan.example.com, *.lan, dev:8080")
OPEN, OPEN_NAMED = Settings(host="0.0.0.0"), Settings(host="0.0.0.0", hosts="wan.example.com")


@pytest.mark.parametrize("settings", [HERE, NAMED, OPEN, OPEN_NAMED, Settings(host="::1"), Settings(host="[::]")])
@pytest.mark.parametrize("value", ["localhost", "LOCALHOST:7860", "localhost.", "127.0.0.1:1", "[::1]:7860", "[::1]"])
def test_this_machines_names_are_always_answered(settings, value):
    assert is_known_host(value, settings)


@pytest.mark.hardening(31)
@pytest.mark.parametrize(
    "settings, value, expected",
    [
        *[(HERE, value, False) for value in ("evil.example", "evil.example:7860", "192.168.1.5:7860", "0.0.0.0", "")],
        *[(HERE, value, False) for value in ("localhost.evil.example", "127.0.0.1.nip.io", "[::1].x", "a@localhost")],
        *[(NAMED, value, True) for value in ("wan.example.com", "WAN.example.com:81", "box.lan:7860", "dev:8080")],
        *[(NAMED, value, False) for value in ("example.com", "lan", "evillan", "dev:8081", "x.dev:8080")],
        *[(OPEN, value, True) for value in ("anything.example", "192.168.1.5:7860", "[fe80::1]:7860")],
        (OPEN_NAMED, "192.168.1.5:7860", True),
        (OPEN_NAMED, "wan.example.com:7860", True),
        (OPEN_NAMED, "evil.example:7860", False),
    ],
)  # fmt: skip
def test_names_that_are_answered(settings, value, expected):
    assert is_known_host(value, settings) is expected


def headers(**values: str) -> Headers:
    return Headers({name.replace("_", "-"): value for name, value in values.items()})


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"host": "127.0.0.1:7860"}, False),  # a program
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, False),
        ({"host": "[::1]:7860", "origin": "http://[::1]:7860"}, False),
        ({"host": "[::1]:7860", "origin": "http://[::2]:7860"}, True),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:3000"}, True),
        ({"host": "127.0.0.1:7860", "origin": "https://evil.example"}, True),
        ({"host": "127.0.0.1:7860", "origin": "null"}, True),
        ({"host": "wan.example.com", "origin": "https://wan.example.com"}, False),
        ({"host": "wan.example.com:80", "origin": "http://wan.example.com"}, False),
        ({"host": "wan.example.com:80", "origin": "https://wan.example.com"}, True),
        ({"host": "a.example", "origin": "http://a.example:8080"}, False),  # nginx: Host $host
        ({"host": "127.0.0.1:7860", "x_forwarded_host": "a.example", "origin": "http://a.example:8080"}, False),
        ({"host": "a.example", "origin": "http://b.example:8080"}, True),
        ({"host": "a.example", "origin": "http://a.example:8080", "sec_fetch_site": "cross-site"}, True),
        ({"host": "a.example", "origin": "http://b.example", "sec_fetch_site": "same-origin"}, False),
    ],
)
def test_pages_of_others(values, expected):
    assert is_cross_site(headers(**values), HERE) is expected


def test_a_page_that_the_owner_named_may_ask():
    values = {"host": "127.0.0.1:7860", "origin": "http://wan.example.com:8080"}
    assert is_cross_site(headers(**values), HERE) and not is_cross_site(headers(**values), NAMED)


def scope(client="127.0.0.1", version="1.1", **values: str) -> dict:
    return {"client": (client, 1), "http_version": version, "headers": headers(**values).raw}


PROXIED = Settings(proxies="127.0.0.1, 10.0.0.0/8")


@pytest.mark.hardening(32)
@pytest.mark.parametrize(
    "settings, asked, expected",
    [
        (HERE, scope(), (True, "127.0.0.1")),
        (HERE, scope("::ffff:127.0.0.1"), (True, "::ffff:127.0.0.1")),
        (OPEN, scope(), (False, "127.0.0.1")),
        (HERE, scope(x_forwarded_for="127.0.0.1"), (False, "127.0.0.1")),  # anybody can say that
        (HERE, scope(x_forwarded_for="203.0.113.5"), (False, "127.0.0.1")),
        *[
            (HERE, scope(**{name: value}), (False, "127.0.0.1"))
            for name, value in (
                ("x_forwarded_host", "a.example"), ("x_forwarded_proto", "https"), ("forwarded", "for=127.0.0.1"),
                ("x_real_ip", "127.0.0.1"), ("via", "1.1 caddy"), ("x_forwarded_prefix", "/wan"),
                ("cf_connecting_ip", "::1"),
            )
        ],
        (HERE, scope(version="1.0"), (False, "127.0.0.1")),  # nginx that was told nothing
        (PROXIED, scope(), (True, "127.0.0.1")),
        (PROXIED, scope(x_forwarded_for="203.0.113.5"), (False, "203.0.113.5")),
        (PROXIED, scope(x_forwarded_for="127.0.0.1"), (True, "127.0.0.1")),
        (PROXIED, scope(x_forwarded_for="127.0.0.1, 203.0.113.5"), (False, "203.0.113.5")),  # the left one is forged
        (PROXIED, scope(x_forwarded_for="203.0.113.5, 10.1.2.3"), (False, "203.0.113.5")),
        (PROXIED, scope(x_forwarded_proto="https"), (False, "127.0.0.1")),  # it does not say for whom
        (PROXIED, scope(x_real_ip="203.0.113.5"), (False, "203.0.113.5")),
        (PROXIED, scope(x_forwarded_for="unknown"), (False, "unknown")),
    ],
)  # fmt: skip
def test_who_is_the_person_at_this_machine(settings, asked, expected):
    assert visitor(asked, settings) == expected
