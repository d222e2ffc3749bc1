"""What is here: GPUs, memory, cores, and which kernels are right on this very card."""
