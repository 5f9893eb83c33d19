"""Autoguidance: a model guided by a bad version of itself."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx._values import is_traced, number
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.guidance.base import AbstractTwoBranchGuidance, guidance_of, names_taken, take
from diffusion_eqx.guidance.branches import Interval, extra_scale, within
from diffusion_eqx.schedules import NoiseLevel, over


class Autoguidance(AbstractTwoBranchGuidance):
    """weak + w·(main − weak) (Karras et al. 2024, eq. 3).

    Both models see the same condition, so that unconditional models can be guided too. w = 1 is the
    main model. Cost: both models in each call.

    - `weak`: a denoiser, smaller or less trained, of the same data and condition, with the same
      schedule and without guidance of its own.
    - `guidance_scale`, `interval`: as in `ClassifierFreeGuidance`.

    **Raises:** `ValueError` if `weak` is guided; by `Guided`, if its schedule is another one.
    """

    weak: AbstractDenoiser
    guidance_scale: Any = number(
        2.0,
        neutral=1.0,
        minimum=0.0,
        maximum=100.0,
        about="strength of guidance; 1 is the main model alone",
    )
    interval: Interval = None

    def __check_init__(self):
        carried = guidance_of(self.weak)
        if carried:
            raise ValueError(
                f"the weak model of autoguidance carries {type(carried[0]).__name__}; give it "
                "unguided, since what "
                "it lacks is what guides"
            )

    def check(self, denoiser: AbstractDenoiser) -> None:
        """**Raises:** `ValueError` if the two models have different schedules."""
        pair = (self.weak.schedule, denoiser.schedule)
        if is_traced(pair):
            return
        # Known schedules are compared at once, inside of a program that is being traced too.
        with jax.ensure_compile_time_eval():
            same = bool(eqx.tree_equal(*pair))
        if not same:
            raise ValueError(
                "the weak model of autoguidance has another noise schedule than the main one,"
                " so that their "
                "predictions at one time belong to different noise; train both with one schedule"
            )

    def __call__(
        self, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
    ) -> Prediction:
        """The guided prediction."""
        _, seen = take(cond, names_taken(denoiser))

        def guided(inside: Array) -> Prediction:
            main, weak = denoiser(x, level, cond), self.weak(x, level, seen)
            extra = over(extra_scale(self.guidance_scale, level, inside), x)
            return main.with_x0(x, level, main.x0 + extra * (main.x0 - weak.x0))

        return within(self.interval, level, guided, lambda: denoiser(x, level, cond))
