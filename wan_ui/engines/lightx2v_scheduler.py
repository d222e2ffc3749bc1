"""The scheduler that LightX2V is given: our noise, our sigmas, our solvers, float32 latents."""

from typing import Any

import torch

from wan_ui.catalog import Model
from wan_ui.engines import schedule
from wan_ui.engines.lightx2v_upstream import compute_dtype, device_name
from wan_ui.engines.solvers import make_solver


def flow_scheduler(config: dict, model: Model):
    """A scheduler for every model: our noise, our sigmas, our solvers, float32 latents.

    Upstream's draws the noise on the GPU (a seed then depends on the machine), rounds the distilled
    timesteps to whole numbers, and rounds latents to bf16 at every step; undistilled it knows UniPC alone.
    """
    from lightx2v.models.schedulers.wan.scheduler import WanScheduler

    class FlowScheduler(WanScheduler):
        boundary_step_index = 0
        exact: Any  # the latents in float32; None between clips, as all of these
        is_first: Any  # 1 where the first latent frame is
        solver: Any
        steps: list[schedule.Step]

        def follow(self, steps: list[schedule.Step], solver: str) -> None:
            """Take these steps from now on."""
            self.infer_steps, self.steps, self.solver_name = len(steps), steps, solver
            self.values = [step.sigma for step in steps] + [0.0]
            self.boundary_step_index = sum(step.expert == 0 for step in steps)

        def prepare(self, seed, latent_shape, image_encoder_output=None) -> None:
            self.sigmas = torch.tensor(self.values)
            self.timesteps = torch.tensor([step.timestep for step in self.steps], device=device_name())
            self.solver = make_solver(self.solver_name, self.values, seed)
            condition = image_encoder_output and image_encoder_output["vae_encoder_out"]
            self._begin(schedule.noise(seed, tuple(latent_shape)), condition)

        def at(self, latents, sigma, step_index, condition) -> None:
            """Stand before one step, of whichever expert takes `step_index`."""
            self._begin(latents.float(), condition)
            self.infer_condition, self.step_index = True, step_index
            self._inputs(torch.tensor([1000 * sigma], device=device_name()))

        def _begin(self, latents, condition) -> None:
            self.rope_request_id += 1
            self.exact = latents.to(device_name())
            self.given = self.straight = None
            if model.family.condition == "first frame" and condition.shape[1]:  # given, not denoised
                self.given = condition.float()
                self.is_first = torch.zeros_like(self.exact)
                self.is_first[:, 0] = 1
            self._paste()

        def _paste(self) -> None:
            if self.given is not None:
                self.exact = torch.where(self.is_first.bool(), self.given, self.exact)
            self.latents = self.exact

        def step_pre(self, step_index) -> None:
            self.entering(step_index)
            self.step_index = step_index
            self._inputs(self.timesteps[step_index : step_index + 1])

        def _inputs(self, timestep) -> None:
            self.latents = self.exact.to(compute_dtype())
            self.timestep_input = timestep
            if self.given is not None:  # timestep 0 for the tokens of the given frame
                self.timestep_input = (self.timestep_input * (1 - self.is_first[0, :, ::2, ::2])).flatten()

        def step_post(self) -> None:
            index = self.step_index
            # What the clip would be if the rest of the way were straight: for the preview.
            self.straight = schedule.euler_step(self.exact, self.noise_pred, self.values[index], 0.0)
            self.exact = self.solver.step(self.exact, self.noise_pred)
            self._paste()

        def clear(self) -> None:
            super().clear()
            self.exact = self.given = self.is_first = self.straight = self.solver = None

    return FlowScheduler(config)
