"""Addresses of this page, as a browser of this machine writes them, and as others are told of a clip."""

from wan_ui.settings import Settings


def bare_host(host: str) -> str:
    """ "[::1]" -> "::1"."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def address_of(host: str, port: int) -> str:
    """Where this machine finds a page that listens on `host`."""
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(bare_host(host), bare_host(host))
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def link_to(job: str, settings: Settings) -> str:
    """A clip's own address on the page: below WAN_UI_ROOT_PATH where that is a whole address, else on this machine."""
    root = settings.root_path.rstrip("/")
    page = root if "://" in root else address_of(settings.host, settings.port).rstrip("/") + root
    return f"{page}/?clip={job}"
