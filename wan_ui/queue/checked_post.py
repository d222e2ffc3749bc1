"""A POST to an address that somebody has written down: never to this machine or a private network by accident.

The name is looked up once, every address that it has is checked, and the connection goes to a checked one: a name that
means another machine a moment later (DNS rebinding) changes nothing. Nothing of the answer is followed or kept but its
status. No proxy is used: who connects is who has checked.
"""

import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from wan_ui import __version__
from wan_ui.errors import UserError

SECONDS = 10.0  # for all of it, looking the name up excepted
UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is given to anybody
# Of 192.0.0.0/24 some addresses are global on paper; none is a receiver, and Python's own list has changed.
PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in its last 32 bits


class AddressRefused(UserError):
    """The address must not be asked; says why, and what to do."""


def shown(url: str) -> str:
    """Scheme, host and port: a path or a query may hold the secret of who takes the message."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def is_public(address: str) -> bool:
    """Whether an IP address is one machine of the open internet, in whatever form IPv6 carries an IPv4 address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return found.is_global and not (found.is_multicast or found.is_reserved or found in PROTOCOLS)
    inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
    if found in NAT64:
        inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(str(inner))
    return found in UNICAST and found.is_global and not found.is_multicast


def checked_addresses(host: str, port: int, private: bool) -> list[str]:
    """IP addresses of a host, all of which may be asked. private: those of this machine and of private networks, too.

    Raises AddressRefused, and OSError where the name is not known.
    """
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    wrong = [] if private else [address for address in found if not is_public(address)]
    if wrong:
        raise AddressRefused(
            f"WAN_UI_WEBHOOK: {host} is {wrong[0]}, which is this machine or in a network that is not public; "
            "WAN_UI_WEBHOOK_PRIVATE=1 allows that"
        )
    return list(dict.fromkeys(found))


def post_json(url: str, values: dict[str, Any], key: str, private: bool = False) -> int:
    """The answer's status. url: as rules.WEBHOOK has let it through; key: the same for the same message sent again.

    Raises AddressRefused, OSError or http.client.HTTPException.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    addresses = checked_addresses(host, port, private)
    end = time.monotonic() + SECONDS
    plain = _connect(addresses, port, end)
    late = threading.Event()

    def stop() -> None:
        late.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection.sock or plain, socket.SHUT_RDWR)

    connection = http.client.HTTPConnection(host, port)
    timer = threading.Timer(max(0.0, end - time.monotonic()), stop)  # a byte now and then would go on for ever
    timer.daemon = True
    timer.start()
    try:
        connection.sock = plain
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"wan-ui/{__version__}",
            "Idempotency-Key": key,
            "Connection": "close",
            "Host": parts.netloc,
        }
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, json.dumps(values).encode(), headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set():
            raise TimeoutError(f"no whole answer within {SECONDS:g} s") from None
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            raise OSError(str(error)) from None
        raise
    finally:
        timer.cancel()
        connection.close()
        plain.close()


def _connect(addresses: list[str], port: int, end: float) -> socket.socket:
    """To the first that answers. Raises OSError."""
    trouble: OSError = OSError("the name has no address")
    for address in addresses:
        left = end - time.monotonic()
        if left <= 0:
            break
        try:
            return socket.create_connection((address, port), timeout=left)
        except OSError as error:
            trouble = error
    raise trouble
