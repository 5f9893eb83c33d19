"""Array types shared by every room: what a shape means is said once, here.

Images are NHWC; a module always sees a batch. Denoisers and samplers do not care how many axes an
example has (an image has three, a point of a 2-D toy problem one), hence `*shape`.
"""

from typing import Any, TypeAlias

from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

Images: TypeAlias = Float[Array, "batch height width channels"]
Latents: TypeAlias = Float[Array, "batch latent_height latent_width latent_channels"]
Batch: TypeAlias = Float[Array, "batch *shape"]
Labels: TypeAlias = Int[Array, " batch"]
Scalar: TypeAlias = Float[Array, ""]

# Diffusion time in [0, 1]: one for the whole batch, or one for each example.
Time: TypeAlias = Float[Array, ""] | Float[Array, " batch"]

# One number that may be known while tracing (a Python float) or only at run time (a traced scalar).
Real: TypeAlias = float | Float[Array, ""]

# A conditioning PyTree whose arrays have a leading batch axis, or None.
Cond: TypeAlias = Any

PRNGKey: TypeAlias = PRNGKeyArray
BatchKeys: TypeAlias = Key[Array, " batch"]
