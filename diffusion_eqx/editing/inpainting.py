"""Inpainting: fill a part of an image by replacement of the rest, with RePaint's resampling."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, BatchKeys, Cond
from diffusion_eqx.samplers.base import (
    AbstractOneStepMethod,
    AbstractSampler,
    AbstractSamplerWrapper,
    ClippedSampler,
    State,
)
from diffusion_eqx.samplers.grid import Index
from diffusion_eqx.samplers.noise import draw

# The role of inpainting's own key among those of `draw`; no step is numbered so high.
_OWN = 2**31 - 2


class InpaintingSampler(AbstractSamplerWrapper):
    """Any one-step sampler, made to fill in what the mask marks and to keep the rest exactly.

    After each step to time s, what is known of the images replaces what was drawn there, noised to s:

        x_s ← mask·x_s + (1 − mask)·(alpha_s·images + sigma_s·z)

    (Song et al. 2021, appendix I.2), so that what is drawn fits it; `finish` puts the images themselves
    there. By this alone, what is filled in sees the known part only through noise, and fits too little.
    RePaint (Lugmayr et al. 2022, algorithm 1) therefore goes back: after every `jump` steps, counted from
    the grid's start, the example is noised from s to the time before them, and they are taken again, until
    they have been taken `resample` times. `resample=1` is replacement alone. The last steps are repeated
    too, so let `jump` divide the number of steps.

    `images` and `mask` (1: to be filled, 0: kept) have one entry for each example drawn, or one for all;
    the mask may have one channel for all. Repetitions draw their noise from the examples' own keys. Cost:
    up to `resample` times that of the wrapped sampler. Methods that use the predictions of earlier steps
    would take them for those of the same trajectory, which replacement and going back break, and are
    refused.

    **Raises:** `ValueError` for such a sampler, if shapes do not fit, or `resample` or `jump` are below 1.
    """

    sampler: AbstractSampler
    images: Batch
    mask: Float[Array, "masks *mask_shape"]
    resample: int = eqx.field(static=True, default=1)
    jump: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        method = self.sampler
        while isinstance(method, ClippedSampler):
            method = method.sampler
        if not isinstance(method, AbstractOneStepMethod):
            raise ValueError(
                f"{type(method).__name__} remembers earlier steps, which inpainting breaks; use a one-step "
                "sampler such as DDIMSampler or DDPMSampler"
            )
        for name in ("resample", "jump"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        shape, mask = self.images.shape, self.mask.shape
        fits = len(mask) == len(shape) and all(
            m in (1, s) or (axis == 0 and s == 1)
            for axis, (m, s) in enumerate(zip(mask, shape, strict=False))
        )
        if not fits:
            raise ValueError(f"a mask of shape {mask} does not fit images of shape {shape}")

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """A step of the wrapped sampler and replacement; at the end of a jump, all its repetitions.

        **Raises:** `ValueError` if images or masks are not one for each example, nor one for all.
        """
        for name, given in (("images", len(self.images)), ("masks", len(self.mask))):
            if given not in (1, len(state.x)):
                raise ValueError(
                    f"there are {given} {name}, but {len(state.x)} examples are drawn; give one for each, "
                    "or one for all"
                )
        index = jnp.asarray(index, jnp.int32)
        own = _fold(_fold(state.keys, _OWN), index)

        def replaced(x: Batch, at: Int[Array, ""], keys: BatchKeys) -> Batch:
            s = self.grid(self.denoiser.schedule, at + 1, steps)
            known = jnp.broadcast_to(self.images, x.shape)
            noise = draw(keys, 0, x.shape[1:])
            return self._combined(x, self.denoiser.schedule.perturb(known, s, noise))

        x = replaced(self.sampler.step(state, index, steps, cond).x, index, _fold(own, 0))
        if self.resample > 1:

            def again(number: Int[Array, ""], x: Batch) -> Batch:
                offset = number % self.jump
                keys = _fold(own, number + 1)
                back = self._noised_back(x, index + 1, steps, draw(keys, 1, x.shape[1:]))
                x = jnp.where(offset == 0, back, x)
                at = index + 1 - self.jump + offset
                x = self.sampler.step(State(x, _fold(keys, 2)), at, steps, cond).x
                return replaced(x, at, keys)

            repetitions = jnp.where(
                (index + 1) % self.jump == 0, (self.resample - 1) * self.jump, 0
            )
            x = jax.lax.fori_loop(0, repetitions, again, x)
        return State(x, state.keys, state.memory)

    def finish(self, state: State) -> Batch:
        """The wrapped sampler's samples where the mask is 1, the images where it is 0."""
        drawn = self.sampler.finish(state)
        return self._combined(drawn, jnp.broadcast_to(self.images, drawn.shape))

    def _combined(self, drawn: Batch, known: Batch) -> Batch:
        return jnp.where(self.mask > 0.5, drawn, known)

    def _noised_back(self, x: Batch, end: Int[Array, ""], steps: Index, noise: Batch) -> Batch:
        """From the grid's time at `end` to that of `jump` steps before, by the forward process."""
        schedule = self.denoiser.schedule
        t = self.grid(schedule, end - self.jump, steps)
        s = self.grid(schedule, end, steps)
        ratio = schedule.alpha(t) / schedule.alpha(s)
        variance = schedule.sigma(t) ** 2 - (ratio * schedule.sigma(s)) ** 2
        return ratio * x + jnp.sqrt(jnp.maximum(variance, 0.0)) * noise


def _fold(keys: BatchKeys, number: Index) -> BatchKeys:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
