"""The owner's webhook, told over real HTTP on this machine; and the addresses that it is never sent to."""

import json
import logging
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.job_requests import job_request
from tests.scripted_engine import go_on
from wan_ui.errors import UserError
from wan_ui.queue import checked_post, webhook
from wan_ui.queue.checked_post import AddressRefused, checked_addresses, is_public, post_json
from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import Jobs
from wan_ui.queue.pipeline import Pipeline
from wan_ui.queue.webhook import Webhook, note_ends, untold
from wan_ui.request import Result
from wan_ui.settings import Settings

PATH = "/hooks/T0PS3CRET?token=abc"


class Receiver(ThreadingHTTPServer):
    """answers: of the next requests; 204 when there are no more. got: (path, headers, values) of all."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Receive)
        self.got, self.answers, self.location, self.drip = [], [], "", threading.Event()
        self.drip.set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}{PATH}"


class Receive(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        values = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.got.append((self.path, dict(self.headers), values))
        while not server.drip.wait(0.05):  # a byte now and then, for ever
            try:
                self.wfile.write(b"H")
            except OSError:
                return
        self.send_response(server.answers.pop(0) if server.answers else 204)
        if server.location:
            self.send_header("Location", server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST


@pytest.fixture
def receiver():
    server = Receiver()
    yield server
    server.drip.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def told(tmp_path, receiver):
    """A table whose ends are noted, and settings that may tell them to this machine."""
    jobs = Jobs(tmp_path / "outputs" / "wan_ui.sqlite")
    note_ends(jobs, True)
    return jobs, Settings(outputs=tmp_path / "outputs", webhook=receiver.url, webhook_private=1)


def end(jobs, job_id, state="done", **fields):
    jobs.add(job_id, "local", job_request(prompt=f"prompt of {job_id}"))
    jobs.take(job_id)
    jobs.finish(job_id, state, **fields)


def until(condition, seconds=90.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)


def test_every_end_of_a_real_queue_is_told_once(scripted_settings, picture, receiver):
    settings = replace(scripted_settings, webhook=receiver.url, webhook_private=1, root_path="https://wan.example/ui")
    pipeline = Pipeline().open(settings, engine_factory="tests.scripted_engine:create_engine", warm=False)
    try:
        first = pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}))
        pipeline.wait(first)
        failed = pipeline.submit(Draft({"image": str(picture), "prompt": "denoise=bug"}))
        pipeline.wait(failed)
        running = pipeline.submit(Draft({"image": str(picture), "prompt": "denoise:1=hold"}))
        waiting = pipeline.submit(Draft({"image": str(picture), "prompt": "never begun"}))
        until(lambda: pipeline.job(running).state == "running")
        Jobs(settings.outputs / "wan_ui.sqlite").cancel(waiting)  # by another process, say
        until(lambda: len(receiver.got) == 3)
    finally:
        pipeline.close()
        go_on(pipeline.clips.iterdir())
    until(lambda: len(receiver.got) == 4)
    states = {values["id"]: values["state"] for _, _, values in receiver.got}
    assert states == {first: "done", failed: "failed", waiting: "cancelled", running: "interrupted"}
    path, headers, values = receiver.got[0]
    assert path == PATH and headers["Content-Type"] == "application/json" and headers["Idempotency-Key"] == first
    assert values["prompt"] == "calm" and values["link"] == f"https://wan.example/ui/?clip={first}"
    assert values["error"] == "" and values["finished"] >= values["created"]
    assert "bug" in next(values for *_, values in receiver.got if values["id"] == failed)["error"]
    assert untold(pipeline.jobs) == []


def test_what_could_not_be_told_is_told_after_the_next_start_and_only_then_forgotten(told, receiver, monkeypatch):
    jobs, settings = told
    end(jobs, "first")
    receiver.answers = [503]
    before = Webhook(jobs, settings)
    before.start()
    until(lambda: len(receiver.got) == 1)
    before.close()  # as good as a crash: nothing but the table is left of it
    assert untold(jobs) == ["first"]
    end(jobs, "second", "failed", error="no memory in /home/somebody/models/x")
    again = Webhook(jobs, settings)
    again.start()
    until(lambda: not untold(jobs))
    again.close()
    Webhook(jobs, settings).close()
    assert [values["id"] for *_, values in receiver.got] == ["first", "first", "second"]
    assert receiver.got[2][2]["error"] == "no memory in <path>"
    assert len({headers["Idempotency-Key"] for _, headers, _ in receiver.got}) == 2


def test_it_is_tried_a_few_times_and_then_given_up(told, receiver, monkeypatch, caplog):
    jobs, settings = told
    monkeypatch.setattr(webhook, "PAUSES", (0.0, 0.0))
    receiver.answers = [500, 500, 500]
    end(jobs, "lost")
    hook = Webhook(jobs, settings)
    hook.start()
    until(lambda: not untold(jobs))
    hook.close()
    assert len(receiver.got) == 3
    assert jobs.get("lost").state == "done"  # the job knows nothing of it
    said = [record.getMessage() for record in caplog.records if record.name == "wan_ui.queue.webhook"]
    where = f"http://127.0.0.1:{receiver.server_port}"
    assert said[0] == f"webhook: {where} was not told of lost (HTTP 500); once more in 0 s"
    assert said[-1] == f"webhook: {where} was not told of lost, and will not be: HTTP 500"
    assert "T0PS3CRET" not in caplog.text and "token" not in caplog.text


@pytest.mark.parametrize("status, words", [(404, "HTTP 404"), (301, "HTTP 301, a redirect"), (307, "HTTP 307, a redi")])
def test_a_refusal_for_good_and_a_redirect_end_it(told, receiver, status, words, caplog):
    jobs, settings = told
    other = Receiver()
    receiver.answers, receiver.location = [status], other.url
    end(jobs, "once")
    hook = Webhook(jobs, settings)
    hook.start()
    until(lambda: not untold(jobs))
    hook.close()
    other.shutdown()
    other.server_close()
    assert len(receiver.got) == 1 and other.got == []
    assert words in caplog.text


def test_nothing_is_noted_without_a_webhook_and_old_ends_are_no_news(tmp_path):
    jobs = Jobs(tmp_path / "wan_ui.sqlite")
    note_ends(jobs, False)
    end(jobs, "before")
    note_ends(jobs, True)
    note_ends(jobs, True)
    assert untold(jobs) == []
    jobs.add("goes back", "local", job_request())
    jobs.take("goes back")
    jobs.requeue("goes back", "its worker was lost")
    assert untold(jobs) == []
    end(jobs, "after", result=Result(clip="clip.mp4"))
    assert untold(jobs) == ["after"]
    note_ends(jobs, False)
    note_ends(jobs, True)
    assert untold(jobs) == []


def test_who_answers_a_byte_now_and_then_is_left(receiver, monkeypatch):
    monkeypatch.setattr(checked_post, "SECONDS", 0.5)
    receiver.drip.clear()
    with pytest.raises(TimeoutError, match=r"no whole answer within 0\.5 s"):
        post_json(receiver.url, {"id": "x"}, "x", private=True)


PRIVATE = [
    *("127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.1.1.1", "240.0.0.1", "192.0.2.1"),
    *("198.18.0.1", "192.0.0.8", "::", "::1", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::"),
    *(
        "2002:c0a8:101::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "fec0::1",
        "fe80::1%1",
        "100::1",
    ),  # the second: Teredo
]


@pytest.mark.hardening(4)
@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_what_is_public(address):
    assert is_public(address)


@pytest.mark.hardening(4)
@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "[::1]"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0", "0.0.0.0", "10.1.2.3", "[fc00::1]", "169.254.169.254"),
    ],
)
def test_no_spelling_of_a_private_address_is_asked(host, receiver):
    """The names of numbers are looked up as the system does, without a network."""
    url = f"http://{host}:{receiver.server_port}{PATH}"
    assert Settings(webhook=url).webhook == url
    with pytest.raises(AddressRefused, match="WAN_UI_WEBHOOK_PRIVATE=1 allows that"):
        post_json(url, {"id": "x"}, "x")
    assert receiver.got == []


@pytest.mark.hardening(4)
@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "example.com/hook", "//example.com/"),
        *("http://", "http:///hook", "http://user:pass@example.com/", "http://example.com@127.0.0.1/"),
        *("http://127.0.0.1#@example.com/", "http://example.com\\@127.0.0.1/", "http://exa mple.com/"),
        *("http://example.com/\r\nX: y", "http://example.com:99999/", "http://exämple.com/", "http://[::1/"),
        *("http://a..b/", f"https://{'x' * 64}.example/"),
    ],
)
def test_an_address_of_another_kind_is_no_setting_and_is_not_repeated(url):
    with pytest.raises(UserError, match="WAN_UI_WEBHOOK: expected an address such as") as refused:
        Settings(webhook=url)
    assert str(refused.value).startswith("WAN_UI_WEBHOOK: expected")  # the value may hold a secret


def answer_with(monkeypatch, *answers):
    """The name server says each of these in turn; what is connected to is noted and refused."""
    asked, connected = list(answers), []

    def look_up(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in asked.pop(0)]

    def connect(place, timeout):
        connected.append(place)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(checked_post.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(checked_post.socket, "create_connection", connect)
    return asked, connected


@pytest.mark.hardening(4)
def test_a_name_that_means_another_machine_a_moment_later_changes_nothing(monkeypatch):
    asked, connected = answer_with(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    with pytest.raises(ConnectionRefusedError):
        post_json("https://rebind.example/hook", {}, "x")
    assert connected == [("93.184.216.34", 443)] and asked == [["127.0.0.1"]]  # looked up once
    with pytest.raises(AddressRefused, match=r"rebind\.example is 127\.0\.0\.1"):
        post_json("https://rebind.example/hook", {}, "x")
    assert len(connected) == 1


@pytest.mark.hardening(4)
def test_one_private_address_of_several_is_enough(monkeypatch):
    _, connected = answer_with(monkeypatch, ["93.184.216.34", "10.0.0.5"], ["93.184.216.34", "93.184.216.35"])
    with pytest.raises(AddressRefused):
        post_json("http://both.example/", {}, "x")
    assert connected == []
    assert checked_addresses("two.example", 80, False) == ["93.184.216.34", "93.184.216.35"]


def test_a_private_address_is_said_when_the_app_starts(tmp_path, caplog):
    jobs = Jobs(tmp_path / "wan_ui.sqlite")
    note_ends(jobs, True)
    with caplog.at_level(logging.ERROR):
        hook = Webhook(jobs, Settings(webhook="http://192.168.7.7/secret-path"))
        hook.start()
        hook.close()
    assert "webhook: WAN_UI_WEBHOOK: 192.168.7.7 is 192.168.7.7, which is this machine or in" in caplog.text
    assert "secret-path" not in caplog.text
