"""Random changes of training images, made where they are trained: on the device, by each example's key."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import BatchKeys, Images, PRNGKey

_Image = Float[Array, "height width channels"]


class Augmentation(eqx.Module):
    """Flips, shifts and changes of colour. All are off unless asked for: digits, text and maps bear none.

    - `flip`: mirror each image left to right with probability 1/2.
    - `shift`: move each image by up to so many pixels each way; the border repeats mirrored.
    - `jitter`: change brightness, contrast and, of colour images, saturation by up to this share each.

    **Raises:** `ValueError` for a negative shift, or a jitter outside [0, 1).
    """

    flip: bool = eqx.field(static=True, default=False)
    shift: int = eqx.field(static=True, default=0)
    jitter: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        if self.shift < 0:
            raise ValueError(f"shift is a number of pixels, 0 or more; got {self.shift}")
        if not 0.0 <= self.jitter < 1.0:
            raise ValueError(f"jitter is a share, at least 0 and below 1; got {self.jitter}")

    def __call__(self, images: Images, keys: BatchKeys) -> Images:
        """Images in [−1, 1], each changed by its own key."""
        return jax.vmap(self._one)(images, keys)

    def _one(self, image: _Image, key: PRNGKey) -> _Image:
        key_flip, key_shift, key_colour = jax.random.split(key, 3)
        if self.flip:
            mirrored = jax.random.bernoulli(key_flip)
            image = jnp.where(mirrored, image[:, ::-1], image)
        if self.shift:
            border = (self.shift, self.shift)
            wide = jnp.pad(image, (border, border, (0, 0)), mode="symmetric")
            top, left = jax.random.randint(key_shift, (2,), 0, 2 * self.shift + 1)
            image = jax.lax.dynamic_slice(wide, (top, left, jnp.zeros_like(top)), image.shape)
        return self._coloured(image, key_colour) if self.jitter else image

    def _coloured(self, image: _Image, key: PRNGKey) -> _Image:
        low, high = 1.0 - self.jitter, 1.0 + self.jitter
        factors = jax.random.uniform(key, (3,), image.dtype, low, high)
        # Brightness scales light, which is 0 for black.
        image = factors[0] * (image + 1.0) - 1.0
        mean = jnp.mean(image)
        image = mean + factors[1] * (image - mean)
        if image.shape[-1] == 3:
            grey = jnp.mean(image, axis=-1, keepdims=True)
            image = grey + factors[2] * (image - grey)
        return jnp.clip(image, -1.0, 1.0)
