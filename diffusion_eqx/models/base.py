"""What a model is: its configuration, a denoiser, and how samples are decoded. One way to draw with it."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, Cond, Images, PRNGKey
from diffusion_eqx.config import ModelConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.guidance import AbstractGuidance
from diffusion_eqx.models.conditions import condition
from diffusion_eqx.models.plan import GuidanceLike, Plan, chosen_guidance, make_plan
from diffusion_eqx.models.progress import counted
from diffusion_eqx.samplers import (
    AbstractGrid,
    AbstractNoise,
    AbstractSampler,
    sample,
    sample_from,
    trajectory,
)
from diffusion_eqx.schedules import AbstractSchedule


class AbstractDiffusionModel(eqx.Module):
    """A configuration, a denoiser, and how samples are encoded and decoded.

    What the model denoises are images, or latents of images, of shape `config.sample_shape`. What
    it draws are images of `config.input_shape`, in [−1, 1].
    """

    config: eqx.AbstractVar[ModelConfig]
    denoiser: eqx.AbstractVar[Denoiser]

    @property
    @abstractmethod
    def decoding(self) -> Any:
        """A module that maps what is denoised to images; it is part of the drawing program."""

    @abstractmethod
    def encode(self, images: Images) -> Batch:
        """Images in [−1, 1] to what is denoised, (batch, *sample_shape)."""

    def decode(self, x: Batch) -> Images:
        """What is denoised, (batch, *sample_shape), to images in [−1, 1]."""
        return eqx.filter_jit(self.decoding)(x)

    @property
    def schedule(self) -> AbstractSchedule:
        """The noise schedule."""
        return self.denoiser.schedule

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None if the model is unconditional."""
        return self.config.backbone.num_classes

    @property
    def num_parameters(self) -> int:
        """Number of scalars in the model's arrays, but for the schedule's."""
        whole, schedule = (
            sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(part, eqx.is_array)))
            for part in (self, self.schedule)
        )
        return whole - schedule

    def plan(
        self,
        sampler: str | AbstractSampler | None = None,
        *,
        steps: int | None = None,
        guidance: GuidanceLike = None,
        grid: AbstractGrid | str | None = None,
        noise: AbstractNoise | None = None,
        **numbers: Any,
    ) -> Plan:
        """How the model is drawn with. Drawing, editing and exporting all begin with this.

        - `sampler`: a sampler, its name in the catalogue, or None for the model's recommended one.
        - `steps`: None for those recommended with it, or else as many as there are timesteps.
        - `guidance`: None; a number, which is the model's own guidance at that scale; a name
          (`cfg`, `cfg++`, `apg`); a guidance; or a tuple of several, the innermost first. A limit
          of x0 is added outermost if the configuration says `clip_denoised` and the guidance brings
          none.
        - `grid`, `noise`: in place of the sampler's own.
        - `numbers`: of the sampler and the guidance, by name, such as `eta=0.5` or `guidance_scale=3.0`.

        **Raises:** `ValueError` for an unknown name, a number out of range, or parts that do not go
        together.
        """
        return make_plan(
            self.config,
            self.denoiser,
            self.decoding,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            grid=grid,
            noise=noise,
            chosen=numbers,
        )

    def guidance(self, given: GuidanceLike) -> tuple[AbstractGuidance, ...]:
        """Guidance as `plan` takes it, as values, the innermost first; without the model's own limit of x0.

        **Raises:** `ValueError` as `plan`.
        """
        return chosen_guidance(given, self.config, self.denoiser)

    def fit_cond(self, count: int, labels: Any, cond: Cond, plan: Plan) -> Cond:
        """The condition of `count` images from labels and further parts; see `sample`.

        **Raises:** `ValueError` if they do not fit the model, the guidance or the count.
        """
        return condition(plan.denoiser, self.num_classes, count, labels, cond)

    def sample(
        self,
        count: int | tuple[int, ...],
        sampler: str | AbstractSampler | None = None,
        *,
        steps: int | None = None,
        labels: Any = None,
        cond: Cond = None,
        guidance: GuidanceLike = None,
        grid: AbstractGrid | str | None = None,
        noise: AbstractNoise | None = None,
        first: int | Int[Array, ""] = 0,
        key: PRNGKey,
        **numbers: Any,
    ) -> Images:
        """Draw images: (count, height, width, channels) in [−1, 1].

        Image k depends on `key`, k and its condition alone.

        - `count`: how many, or a whole shape that begins with it.
        - `labels`: integer classes, one for all or one for each; None is no class.
        - `cond`: a dict of what the guidance takes, such as {"measurement": y}.
        - `first`: the number of the first image.
        - `key`: `jax.random.key(seed)`.
        - the others: see `plan`.

        **Raises:** `ValueError` if something does not fit the model; `ArithmeticError` if an
        adaptive sampler needs more steps.
        """
        plan = self.plan(sampler, steps=steps, guidance=guidance, grid=grid, noise=noise, **numbers)
        number = self._count(count)
        return sample(
            plan.denoiser,
            plan.sampler,
            plan.shape,
            count=number,
            steps=plan.steps,
            key=key,
            cond=self.fit_cond(number, labels, cond, plan),
            first=first,
            decode=plan.decode,
        )

    def sample_from(
        self,
        noise: Batch,
        sampler: str | AbstractSampler | None = None,
        *,
        steps: int | None = None,
        labels: Any = None,
        cond: Cond = None,
        guidance: GuidanceLike = None,
        grid: AbstractGrid | str | None = None,
        key: PRNGKey | None = None,
        **numbers: Any,
    ) -> Images:
        """Draw one image from each of given standard normal noises, (batch, *sample_shape);
        otherwise as `sample`.

        `key`: needed by samplers that draw more noise on the way.
        """
        plan = self.plan(sampler, steps=steps, guidance=guidance, grid=grid, **numbers)
        return sample_from(
            plan.denoiser,
            plan.sampler,
            noise,
            steps=plan.steps,
            key=key,
            cond=self.fit_cond(len(noise), labels, cond, plan),
            decode=plan.decode,
        )

    def sample_batches(
        self,
        count: int,
        sampler: str | AbstractSampler | None = None,
        *,
        batch: int = 256,
        steps: int | None = None,
        labels: Any = None,
        cond: Cond = None,
        guidance: GuidanceLike = None,
        grid: AbstractGrid | str | None = None,
        noise: AbstractNoise | None = None,
        first: int = 0,
        key: PRNGKey,
        progress: bool = True,
        **numbers: Any,
    ) -> Iterator[np.ndarray]:
        """Draw many images in batches, with progress on a terminal, in bounded memory.

        Yields arrays (at most `batch`, height, width, channels), which together are what `sample`
        would give. The last batch is drawn whole and cut, so that one program serves all. `first=`
        goes on where an earlier run ended. The others as `sample`.

        **Raises:** `ValueError` as `sample`, before anything is drawn.
        """
        plan = self.plan(sampler, steps=steps, guidance=guidance, grid=grid, noise=noise, **numbers)
        if not isinstance(batch, int) or batch < 1:
            raise ValueError(f"batch must be a whole number, at least 1; got {batch}")
        number = self._count(count)
        whole = self.fit_cond(number, labels, cond, plan)

        def drawn() -> Iterator[np.ndarray]:
            size = min(batch, number)
            for begin in range(0, number, size):
                rows = np.minimum(np.arange(begin, begin + size), number - 1)
                images = sample(
                    plan.denoiser,
                    plan.sampler,
                    plan.shape,
                    count=size,
                    steps=plan.steps,
                    key=key,
                    cond=jax.tree.map(lambda c, rows=rows: c[rows], whole),
                    first=first + begin,
                    decode=plan.decode,
                )
                yield np.asarray(images)[: number - begin]

        return counted(drawn(), total=number, show=progress)

    def trajectory(
        self,
        count: int | tuple[int, ...],
        sampler: str | AbstractSampler | None = None,
        *,
        every: int,
        steps: int | None = None,
        labels: Any = None,
        cond: Cond = None,
        guidance: GuidanceLike = None,
        grid: AbstractGrid | str | None = None,
        noise: AbstractNoise | None = None,
        first: int | Int[Array, ""] = 0,
        key: PRNGKey,
        **numbers: Any,
    ) -> Float[Array, "snapshots batch height width channels"]:
        """Draw images and keep a snapshot at the start, after every `every` steps, and at the end.

        Returns (1 + ceil(steps/every), count, height, width, channels). The others as `sample`.

        **Raises:** `ValueError` as `sample`, or unless 1 <= every <= steps.
        """
        plan = self.plan(sampler, steps=steps, guidance=guidance, grid=grid, noise=noise, **numbers)
        number = self._count(count)
        return trajectory(
            plan.denoiser,
            plan.sampler,
            plan.shape,
            count=number,
            steps=plan.steps,
            every=every,
            key=key,
            cond=self.fit_cond(number, labels, cond, plan),
            first=first,
            decode=plan.decode,
        )

    def _count(self, count: int | tuple[int, ...]) -> int:
        if isinstance(count, tuple):
            count, *rest = count
            if tuple(rest) != self.config.input_shape:
                raise ValueError(
                    f"this model draws images of shape {self.config.input_shape}; asked for "
                    f"{tuple(rest)} each"
                )
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"count must be a whole number of images, at least 1; got {count}")
        return count
