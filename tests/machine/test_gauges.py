"""The GPUs as the driver's library tells of them, with a module in its place: several, none, and one that fails."""

import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest

from wan_ui.machine import gpus, memory, nvml
from wan_ui.machine.nvml import Gpu
from wan_ui.queue.roster import WorkerRow
from wan_ui.ui import memory_part

GIB = 2**30


class NVMLError(Exception):
    pass


class LibraryNotFound(NVMLError):
    pass


@pytest.fixture
def driver(monkeypatch):
    """pynvml with two cards; the second has no sensor. faults: name of a call -> what it raises."""
    module, faults, ended = ModuleType("pynvml"), {}, []

    def call(name, answer):
        def called(*args):
            if name in faults:
                raise faults[name]
            return answer(*args)

        setattr(module, name, called)

    def heat(handle, sensor):
        if handle == 1:
            raise NVMLError("Not Supported")
        return 41

    module.NVMLError, module.NVMLError_LibraryNotFound, module.NVML_TEMPERATURE_GPU = NVMLError, LibraryNotFound, 0
    call("nvmlInit", lambda: None)
    call("nvmlShutdown", lambda: ended.append(True))
    call("nvmlDeviceGetCount", lambda: 2)
    call("nvmlDeviceGetHandleByIndex", lambda number: number)
    call("nvmlDeviceGetMemoryInfo", lambda n: SimpleNamespace(total=(80, 24)[n] * GIB, used=(40, 3)[n] * GIB))
    call("nvmlDeviceGetTemperature", heat)
    call("nvmlDeviceGetUUID", lambda n: ("GPU-aa", b"GPU-bb")[n])  # older bindings give bytes
    call("nvmlDeviceGetName", lambda n: ("NVIDIA H100", b"NVIDIA L4")[n])
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return SimpleNamespace(faults=faults, ended=ended)


CARDS = [Gpu("GPU-aa", "NVIDIA H100", 80.0, 40.0, 41), Gpu("GPU-bb", "NVIDIA L4", 24.0, 3.0)]


def test_the_memory_that_all_processes_take_of_each_card(driver):
    assert nvml.all_gpus() == (CARDS, "")
    assert driver.ended == [True]


@pytest.mark.parametrize(
    "call, fault, cards, words",
    [
        ("nvmlInit", LibraryNotFound("Shared Library Not Found"), [], "no NVIDIA driver is here"),
        ("nvmlInit", NVMLError("Driver/library version mismatch"), [], "NVML: Driver/library version mismatch"),
        ("nvmlDeviceGetCount", NVMLError("GPU is lost"), [], "NVML: GPU is lost"),
        ("nvmlDeviceGetMemoryInfo", NVMLError("Not Supported"), ["GPU-aa", "GPU-bb"], ""),
    ],
)
def test_a_driver_that_is_not_here_or_fails_is_said(driver, monkeypatch, call, fault, cards, words):
    monkeypatch.setattr(nvml, "_devices", list)
    driver.faults[call] = fault
    found, trouble = nvml.all_gpus()
    assert [gpu.uuid for gpu in found] == cards and trouble.startswith(words) and bool(trouble) == bool(words)
    assert all(gpu.total == 0 for gpu in found)


def test_a_driver_that_hangs_is_given_up_and_a_broken_package_said(monkeypatch, driver):
    monkeypatch.setattr(nvml, "PATIENCE", 0.05)
    held = threading.Event()
    sys.modules["pynvml"].nvmlInit = held.wait
    assert nvml.all_gpus() == ([], "NVML gave no answer within 0 s")
    held.set()
    monkeypatch.setattr(nvml, "PATIENCE", 20.0)
    monkeypatch.setattr(nvml, "_devices", list)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.all_gpus()[1].startswith("the package nvidia-ml-py cannot be imported (ModuleNotFoundError")


def test_looks_are_kept_for_a_page_that_is_opened_later(driver, monkeypatch):
    monkeypatch.setattr(memory, "host", lambda: (6.0, 24.0))
    gauges = gpus.Gauges()
    gauges._look_now()
    driver.faults["nvmlInit"] = NVMLError("GPU is lost")
    gauges._look_now()
    first, second = gauges.looks
    assert first == gpus.Look((6.0, 24.0), tuple(CARDS)) and first.gpu("GPU-bb").total == 24
    assert second.gpus == () and second.trouble == "NVML: GPU is lost" and gauges.now() == second


def test_the_page_shows_each_card_and_what_was_taken_before(monkeypatch):
    monkeypatch.setattr(memory_part, "visible_devices", lambda: None)
    before = gpus.Look((2.0, 24.0), (Gpu("GPU-aa", "NVIDIA H100", 80.0, 10.0), CARDS[1]))
    looks = [before, gpus.Look((6.0, 24.0), tuple(CARDS))]
    row = WorkerRow("gpu0", "H100", "ready", memory=3.2, gpu_used=40.0, gpu_total=80.0)
    shown = memory_part.memory_html([row], looks)
    for words in ("6.0 of 24.0 GiB", "40.0 of 80.0 GiB", "3.0 of 24.0 GiB", "GPU 1", "NVIDIA L4", "takes 3.2 GiB"):
        assert words in shown
    assert "2.0 to 6.0 GiB" in shown and "10.0 to 40.0 GiB" in shown  # the curves
    assert "No GPU memory" not in shown
    lost = gpus.Look((6.0, 24.0), trouble="NVML: GPU is lost")
    assert "No GPU memory is shown: NVML: GPU is lost." in memory_part.memory_html([row], [*looks, lost])
    assert memory_part.memory_html([], []) == ""
