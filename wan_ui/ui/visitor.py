"""Who is asking: by which name, from which page, from which machine.

A browser tells the name that it was given (`Host`) and the page that a request comes from (`Origin`,
`Sec-Fetch-Site`); programs tell neither. A reverse proxy says for whom it asks (`X-Forwarded-*`); anybody can write
that, so it is believed only of proxies that are named in WAN_UI_PROXIES, and otherwise it says one thing alone: the
visitor may sit anywhere.
"""

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from wan_ui.settings import Settings, split_names

HOST = re.compile(r"(?:\[([0-9a-f:.]+(?:%[\w.-]+)?)\]|([\w.-]+))(?::(\d{1,5}))?", re.ASCII)
PORTS = {"http": "80", "https": "443"}
# What proxies and tunnels add. nginx asks in HTTP/1.0 by default and adds nothing; no browser does that.
FORWARDED = ("forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip")


def is_loopback(name: str) -> bool:
    """Whether an address or a name always means this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _address(text: str):
    """An IPv4 or IPv6 address, brackets and zones taken off, mapped IPv4 as IPv4; None for anything else."""
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def group(address: str) -> str:
    """Who is counted as one: an IPv4 address, or the network that an IPv6 subscriber is given."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return str(parsed if parsed.version == 4 else ipaddress.ip_network((parsed, 64), strict=False))


def split_host(value: str) -> tuple[str, str]:
    """ "Wan.example.com:8080" -> ("wan.example.com", "8080"), "[::1]" -> ("::1", ""); ("", "") for anything else."""
    value = value.strip().lower()
    if value.count(":") > 1 and not value.startswith("["):
        value = f"[{value}]"  # an IPv6 address without its brackets
    found = HOST.fullmatch(value)
    return ((found[1] or found[2]).rstrip("."), found[3] or "") if found else ("", "")


def _is_named(name: str, port: str, settings: Settings) -> bool:
    """Whether the owner has named this host in WAN_UI_HOSTS; an entry without a port means all ports."""
    for entry in split_names(settings.hosts):
        known, only = split_host(entry.removeprefix("*."))
        same = name.endswith(f".{known}") if entry.startswith("*.") else name == known
        if same and only in ("", port):
            return True
    return False


def is_known_host(value: str, settings: Settings) -> bool:
    """Whether requests under this name are answered.

    A web page can give its own name any address (DNS rebinding) and then reads what it finds there. It can do so with
    names only: addresses are safe. On a loopback address only this machine's names are answered, and those that the
    owner has named; elsewhere any name unless the owner has named some.
    """
    name, port = split_host(value)
    if not name:
        return False
    if is_loopback(name) or _is_named(name, port, settings):
        return True
    if is_loopback(settings.host):
        return False
    return _address(name) is not None or not settings.hosts


def is_cross_site(headers: Headers, settings: Settings) -> bool:
    """Whether a page of somebody else made the browser send this."""
    origin, fetch_site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin == "null":
        return True
    if fetch_site:
        return fetch_site not in ("same-origin", "none")
    if origin is None:
        return False
    scheme, _, host = origin.partition("://")
    name, port = split_host(host)
    if _is_named(name, port, settings):
        return False
    for value in (headers.get("host", ""), headers.get("x-forwarded-host", "").partition(",")[0]):
        ours, our_port = split_host(value)
        # A proxy that passes on `$host`, as Gradio's guide for nginx has it, leaves out the port.
        if ours == name and (not our_port or our_port == (port or PORTS.get(scheme, ""))):
            return False
    return True


def is_trusted(peer: str, settings: Settings) -> bool:
    """Whether this is a proxy that the owner has named."""
    address = _address(peer)
    if address is None:
        return False
    networks = (ipaddress.ip_network(entry, strict=False) for entry in split_names(settings.proxies))
    return any(address in network for network in networks)


def visitor(scope: dict, settings: Settings) -> tuple[bool, str]:
    """(whether it is the person at this machine, the address of whoever asks, as far as it is known)."""
    peer = (scope.get("client") or ("", 0))[0]
    local = is_loopback(settings.host) and (not peer or is_loopback(peer))
    headers = Headers(scope=scope)
    forwarded = any(name.startswith("x-forwarded-") or name in FORWARDED for name in headers)
    if not forwarded and scope.get("http_version") != "1.0":
        return local, peer
    if not is_trusted(peer, settings):
        return False, peer
    chain = [split_host(part)[0] for value in headers.getlist("x-forwarded-for") for part in value.split(",")]
    chain = [part for part in chain or [headers.get("x-real-ip", "")] if part]
    # Whatever stands left of the first stranger was written by that stranger.
    address = next((part for part in reversed(chain) if not is_trusted(part, settings)), chain[0] if chain else "")
    return local and is_loopback(address), address or peer


def from_here(scope: dict) -> bool:
    """Whether a program of this machine asks, not through a proxy, whatever address the page listens on."""
    headers = Headers(scope=scope)
    forwarded = any(name.startswith("x-forwarded-") or name in FORWARDED for name in headers)
    host = split_host(headers.get("host", ""))[0]  # a page of strangers may have its own name point here
    return is_loopback((scope.get("client") or ("", 0))[0]) and not forwarded and is_loopback(host)


def origin_host(headers: Headers) -> str:
    """Name and port by which the browser knows this page, told by a request that came from it; "" when it was not."""
    origin = headers.get("origin") or ""
    return urlsplit(origin).netloc if origin.startswith(("http://", "https://")) else ""
