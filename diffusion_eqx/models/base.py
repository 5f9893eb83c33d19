"""What the guide's models share: they assemble schedule, backbone, guidance and sampler."""

from abc import abstractmethod
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Images, Labels, PRNGKey, Scalar
from diffusion_eqx.config import DiffusionTrainingConfig, ModelConfig, ScoreDiffusionConfig
from diffusion_eqx.denoiser import AbstractDenoiser, Denoiser
from diffusion_eqx.guidance import (
    AdaptiveProjectedGuidance,
    CFGPlusPlus,
    ClassifierFreeGuidance,
    ClipDenoised,
    DynamicThresholding,
)
from diffusion_eqx.guidance.classifier_free import Scale
from diffusion_eqx.losses import DenoisingLoss, MinSNRWeight, SNRWeight, UniformWeight
from diffusion_eqx.models.build import build_backbone, build_parameterization, build_schedule
from diffusion_eqx.samplers import (
    AbstractGrid,
    AbstractNoise,
    AbstractSampler,
    ClippedSampler,
    build_sampler,
    sample,
    trajectory,
)
from diffusion_eqx.variational import HybridLoss

Guidance = Literal["cfg", "cfg++", "apg"]


class AbstractDiffusionModel(eqx.Module):
    """A face over `Denoiser` and the samplers; a model adds only its way of generating.

    `config` is kept so that a model can be saved and built again. What the model denoises are images, or
    latents of images, of shape `config.sample_shape`; what it draws are images of `config.input_shape`.
    """

    config: eqx.AbstractVar[ModelConfig]
    denoiser: eqx.AbstractVar[Denoiser]

    @abstractmethod
    def generate(
        self,
        n_samples: int,
        *,
        key: PRNGKey,
        labels: Labels | None = None,
        guidance_scale: Scale | None = None,
    ) -> Images:
        """Draw images in the model's own way: (n_samples, height, width, channels) in [−1, 1]."""

    @abstractmethod
    def sample(self, *args: Any, **kwargs: Any) -> Images:
        """Draw images with a sampler chosen by name; see each model."""

    @abstractmethod
    def sampler_over(
        self, denoiser: AbstractDenoiser, scheduler: str, **fields: Any
    ) -> AbstractSampler:
        """The sampler of that name over any denoiser of what this model denoises; fields as `sampler`.

        Its samples are images.
        """

    @abstractmethod
    def loss(self, x0: Images, labels: Labels | None = None, *, key: PRNGKey) -> Scalar:
        """The training loss of a batch of images under the default training configuration."""

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None if the model is unconditional."""
        return self.config.backbone.num_classes

    @property
    def num_parameters(self) -> int:
        """Number of scalars in the model's arrays, but for the schedule's."""
        whole, schedule = (
            sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(part, eqx.is_array)))
            for part in (self, self.denoiser.schedule)
        )
        return whole - schedule

    def __call__(
        self,
        x: Images,
        timesteps: Int[Array, " batch"],
        labels: Labels | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> Images:
        """The network's output for noisy images (or latents) at integer timesteps 0 … T−1, one for each."""
        c = self.denoiser.parameterization.coefficients(
            self.denoiser.schedule, self.denoiser.schedule.time(timesteps)
        )
        return self.denoiser.backbone(x, c.c_noise, labels, key=key)

    def forward_diffusion(
        self, x: Images, timesteps: Int[Array, " batch"], *, key: PRNGKey
    ) -> tuple[Images, Images]:
        """Noise clean images (or latents) to integer timesteps 0 … T−1, one for each.

        Returns (x_noisy, noise) with x_noisy = alpha·x + sigma·noise (Ho et al. 2020, eq. 4).
        """
        schedule = self.denoiser.schedule
        noise = jax.random.normal(key, x.shape, x.dtype)
        return schedule.perturb(x, schedule.time(timesteps), noise), noise

    def training_loss(self, config: DiffusionTrainingConfig) -> DenoisingLoss | HybridLoss:
        """The loss `(backbone, x0, labels, key=) -> scalar` by which the model is trained.

        That of denoising; with the variational bound added if the variance is learnt (`learn_sigma`).
        """
        weight = {
            "uniform": UniformWeight(),
            "snr": SNRWeight(),
            "min_snr": MinSNRWeight(config.snr_gamma),
        }[config.loss_weighting]
        simple = DenoisingLoss(
            self.denoiser.schedule,
            self.denoiser.parameterization,
            weight,
            error=self.config.loss_type,
            label_dropout=0.0 if self.num_classes is None else config.label_dropout,
            null_cond=self.num_classes,
        )
        return HybridLoss(simple) if self.denoiser.learned_variance else simple

    def guided(
        self,
        guidance_scale: Scale | None,
        guidance: Guidance = "cfg",
        *,
        rescale: float = 0.0,
        threshold: bool = False,
    ) -> AbstractDenoiser:
        """The denoiser to sample from: guided if a scale is given, x0 limited if configured so.

        `guidance`: `cfg` (classifier-free), `cfg++` or `apg`; `rescale` is that of `cfg`. `threshold` puts
        dynamic thresholding in the place of clipping.

        **Raises:** `ValueError` if a scale is given to an unconditional model.
        """
        denoiser: AbstractDenoiser = eqx.nn.inference_mode(self.denoiser)
        if guidance_scale is not None:
            if self.num_classes is None:
                raise ValueError(
                    "guidance_scale needs a class-conditional model; this one was configured with "
                    "backbone.num_classes=None"
                )
            common: dict[str, Any] = {
                "denoiser": denoiser,
                "guidance_scale": guidance_scale,
                "unconditional_conditioning": self.num_classes,
            }
            interval = self.config.guidance_interval
            match guidance:
                case "cfg":
                    denoiser = ClassifierFreeGuidance(interval=interval, rescale=rescale, **common)
                case "cfg++":
                    denoiser = CFGPlusPlus(**common)
                case "apg":
                    denoiser = AdaptiveProjectedGuidance(interval=interval, **common)
        return self.limited(denoiser, threshold=threshold)

    def limited(self, denoiser: AbstractDenoiser, *, threshold: bool = False) -> AbstractDenoiser:
        """Any denoiser of this model's images with its x0 limited as `guided` does it."""
        if threshold:
            return DynamicThresholding(denoiser)
        if self.config.clip_denoised:
            return ClipDenoised(denoiser)
        return denoiser

    def sampler(
        self,
        scheduler: str,
        *,
        guidance_scale: Scale | None = None,
        guidance: Guidance = "cfg",
        grid: AbstractGrid | str | None = None,
        noise: AbstractNoise | None = None,
        **parameters: Any,
    ) -> AbstractSampler:
        """The sampler of that name over this model (see `samplers.SAMPLERS`); values may be traced.

        `grid` (one of `samplers.GRIDS`, or any), `noise` and `parameters` (`eta`, `temperature`, …) default
        to the sampler's own.

        **Raises:** `ValueError` for an unknown name, or what the sampler does not have.
        """
        return self.sampler_over(
            self.guided(guidance_scale, guidance), scheduler, grid=grid, noise=noise, **parameters
        )

    def progressive(
        self,
        n_samples: int,
        scheduler: str = "ddpm",
        steps: int | None = None,
        *,
        every: int,
        key: PRNGKey,
        labels: Labels | None = None,
        **fields: Any,
    ) -> Float[Array, "snapshots batch height width channels"]:
        """Sample and keep a snapshot at the start and after every `every` steps, the last included.

        `fields` as `sampler`.

        **Raises:** `ValueError` as `sample`, or unless 1 <= every <= steps.
        """
        steps = self._steps(steps)
        labels = self._labels(labels, n_samples)
        return trajectory(
            self.sampler(scheduler, **fields),
            self.config.sample_shape,
            count=n_samples,
            steps=steps,
            every=every,
            key=key,
            cond=labels,
        )

    def draw(
        self,
        n_samples_or_shape: int | tuple[int, ...],
        sampler: AbstractSampler,
        steps: int | None,
        *,
        key: PRNGKey,
        labels: Labels | None = None,
        first: int = 0,
    ) -> Images:
        """Draw images with any sampler over this model; the other arguments as `sample`."""
        count = self._count(n_samples_or_shape)
        steps = self._steps(steps)
        labels = self._labels(labels, count)
        shape = self.config.sample_shape
        return sample(sampler, shape, count=count, steps=steps, key=key, cond=labels, first=first)

    def _count(self, n_samples_or_shape: int | tuple[int, ...]) -> int:
        if isinstance(n_samples_or_shape, int):
            count = n_samples_or_shape
        else:
            count, *rest = n_samples_or_shape
            if tuple(rest) != self.config.input_shape:
                raise ValueError(
                    f"this model draws images of shape {self.config.input_shape}; asked for "
                    f"{tuple(rest)} each"
                )
        if count < 1:
            raise ValueError(f"the number of samples must be at least 1; got {count}")
        return count

    def _steps(self, steps: int | None) -> int:
        total = self.config.noise_schedule.num_timesteps
        if steps is None:
            return total
        if not 1 <= steps <= total:
            raise ValueError(f"steps must be between 1 and the {total} timesteps; got {steps}")
        return steps

    def _labels(self, labels: Labels | None, count: int) -> Labels | None:
        if labels is None:
            return None
        labels = jnp.asarray(labels)
        if labels.shape != (count,):
            raise ValueError(
                f"labels must have shape ({count},), one for each sample; got {labels.shape}"
            )
        return labels


