"""Ranks that make one clip together: processes with a GPU each, or with threads of a CPU, joined by torch.distributed.

Each rank has the whole model and a part of the tokens. Before attention every rank gives away its tokens' heads and
gets all tokens of its own heads (Ulysses), and after it the other way round: two exchanges a block. Tokens that the
number of ranks does not divide are padded at the end; attention never sees the padding.

A process that has not joined is a group of one: then nothing here touches torch.distributed.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wan_ui.catalog import Model
from wan_ui.errors import UserError
from wan_ui.settings import default_environment

if TYPE_CHECKING:
    import torch

NEVER = datetime.timedelta(days=7)  # who watches the ranks ends them; a collective does not by itself
SETTING = "WAN_UI_PARALLEL"


@dataclass
class Group:
    """This process's place in its group.

    tokens     of the pass that is running, all ranks' together and without padding
    exchanges  how many there were, of which every rank must have made the same
    """

    rank: int = 0
    size: int = 1
    tokens: int = 0
    exchanges: int = field(default=0, repr=False)

    @property
    def first(self) -> bool:
        """The rank that hears the page and writes files."""
        return self.rank == 0

    def check(self, model: Model, heads: int) -> None:
        """Raise UserError where the ranks cannot make this model's clips together. heads: of its attention."""
        if self.size == 1:
            return
        if model.family.speech is not None or model.family.performance is not None:
            raise UserError(
                f"{SETTING}={self.size}: clips of {model.title} are made by one GPU; start without {SETTING} for it",
                field="parallel",
            )
        if heads % self.size:
            fits = ", ".join(str(n) for n in range(1, min(heads, 16) + 1) if heads % n == 0)
            raise UserError(
                f"{SETTING}={self.size}: {model.title} has {heads} attention heads, which {self.size} cannot share "
                f"evenly; choose one of {fits}",
                field="parallel",
            )

    # ------------------------------------------------------------ tokens

    def begin(self, tokens: int) -> int:
        """A pass over so many tokens of all ranks begins."""
        self.tokens = tokens
        return tokens

    def share(self, x: "torch.Tensor", dim: int = 0) -> "torch.Tensor":
        """This rank's part of what all have, equally long for all: zeros at the end where it does not divide."""
        if self.size == 1:
            return x
        import torch.nn.functional as F

        missing = -x.shape[dim] % self.size
        if missing:
            x = F.pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, missing))
        return x.chunk(self.size, dim)[self.rank].contiguous()

    def whole(self, x: "torch.Tensor", count: int, dim: int = 0) -> "torch.Tensor":
        """All ranks' parts of `share` in order, `count` of them without the padding. Every rank gets them."""
        if self.size == 1:
            return x
        import torch
        import torch.distributed as dist

        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(self.size)]
        self.exchanges += 1
        dist.all_gather(parts, x)
        return torch.cat(parts, dim).narrow(dim, 0, count)

    # ------------------------------------------------------------ heads

    def to_heads(self, x: "torch.Tensor") -> "Callable[[], torch.Tensor]":
        """(local tokens, heads, head), of all heads -> (all tokens, heads of this rank, head), once it is called: the
        exchange goes on while the next tensor is computed."""
        if self.size == 1:
            return lambda: x
        import torch
        import torch.distributed as dist

        local, heads, head = x.shape
        packed = x.reshape(local, self.size, heads // self.size, head).transpose(0, 1).contiguous()
        out = torch.empty_like(packed)
        self.exchanges += 1
        work = dist.all_to_all_single(out, packed, async_op=True)
        assert work is not None

        def arrived() -> "torch.Tensor":
            work.wait()
            return out.flatten(0, 1)[: self.tokens]

        return arrived

    def to_tokens(self, x: "torch.Tensor") -> "torch.Tensor":
        """(all tokens, numbers of this rank's heads) -> (local tokens, numbers of all heads)."""
        if self.size == 1:
            return x
        import torch
        import torch.distributed as dist
        import torch.nn.functional as F

        missing = -len(x) % self.size
        packed = F.pad(x, (0, 0, 0, missing)) if missing else x.contiguous()
        out = torch.empty_like(packed)
        self.exchanges += 1
        dist.all_to_all_single(out, packed)
        return out.view(self.size, -1, x.shape[1]).transpose(0, 1).flatten(1)

    def attend(self, kernel: "Callable[..., torch.Tensor]", q: Any, k: Any, v: Any) -> "torch.Tensor":
        """Attention of all tokens with each other: this rank's q, k, v (tokens, heads, head) -> (tokens, heads * head).

        kernel  gets all tokens of some heads, and gives (tokens, heads * head)
        """
        sent = [self.to_heads(part) for part in (v, k, q)]
        v, k, q = (arrived() for arrived in sent)
        return self.to_tokens(kernel(q, k, v))

    # ------------------------------------------------------------ numbers

    def least(self, value: int) -> int:
        """The least of what the ranks have."""
        return int(min(self._everyones([value])[:, 0].tolist()))

    def sums(self, values: "torch.Tensor") -> "torch.Tensor":
        """What the ranks have, added up; the same bits for all."""
        if self.size == 1:
            return values
        import torch.distributed as dist

        self.exchanges += 1
        dist.all_reduce(values)
        return values

    def meet(self) -> None:
        """Wait for all ranks."""
        self._everyones([self.rank])

    def _everyones(self, values: list[int]) -> "torch.Tensor":
        import torch
        import torch.distributed as dist

        own = torch.tensor(values, dtype=torch.int64)
        if self.size == 1:
            return own[None]
        own = own.to("cuda" if dist.get_backend() == "nccl" else "cpu")
        return self.whole(own, self.size * len(own)).view(self.size, -1).cpu()


_here = Group()


def here() -> Group:
    """The group of this process."""
    return _here


def join(rank: int, size: int, meeting: Path) -> Group:
    """Take a place in a group: before anything uses a GPU. Returns when all ranks have come.

    meeting  a file that is not there yet, the same for all ranks; the first to come makes it
    Raises UserError where there are fewer GPUs than ranks.
    """
    global _here
    # Some of what libraries do on their own follows what torchrun would set.
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    default_environment({name: str(value) for name, value in place.items()})
    default_environment({"GLOO_SOCKET_IFNAME": "lo"})  # all ranks are on this machine
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        if count < size:
            raise UserError(
                f"{SETTING}={size}: this worker sees {count} GPU{'s' * (count != 1)}; choose at most {count}",
                field="parallel",
            )
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=size,
        timeout=NEVER,
    )
    _here = Group(rank, size)
    return _here
