"""Classifier guidance: the gradient of a noisy classifier moves the prediction."""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Time
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.guidance.base import AbstractGuidance
from diffusion_eqx.guidance.classifier_free import Scale, scale_at
from diffusion_eqx.schedules import like


class ClassifierGuidance(AbstractGuidance):
    """eps − s·sigma·grad log p(y | x_t) (Dhariwal & Nichol 2021, algorithm 2).

    `classifier(x_t, t) -> logits` must have been trained on noisy examples; `t` is (batch,). `class_label`
    is one class for all, or one for each example. `guidance_scale` is s; 0 is no guidance. It may stand
    around classifier-free guidance or inside of it, with the same effect. Cost: a gradient of the
    classifier each call.
    """

    denoiser: AbstractDenoiser
    classifier: Callable[[Batch, Float[Array, " batch"]], Float[Array, "batch classes"]]
    guidance_scale: Scale
    class_label: int | Int[Array, ""] | Int[Array, " batch"]

    keeps_pair: ClassVar[bool] = True

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The guided prediction; `cond` goes to the wrapped denoiser.

        **Raises:** `ValueError` if there are labels of another number than there are examples.
        """
        predicted = self.denoiser(x_t, t, cond, key=key)
        labels = self.class_label
        # Inside classifier-free guidance the batch is doubled.
        if isinstance(labels, jax.Array) and labels.ndim == 1:
            if len(x_t) % len(labels):
                raise ValueError(
                    f"class_label has {len(labels)} labels for a batch of {len(x_t)} examples; give one "
                    "for each, or one for all"
                )
            labels = jnp.tile(labels, len(x_t) // len(labels))
        labels = jnp.broadcast_to(jnp.asarray(labels, jnp.int32), x_t.shape[:1])
        times = jnp.broadcast_to(t, x_t.shape[:1])

        def log_likelihood(x: Batch) -> Float[Array, ""]:
            logits = jax.nn.log_softmax(self.classifier(x, times))
            return jnp.take_along_axis(logits, labels[:, None], axis=-1).sum()

        gradient = jax.grad(log_likelihood)(x_t)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        # In x0 the shift has a pole where there is no signal; there a classifier knows nothing anyway.
        shift = jnp.where(alpha > 0.0, sigma**2 / jnp.maximum(alpha, 1e-12), 0.0)
        x0 = predicted.x0 + like(scale_at(self.guidance_scale, t) * shift, x_t) * gradient
        return Prediction.from_x0(self.schedule, x_t, t, x0, predicted.variance_fraction)
