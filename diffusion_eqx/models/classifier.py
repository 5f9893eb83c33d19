"""A classifier of noisy images, p(y | x) at every level of noise, whose gradient guides a diffusion model.

Dhariwal & Nichol (2021, section 4). It takes part in sampling, so it is no judge of the images that it has
guided; `evaluation.Classifier` is one.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, Keys, PRNGKey
from diffusion_eqx.config import NoisyClassifierConfig
from diffusion_eqx.models.build import build_schedule
from diffusion_eqx.nn import Conv, GroupNorm, Linear, ResBlock, TimeEmbedding
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel, over

_MOST_GROUPS = 8


class NoisyClassifier(eqx.Module):
    """`(x, level) -> logits`: residual blocks that are told the level of noise, each followed by a halving.

    `ClassifierGuidance` takes it as it is.

    - `config`: what it was made from; it is written into its file.
    - `schedule`: the schedule whose levels it knows.
    """

    config: NoisyClassifierConfig = eqx.field(static=True)
    schedule: AbstractSchedule
    time_embedding: TimeEmbedding
    conv_in: Conv
    blocks: list[ResBlock]
    halvings: list[Conv]
    norm: GroupNorm
    out: Linear

    def __init__(self, config: NoisyClassifierConfig, *, key: PRNGKey):
        """A classifier with fresh weights."""
        keys = iter(jax.random.split(key, 3 + 2 * len(config.hidden_dims)))
        height, width, channels = config.input_shape
        current = config.hidden_dims[0]
        self.config = config
        self.schedule = build_schedule(config.noise_schedule)
        self.time_embedding = TimeEmbedding(config.time_embedding_dim, key=next(keys))
        self.conv_in = Conv(channels, current, 3, key=next(keys))
        self.blocks, self.halvings = [], []
        for wider in config.hidden_dims:
            block = ResBlock(
                current,
                wider,
                config.time_embedding_dim,
                activation=jax.nn.silu,
                dropout=config.dropout,
                norm_groups=_MOST_GROUPS,
                key=next(keys),
            )
            self.blocks.append(block)
            self.halvings.append(Conv(wider, wider, 3, stride=2, key=next(keys)))
            height, width, current = -(-height // 2), -(-width // 2), wider
        self.norm = GroupNorm(current, max_groups=_MOST_GROUPS, activation=jax.nn.silu)
        # Zero: a fresh classifier knows nothing and has no gradient.
        self.out = Linear(height * width * current, config.num_classes, key=next(keys), zero=True)

    def __call__(
        self, x: Images, level: NoiseLevel, *, key: Keys | None = None
    ) -> Float[Array, "batch classes"]:
        """Logits of the classes of noisy images.

        - `x`: (batch, height, width, channels), noised to the level.
          They are cast to the precision of the weights, and the logits back.
        - `level`: of shape () for all images, or (batch,) for each.
        - `key`: for dropout, while training.

        **Raises:** `ValueError` if the images have another shape than the configuration says.
        """
        h = self._hidden(x, level, key)
        return self.out(h.reshape(len(h), -1)).astype(x.dtype)

    def features(self, x: Images, level: NoiseLevel) -> Float[Array, "batch features"]:
        """The last hidden layer's mean over all places, one feature for each of its channels.

        - `x`, `level`: as of a call.

        **Raises:** `ValueError` as a call.
        """
        return jnp.mean(self._hidden(x, level, None), axis=(1, 2)).astype(x.dtype)

    def _hidden(
        self, x: Images, level: NoiseLevel, key: PRNGKey | None
    ) -> Float[Array, "batch rows columns features"]:
        """What the last linear layer sees, at the coarsest resolution."""
        if x.shape[1:] != tuple(self.config.input_shape):
            raise ValueError(
                f"this classifier takes images of shape {tuple(self.config.input_shape)}; got {x.shape[1:]}"
            )
        level = level.flat()
        size = jnp.sqrt(level.alpha**2 + level.sigma**2)
        timestep = jnp.broadcast_to(self.schedule.timestep_of(level), x.shape[:1])
        embedding = jax.nn.silu(self.time_embedding(timestep))
        h = self.conv_in((x / over(size, x)).astype(self.conv_in.weight.dtype))
        for number, (block, halve) in enumerate(zip(self.blocks, self.halvings, strict=True)):
            block_key = None if key is None else jax.random.fold_in(key, number)
            h = halve(block(h, embedding, key=block_key))
        return self.norm(h)
