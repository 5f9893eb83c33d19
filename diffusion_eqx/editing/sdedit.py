"""SDEdit: noise an image, then denoise it (Meng et al. 2022)."""

from diffusion_eqx._typing import Batch, Cond, PRNGKey
from diffusion_eqx.editing.noising import begin_index, noised
from diffusion_eqx.samplers.base import AbstractSampler
from diffusion_eqx.samplers.drive import sample_between
from diffusion_eqx.samplers.noise import image_keys


def sdedit(
    sampler: AbstractSampler,
    images: Batch,
    *,
    strength: float,
    steps: int,
    key: PRNGKey,
    cond: Cond = None,
) -> Batch:
    """Noise `images` to the point of the grid at which `strength` of its steps are left, and take these.

    Meng et al. (2022, algorithm 1). The more noise, the more realistic and the less faithful the result:
    what is larger than the noise stays, such as the layout, what is smaller is drawn anew. `strength` is in
    (0, 1]; 1 is sampling from the start, with no more of the image than the schedule's alpha(1). Any
    sampler will do; `cond` may ask for something else than the images show. Cost: strength·steps steps.
    Returns the shape of `images`.

    **Raises:** `ValueError` if strength is outside (0, 1].
    """
    begin = begin_index(strength, steps)
    x_t = noised(sampler, images, index=begin, steps=steps, keys=image_keys(key, len(images)))
    return sample_between(sampler, x_t, begin=begin, end=steps, steps=steps, key=key, cond=cond)
