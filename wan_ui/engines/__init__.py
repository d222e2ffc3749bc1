"""Engines: the same checkpoint files in, the same frames out.

Idle OpenMP threads are told to sleep instead of spin, which is read when torch is first imported, hence
here. At the end of every operator the threads wait for each other; when another program holds a core,
or a container's quota is used up, spinning threads burn the very time that the late one needs. Measured
on 2 cores at load 6, a 256x256x25 clip: 25-56 s spinning, 10-18 s sleeping.
"""

from wan_ui.settings import default_environment

default_environment({"OMP_WAIT_POLICY": "PASSIVE"})
