"""A network of known answer: what each parameterization should predict for Gaussian data."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp

from diffusion_eqx.denoiser import GaussianDenoiser
from diffusion_eqx.schedules import like


class OracleNetwork(eqx.Module):
    """Predicts exactly, but for `disturbance` times the output of `other`, if there is one."""

    prediction_type: str = eqx.field(static=True)
    oracle: GaussianDenoiser
    other: Callable | None = None
    disturbance: float = eqx.field(static=True, default=0.1)

    def __call__(self, x, c_noise, cond, *, key):
        t = self.oracle.schedule.time(c_noise.astype(jnp.int32))
        x0, eps, _ = self.oracle(x, t)
        alpha = like(self.oracle.schedule.alpha(t), x)
        sigma = like(self.oracle.schedule.sigma(t), x)
        v = alpha * eps - sigma * x0
        output = {"epsilon": eps, "sample": x0, "v_prediction": v}[self.prediction_type]
        if self.other is None:
            return output
        return output + self.disturbance * self.other(x, c_noise, cond, key=key)
