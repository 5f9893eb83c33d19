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

# One number for the whole batch, or one for each example.
PerExample: TypeAlias = Float[Array, ""] | Float[Array, " batch"]

# A number that may be known while tracing (a Python float) or only at run time: one for the whole
# batch, or one for each example, with the axes that it needs to multiply them.
Real: TypeAlias = float | Float[Array, "..."]

# A condition: None, an array with a leading batch axis, or a dict of such arrays by their names.
Cond: TypeAlias = Any

PRNGKey: TypeAlias = PRNGKeyArray
BatchKeys: TypeAlias = Key[Array, " batch"]

# For a whole batch, or one for each example: then what is drawn for an example does not depend on the
# batch that it is in.
Keys: TypeAlias = PRNGKeyArray | Key[Array, " batch"]
