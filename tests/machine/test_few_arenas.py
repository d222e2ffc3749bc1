"""glibc's own count of the shares of memory that a process with many threads has."""

import ctypes
import subprocess
import sys

import pytest

from wan_ui.settings import ROOT

CODE = """
import ctypes, sys, threading
from wan_ui.machine.memory import few_arenas
if sys.argv[1] == "few":
    few_arenas()
together = threading.Barrier(16)
def take():
    together.wait()
    kept = [bytes(60_000) for _ in range(50)]
    together.wait()
threads = [threading.Thread(target=take) for _ in range(16)]
[one.start() for one in threads]
[one.join() for one in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
libc.fclose.argtypes = [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library is not glibc")
def test_threads_share_memory(tmp_path):
    shares = {}
    for how in ("many", "few"):
        file = tmp_path / how
        subprocess.run([sys.executable, "-c", CODE, how, str(file)], cwd=ROOT, check=True)
        shares[how] = file.read_text().count("<heap nr=")
    assert shares["few"] <= 2 < shares["many"], shares
