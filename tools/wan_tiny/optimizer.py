"""Muon for the experts' matrices, AdamW for everything else.

Muon replaces the gradient's momentum by its nearest semi-orthogonal matrix (five
Newton-Schulz iterations), so that every direction of a matrix learns at the same pace.
Matrices of one shape are stacked and orthogonalised in one batch: a step over 150 small
matrices is a dozen kernels. The factor 0.2 sqrt(max(rows, columns)) gives updates the size of AdamW's,
so both share one learning rate.
"""

import torch


def orthogonalise(m, steps=5):
    """(n, rows, columns) -> about U V^T of each; rows <= columns is cheapest, so it transposes as needed."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = m.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        g = x @ x.transpose(1, 2)
        x = a * x + (b * g + c * g @ g) @ x
    return (x.transpose(1, 2) if tall else x).to(m.dtype)


class Muon:
    def __init__(self, matrices, momentum=0.95, weight_decay=0.01):
        self.groups = {}
        for p in matrices:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.velocity = {s: torch.zeros(len(ps), *s, device=ps[0].device) for s, ps in self.groups.items()}
        self.momentum, self.weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, rate):
        for shape, ps in self.groups.items():
            g = torch.stack([p.grad for p in ps])
            v = self.velocity[shape]
            v.lerp_(g, 1 - self.momentum)
            update = orthogonalise(g.lerp(v, self.momentum)) * (0.2 * max(shape) ** 0.5 * rate)
            torch._foreach_mul_(ps, 1 - rate * self.weight_decay)
            torch._foreach_sub_(ps, list(update.unbind(0)))


class Optimizer:
    """Both optimizers behind one step(rate)."""

    def __init__(self, models, kind, fused):
        def matrix(name, p):
            return kind == "muon" and "blocks." in name and p.ndim == 2

        named = [(n, p) for m in models for n, p in m.named_parameters()]
        self.muon = Muon([p for n, p in named if matrix(n, p)])
        self.adam = torch.optim.AdamW(
            [p for n, p in named if not matrix(n, p)], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=fused
        )

    def step(self, rate):
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.muon.step(rate)
