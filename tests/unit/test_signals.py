"""How a program is asked to end."""

import os
import signal

import pytest

from wan_ui.signals import Stop, stoppable


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_each_of_them_stops_in_order(number, code):
    before = signal.signal(number, signal.SIG_DFL)  # the tests themselves may have been started with nohup
    try:
        with pytest.raises(Stop) as stop, stoppable():
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)
    assert stop.value.code == code


def test_what_was_started_with_nohup_goes_on_without_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
