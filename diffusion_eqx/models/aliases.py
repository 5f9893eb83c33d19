"""What readers of other libraries and of tutorials know: thin aliases, all in this one place.

Each says what it stands for. Where a name speaks of integer timesteps, they are 0 … T−1, one for
each image or one for all.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, Images, Labels, PRNGKey, Scalar
from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.denoiser import Level, as_level
from diffusion_eqx.losses import training_loss
from diffusion_eqx.models.base import AbstractDiffusionModel
from diffusion_eqx.models.plan import Clipped, GuidanceLike
from diffusion_eqx.samplers import posterior_mean
from diffusion_eqx.schedules import over

# One for each image, or one for all.
Timesteps = Int[Array, " batch"] | Int[Array, ""] | int


class MeanVariance(NamedTuple):
    """A step's Gaussian: its mean, its log-variance, and the clean example that was predicted."""

    mean: Batch
    log_variance: Batch
    pred_x0: Batch


class AbstractAliasedModel(AbstractDiffusionModel):
    """A model that also answers to the names of other libraries."""

    def __call__(
        self,
        x: Batch,
        timesteps: Timesteps,
        labels: Labels | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> Batch:
        """The network's output: `denoiser.network` at integer timesteps.

        **Raises:** `ValueError` for known timesteps outside 0 … T−1.
        """
        level = self.schedule.at_timestep(timesteps)
        return self.denoiser.network(self.denoiser.backbone, x, level, labels, key=key)

    def generate(
        self,
        n_samples: int | tuple[int, ...],
        scheduler: str | None = None,
        num_steps: int | None = None,
        *,
        key: PRNGKey,
        labels: Labels | None = None,
        y: Labels | None = None,
        guidance_scale: float | None = None,
        cfg_scale: float | None = None,
        return_trajectory: bool = False,
        **fields: Any,
    ) -> Images:
        """`sample`, or `trajectory` at every step. `y` is labels, `cfg_scale` is guidance_scale.

        **Raises:** `ValueError` if something is given under both of its names, or as `sample`.
        """
        labels = _one_of("y", y, "labels", labels)
        scale = _one_of("cfg_scale", cfg_scale, "guidance_scale", guidance_scale)
        # At scale 1 the guided prediction is the conditional one, for twice the work.
        guidance: GuidanceLike = None if scale is None or scale == 1.0 else scale
        if return_trajectory:
            return self.trajectory(
                n_samples,
                scheduler,
                every=1,
                steps=num_steps,
                labels=labels,
                guidance=guidance,
                key=key,
                **fields,
            )
        return self.sample(
            n_samples,
            scheduler,
            steps=num_steps,
            labels=labels,
            guidance=guidance,
            key=key,
            **fields,
        )

    def progressive(
        self, n_samples: int, scheduler: str | None = None, *, every: int, **fields: Any
    ) -> Float[Array, "snapshots batch height width channels"]:
        """`trajectory`."""
        return self.trajectory(n_samples, scheduler, every=every, **fields)

    def forward_diffusion(
        self, x: Batch, timesteps: Timesteps, *, key: PRNGKey
    ) -> tuple[Batch, Batch]:
        """(x_noisy, noise).

        `schedule.at_timestep(timesteps).noised(x, noise)` with noise drawn by `key`.
        """
        noise = jax.random.normal(key, x.shape, x.dtype)
        return self.schedule.at_timestep(timesteps).noised(x, noise), noise

    def q_sample(
        self,
        x_start: Batch,
        t: Timesteps,
        noise: Batch | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> Batch:
        """Clean examples noised to integer timesteps, by a given noise or one drawn by `key`.

        **Raises:** `ValueError` unless exactly one of the two is given.
        """
        if (noise is None) == (key is None):
            raise ValueError("give either noise, or a key to draw it with")
        if noise is None:
            assert key is not None
            noise = jax.random.normal(key, x_start.shape, x_start.dtype)
        return self.schedule.at_timestep(t).noised(x_start, noise)

    def p_mean_variance(self, x: Batch, t: Timesteps, labels: Labels | None = None) -> MeanVariance:
        """The Gaussian of the ancestral step from timesteps t to t − 1, by the unguided denoiser.

        The variance is that of the posterior, or the learnt one. At timestep 0, where it is 0, that
        of timestep 1 stands in for it (Nichol & Dhariwal 2021, section 3.1). x0 is clipped if the
        configuration says so.
        """
        t = jnp.asarray(t)
        now, before = self.schedule.at_timestep(t), self.schedule.at(t.astype(float) / self._total)
        predicted = self.denoiser(x, now, labels)
        x0 = jnp.clip(predicted.x0, -1.0, 1.0) if self.config.clip_denoised else predicted.x0
        mean = posterior_mean(x, x0, now, before)
        # Levels of timestep 1 take the place of those of timestep 0.
        first = t == 0
        second = self.schedule.at_timestep(jnp.ones_like(t))
        start = self.schedule.at_timestep(jnp.zeros_like(t))
        above, below = second.where(first, now), start.where(first, before)
        log_rest = jnp.log(-jnp.expm1(above.log_snr - below.log_snr))
        least = over(2.0 * jnp.log(below.sigma) + log_rest, x)
        fraction = predicted.variance_fraction
        if fraction is None:
            return MeanVariance(mean, jnp.broadcast_to(least, x.shape), x0)
        greatest = over(2.0 * jnp.log(above.sigma) + log_rest, x)
        return MeanVariance(mean, (1.0 - fraction) * least + fraction * greatest, x0)

    def p_sample(
        self, x: Batch, t: Timesteps, labels: Labels | None = None, *, key: PRNGKey
    ) -> Batch:
        """One ancestral step from timesteps t to t − 1; from 0, the predicted clean example."""
        found = self.p_mean_variance(x, t, labels)
        noise = jax.random.normal(key, x.shape, x.dtype)
        std = jnp.where(over(jnp.asarray(t) == 0, x), 0.0, jnp.exp(0.5 * found.log_variance))
        return found.mean + std * noise

    def predicted_noise(self, x: Batch, t: Timesteps, labels: Labels | None = None) -> Batch:
        """`denoiser(x, level).eps` at integer timesteps, whatever the network predicts."""
        return self.denoiser(x, self.schedule.at_timestep(t), labels).eps

    def score(self, x: Batch, t: Level, labels: Labels | None = None) -> Batch:
        """grad log p(x) = −eps/sigma at levels or times in (0, 1], one for all images or one for each."""
        level = as_level(self.schedule, t)
        return -self.denoiser(x, level, labels).eps / level.over(x).sigma

    def loss(self, x0: Images, labels: Labels | None = None, *, key: PRNGKey) -> Scalar:
        """The loss of a batch of images in [−1, 1], by the default training configuration."""
        loss = training_loss(self.denoiser, self.config, TrainingConfig())
        x = jax.lax.stop_gradient(self.encode(x0))
        return loss(self.denoiser.backbone, x, labels, key=key)

    @property
    def _total(self) -> int:
        return self.schedule.num_timesteps


class AbstractPixelModel(AbstractAliasedModel):
    """A model that denoises the images themselves."""

    @property
    def decoding(self) -> Clipped:
        """Clipping to [−1, 1]."""
        return Clipped()

    def encode(self, images: Images) -> Images:
        """The images as they are."""
        return images


def _one_of(name: str, value: Any, other_name: str, other: Any) -> Any:
    if value is not None and other is not None:
        raise ValueError(f"{name} and {other_name} are the same thing; give one of them")
    return other if value is None else value
