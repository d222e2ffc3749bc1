"""Data parallelism by hand: one flat gradient buffer, one all-reduce, one clock.

The models are so small that a plain NCCL all-reduce of all gradients costs under a
millisecond; no wrapper module is needed. Training runs for a number of seconds, not of
steps, so every rank follows rank 0's clock.
"""

import os
import time

import torch
import torch._dynamo
import torch.distributed as dist


class World:
    """rank, size and device of this process; started by torchrun, or alone."""

    def __init__(self):
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch._dynamo.config.recompile_limit = 64
            # cuDNN's heuristics are as fast here as its benchmarks, which cost a minute per run
            torch.backends.cudnn.benchmark = False
        if self.size > 1:
            dist.init_process_group("nccl" if cuda else "gloo", device_id=self.device if cuda else None)
        self.start = time.time()
        self.dtype = torch.bfloat16 if cuda else torch.float32

    def log(self, *words):
        if self.rank == 0:
            print(f"[{time.time() - self.start:6.1f}s]", *words, flush=True)

    def elapsed(self):
        """Seconds since the start by rank 0's clock, the same on every rank."""
        t = torch.tensor(time.time() - self.start, device=self.device, dtype=torch.float64)
        if self.size > 1:
            dist.broadcast(t, 0)
        return t.item()

    def barrier(self):
        if self.size > 1:
            dist.barrier()

    def same_weights(self, parameters):
        if self.size > 1:
            for p in parameters:
                dist.broadcast(p.data, 0)


class FlatGradient:
    """Makes every parameter's .grad a view of one buffer."""

    def __init__(self, parameters, world):
        self.parameters, self.world = list(parameters), world
        self.buffer = torch.zeros(sum(p.numel() for p in self.parameters), device=world.device)
        offset = 0
        for p in self.parameters:
            p.grad = self.buffer[offset : offset + p.numel()].view_as(p)
            offset += p.numel()

    def finish(self, max_norm=1.0):
        """Average over ranks and clip; -> the norm before clipping (a tensor, no synchronisation)."""
        if self.world.size > 1:
            dist.all_reduce(self.buffer)
            self.buffer.div_(self.world.size)
        norm = self.buffer.norm()
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        # a non-finite batch is skipped rather than allowed to poison the weights
        self.buffer.nan_to_num_(0.0, 0.0, 0.0).mul_(torch.where(norm.isfinite(), scale, 0.0))
        return norm

    def zero(self):
        self.buffer.zero_()