class AbstractPixelModel(AbstractDiffusionModel):
    """A model that denoises images themselves."""

    def sampler_over(
        self, denoiser: AbstractDenoiser, scheduler: str, **fields: Any
    ) -> AbstractSampler:
        """The sampler of that name over any denoiser of this model's images; fields as `sampler`."""
        return ClippedSampler(build_sampler(scheduler, denoiser, **fields))

    def loss(self, x0: Images, labels: Labels | None = None, *, key: PRNGKey) -> Scalar:
        """The training loss of a batch under the default training configuration."""
        return self.training_loss(DiffusionTrainingConfig())(
            self.denoiser.backbone, x0, labels, key=key
        )


class AbstractScheduledModel(AbstractPixelModel):
    """A model that samples by the name of a scheduler."""

    def sample(
        self,
        n_samples_or_shape: int | tuple[int, ...],
        scheduler: str = "ddpm",
        steps: int | None = None,
        *,
        key: PRNGKey,
        labels: Labels | None = None,
        first: int = 0,
        **fields: Any,
    ) -> Images:
        """Draw images with any sampler. Returns (n, height, width, channels) in [−1, 1].

        `n_samples_or_shape`: a count, or a full shape whose first entry is the count. `scheduler`: one of
        `samplers.SAMPLERS`. `steps` defaults to all timesteps. Image k depends on `key`, k and its label
        alone; `first` is the number of the first one. `fields` as `sampler`; with `guidance_scale`,
        `labels` are required.

        **Raises:** `ValueError` if steps, shape or labels do not fit the model.
        """
        sampler = self.sampler(scheduler, **fields)
        return self.draw(n_samples_or_shape, sampler, steps, key=key, labels=labels, first=first)


def assemble(config: ModelConfig, *, key: PRNGKey) -> Denoiser:
    """The denoiser that a configuration describes, with fresh weights."""
    scaling = config.score_scaling if isinstance(config, ScoreDiffusionConfig) else 1.0
    return Denoiser(
        backbone=build_backbone(config.backbone, config.sample_shape[:2], key=key),
        schedule=build_schedule(config.noise_schedule),
        parameterization=build_parameterization(config.prediction_type, score_scaling=scaling),
        learned_variance=config.backbone.learn_sigma,
    )
