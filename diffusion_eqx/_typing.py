"""The array types that all rooms share: what a shape means is said once, here.

Images are (batch, height, width, channels), and a module always sees a batch. Denoisers and samplers do
not care how many axes an example has (an image has three, a point of a 2-D toy problem has one), hence
`*shape`.
"""

from typing import Any, TypeAlias

from jaxtyping import Array, Float, Integer, Key, PRNGKeyArray

Images: TypeAlias = Float[Array, "batch height width channels"]
Latents: TypeAlias = Float[Array, "batch latent_height latent_width latent_channels"]
Batch: TypeAlias = Float[Array, "batch *shape"]
Labels: TypeAlias = Integer[Array, " batch"]
Scalar: TypeAlias = Float[Array, ""]

# Diffusion time in [0, 1]: one for the whole batch, or one for each example.
Time: TypeAlias = Float[Array, ""] | Float[Array, " batch"]

# One number: a Python float, known while tracing, or an array of shape (), known at run time.
Real: TypeAlias = float | Float[Array, ""]

# What a sample is conditioned on: a PyTree whose arrays have a leading batch axis, or None.
Cond: TypeAlias = Any

PRNGKey: TypeAlias = PRNGKeyArray
BatchKeys: TypeAlias = Key[Array, " batch"]
