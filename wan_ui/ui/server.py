"""The socket side of the page: uvicorn with bounds that Gradio's own start leaves open.

Target: `http_server.start_server` of gradio 6, which `Blocks.launch` calls. Why: a connection that never finishes
its headers stays for ever, one visitor can open connections until no file descriptor is left (and then the queue
cannot open its database), uvicorn believes `X-Forwarded-For` of everybody on 127.0.0.1, addresses of IPv6 do not
work, and a busy machine is given five seconds to start. How: `start_server` here takes its place. Remove when:
Gradio hands its options for uvicorn on.
"""

import asyncio
import logging
import socket
import threading
import time
from collections import Counter

import h11
import uvicorn
from gradio import http_server
from uvicorn.protocols.http.h11_impl import H11Protocol

from wan_ui import limits
from wan_ui.addresses import address_of, bare_host
from wan_ui.errors import UserError
from wan_ui.settings import Settings
from wan_ui.system import most_files
from wan_ui.ui import seams
from wan_ui.ui.visitor import group, is_trusted

log = logging.getLogger(__name__)

BACKLOG = 128  # connections taken at once, before any is counted
HEADROOM = 2 * BACKLOG + 200  # descriptors left for the queue, the worker, ffmpeg and files being served
MOST_FILES = 65_536
START_SECONDS = 120.0
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nconnection: close\r\nretry-after: 5\r\n"
    b"content-length: 34\r\n\r\nToo many connections; try later.\r\n"
)


def protocol(settings: Settings, total: int) -> type[H11Protocol]:
    """uvicorn's protocol with at most `total` connections, settings.max_connections from one address."""
    opened: Counter[str] = Counter()

    class Bounded(H11Protocol):
        address = ""
        header_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            self.address = group(self.client[0]) if self.client else ""
            opened[self.address] += 1
            one = opened[self.address] > settings.max_connections and not is_trusted(self.address, settings)
            if one or opened.total() > total:
                transport.write(TOO_MANY)
                transport.close()
                return
            self._await_headers()

        def connection_lost(self, exc) -> None:
            super().connection_lost(exc)
            self._headers_came()
            opened[self.address] -= 1
            if not opened[self.address]:
                del opened[self.address]

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            # h11 is IDLE until a request's headers are whole.
            if self.conn.their_state is not h11.IDLE:
                self._headers_came()
            elif self.header_timer is None and self.timeout_keep_alive_task is None:
                self._await_headers()

        def _await_headers(self) -> None:
            self.header_timer = self.loop.call_later(limits.HEADER_SECONDS, self._too_slow)

        def _headers_came(self) -> None:
            if self.header_timer is not None:
                self.header_timer.cancel()
                self.header_timer = None

        def _too_slow(self) -> None:
            self.header_timer = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.abort()

    return Bounded


class Server(http_server.Server):
    def run_in_thread(self) -> None:
        sockets = None
        if self.config.host == "::":  # asyncio would take IPv6 alone
            place = ("::", self.config.port)
            sockets = [socket.create_server(place, family=socket.AF_INET6, dualstack_ipv6=socket.has_dualstack_ipv6())]
        self.thread = threading.Thread(target=self.run, args=(sockets,), name="wan-ui-page", daemon=True)
        self.thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self.started:
            if not self.thread.is_alive() or time.monotonic() > deadline:
                raise UserError(f"port: the page could not be started on {self.config.host}:{self.config.port}")
            time.sleep(0.01)


def install(settings: Settings, wrap) -> None:
    """Let `Blocks.launch` start its server here. wrap: ASGI application -> the one that is served."""

    def start_server(app, server_name: str, server_port: int, **_) -> tuple[str, int, str, Server]:
        files = most_files(MOST_FILES)
        total = max(16, files - HEADROOM)
        if total < settings.max_connections:
            log.warning("only %d open files are allowed (ulimit -n): at most %d connections are taken", files, total)
        config = uvicorn.Config(
            wrap(app),
            host=bare_host(server_name),
            port=server_port,
            http=protocol(settings, total),
            ws="none",
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=limits.KEEP_ALIVE,
        )
        server = Server(config)
        server.run_in_thread()
        return server_name, server_port, address_of(server_name, server_port), server

    seams.replace("gradio.http_server:start_server", start_server)
