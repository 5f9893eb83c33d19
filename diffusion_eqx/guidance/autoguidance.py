"""Autoguidance: a model guided by a bad version of itself."""

from typing import ClassVar

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Time
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.guidance.base import AbstractTwoBranchGuidance
from diffusion_eqx.guidance.classifier_free import Scale, extra_scale
from diffusion_eqx.schedules import like


class Autoguidance(AbstractTwoBranchGuidance):
    """weak + w·(main − weak) (Karras et al. 2024, eq. 3).

    `weak` is a smaller or less trained model of the same data and conditioning, with the same schedule;
    both see the same `cond`, so that unconditional models can be guided too. w = 1 is exactly the main
    model. `guidance_scale` and `interval` as in `ClassifierFreeGuidance`. Cost: both models each call.
    """

    denoiser: AbstractDenoiser
    weak: AbstractDenoiser
    guidance_scale: Scale
    interval: tuple[float, float] = (0.0, 1.0)

    keeps_pair: ClassVar[bool] = True

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The guided prediction."""
        main = self.denoiser(x_t, t, cond, key=key)
        weak = self.weak(x_t, t, cond, key=key)
        extra = like(extra_scale(self.guidance_scale, self.interval, t), x_t)
        x0 = main.x0 + extra * (main.x0 - weak.x0)
        return Prediction.from_x0(self.schedule, x_t, t, x0, main.variance_fraction)
