"""Classifier guidance: the gradient of a noisy classifier moves the prediction."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx._values import number
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.guidance.base import AbstractGuidance, take
from diffusion_eqx.guidance.branches import scale_at
from diffusion_eqx.schedules import NoiseLevel, over


class ClassifierGuidance(AbstractGuidance):
    """eps − w·sigma·grad log p(y | x) (Dhariwal & Nichol 2021, algorithm 2).

    The classes y are `cond["class_label"]`, integers (batch,). It may stand around classifier-free
    guidance or inside of it. Cost: a gradient of the classifier in each call.

    - `classifier`: `(x, level) -> logits` (batch, classes), trained on noisy examples; the level is
      of shape (batch,).
    - `guidance_scale`: w, a number or a function of the level; 0 is no guidance.
    """

    classifier: Callable[[Batch, NoiseLevel], Float[Array, "batch classes"]]
    guidance_scale: Any = number(
        1.0,
        neutral=0.0,
        minimum=0.0,
        maximum=100.0,
        about="strength of the classifier's pull; 0 is none",
    )

    takes: ClassVar[tuple[str, ...]] = ("class_label",)

    def __call__(
        self, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
    ) -> Prediction:
        """The guided prediction.

        **Raises:** `ValueError` if `cond` has no "class_label".
        """
        own, rest = take(cond, self.takes)
        labels = own["class_label"].astype(jnp.int32)
        predicted = denoiser(x, level, rest)
        levels = jax.tree.map(lambda a: jnp.broadcast_to(a, x.shape[:1]), level)

        def log_likelihood(x: Batch) -> Float[Array, ""]:
            logits = jax.nn.log_softmax(self.classifier(x, levels))
            return jnp.take_along_axis(logits, labels[:, None], axis=-1).sum()

        gradient = jax.grad(log_likelihood)(x)
        # In x0 the shift has a pole where there is no signal; there a classifier knows nothing anyway.
        some = level.alpha > 0.0
        shift = jnp.where(some, level.sigma**2 / jnp.where(some, level.alpha, 1.0), 0.0)
        scale = over(scale_at(self.guidance_scale, level), x)
        x0 = predicted.x0 + scale * over(shift, x) * gradient
        return predicted.with_x0(x, level, x0)
