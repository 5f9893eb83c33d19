"""Denoisers: from a noisy example to an estimate of the clean one and of the noise.

A denoiser is what samplers and guidance see of a model. `Denoiser` wraps a trained network. `exact`
holds denoisers of known distributions, the oracles against which samplers are tested.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx._face import face as _face
from diffusion_eqx._typing import Batch, Cond, Keys
from diffusion_eqx._values import AbstractValue, as_arrays, is_traced
from diffusion_eqx.parameterizations import AbstractParameterization, Coefficients
from diffusion_eqx.precision import at_edge
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel, over

# A level, or a time in [0, 1] that stands for the schedule's level there.
Level = NoiseLevel | float | Float[Array, "..."]


class Prediction(eqx.Module):
    """Estimates of the clean example and of the noise, with x = alpha·x0 + sigma·eps.

    It unpacks as the pair `x0, eps = prediction`.

    - `x0`, `eps`: of the shape of x.
    - `variance_fraction`: from networks that learn the variance of a step, else None. 0 stands for
      the least and 1 for the greatest log-variance that a step can have (Nichol & Dhariwal 2021,
      eq. 15).
    """

    x0: Batch
    eps: Batch
    variance_fraction: Batch | None = None

    def __iter__(self) -> Iterator[Batch]:
        return iter((self.x0, self.eps))

    def with_x0(self, x: Batch, level: NoiseLevel, x0: Batch) -> "Prediction":
        """The prediction with another x0, and the eps that then explains `x`: (x − alpha·x0)/sigma."""
        return Prediction(x0, level.eps(x, x0), self.variance_fraction)


@runtime_checkable
class Backbone(Protocol):
    """Any network of this call is a backbone; no base class is asked for."""

    def __call__(
        self, x: Batch, c_noise: Float[Array, " batch"], cond: Cond, *, key: Keys | None
    ) -> Batch:
        """`x`.

        Scaled noisy examples. `c_noise`: what the network is told of the level. `key`: for dropout; one for
        the batch, or one for each example, (batch,), as training gives them.
        """
        ...


class AbstractDenoiser(AbstractValue):
    """`denoiser(x, level, cond) -> Prediction(x0, eps)`; `Guided` wraps one and is one.

    - `schedule`: the schedule whose levels it knows.
    - `null`: the condition that stands for "no condition", of a single example, or None if there is none.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        schedule: ClassVar[AbstractSchedule]
        null: ClassVar[Cond]
    else:
        schedule: eqx.AbstractVar[AbstractSchedule]
        null: eqx.AbstractVar[Cond]

    @abstractmethod
    def __call__(self, x: Batch, level: Level, cond: Cond = None) -> Prediction:
        """Estimate x0 and eps of noisy examples `x` at a level with noise.

        `level`: a `NoiseLevel`, or a time in (0, 1] as a float; one for all examples or one for each.
        """


class Denoiser(AbstractDenoiser):
    """A network with the schedule and the parameterization that it was, or will be, trained for.

    - `backbone`: any callable `(x, c_noise, cond, *, key) -> output`.
    - `null`: the condition of a single example that stands for "no condition", such as the number
      of classes for integer labels. Where no condition is given, it is used.
    - `learned_variance`: whether the network gives twice the channels of its input. The second
      half, from −1 to 1, is then the prediction's `variance_fraction`.

    **Raises:** `ValueError` if the parameterization has no finite coefficients at some level of the
    schedule.
    """

    backbone: Backbone
    schedule: AbstractSchedule
    parameterization: AbstractParameterization
    null: Cond = None
    learned_variance: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_pair(self.schedule, self.parameterization)

    def __call__(
        self, x: Batch, level: Level, cond: Cond = None, *, key: Keys | None = None
    ) -> Prediction:
        """x0 = c_skip·x + c_out·F(c_in·x, c_noise), and eps = (x − alpha·x0)/sigma.

        `key`: for the network's dropout, while training.
        """
        level = as_level(self.schedule, level)
        return self.prediction(x, level, self.network(self.backbone, x, level, cond, key=key))

    def network(
        self,
        backbone: Backbone,
        x: Batch,
        level: NoiseLevel,
        cond: Cond = None,
        *,
        key: Keys | None = None,
    ) -> Array:
        """What a backbone gives for noisy examples: F(c_in·x, c_noise), cast to the dtype of x.

        The one place where a network is called: denoising, training and the faces of models all come here.
        """
        c = self.coefficients(level)
        c_noise = jnp.broadcast_to(c.c_noise, x.shape[:1])
        given = fill_null(plain(cond), self.null, len(x))
        return at_edge(backbone, over(c.c_in, x) * x, c_noise, given, key=key)

    def prediction(self, x: Batch, level: NoiseLevel, output: Array) -> Prediction:
        """What an output of the network says of x."""
        fraction = None
        if self.learned_variance:
            output, fraction = jnp.split(output, 2, axis=-1)
            fraction = 0.5 * (fraction + 1.0)
        c = self.coefficients(level)
        x0 = over(c.c_skip, x) * x + over(c.c_out, x) * output
        return Prediction(x0, level.eps(x, x0), fraction)

    def target(self, x: Batch, level: NoiseLevel, x0: Batch) -> Batch:
        """The output that a perfect network would give: (x0 − c_skip·x)/c_out."""
        c = self.coefficients(level)
        return (x0 - over(c.c_skip, x) * x) / over(c.c_out, x)

    def coefficients(self, level: NoiseLevel) -> Coefficients:
        """The parameterization's coefficients at a level."""
        return self.parameterization.coefficients(self.schedule, level)


def as_level(schedule: AbstractSchedule, level: Level) -> NoiseLevel:
    """A level as it is, or the schedule's level at a time.

    **Raises:** `ValueError` for integers, which could be timesteps, and known times outside [0, 1].
    """
    return level if isinstance(level, NoiseLevel) else schedule.at(level)


def plain(cond: Cond) -> Cond:
    """What a backbone sees of a condition: labels alone come bare, and an empty dict is none."""
    if isinstance(cond, dict):
        if not cond:
            return None
        if cond.keys() == {"label"}:
            return cond["label"]
    return cond


def fill_null(cond: Cond, null: Cond, batch: int) -> Cond:
    """The condition, or the null condition of every example if none is given."""
    if cond is not None or null is None:
        return cond
    return jax.tree.map(lambda n: jnp.broadcast_to(_null_array(n), (batch, *np.shape(n))), null)


def null_like(cond: Cond, null: Cond) -> Cond:
    """The null condition for every example of `cond`."""
    return jax.tree.map(
        lambda c, n: jnp.broadcast_to(_null_array(n).astype(c.dtype), c.shape), cond, null
    )


def _null_array(null: Any) -> Array:
    return jnp.asarray(null, jnp.int32) if isinstance(null, int) else jnp.asarray(null)


# One program for each pair of kinds, as the check of a schedule is.
@eqx.filter_jit
def _coefficients(
    schedule: AbstractSchedule, parameterization: AbstractParameterization, times: Array
) -> tuple[Coefficients, Array]:
    levels = schedule.at(times)
    return parameterization.coefficients(schedule, levels), levels.alpha[-1]


def check_pair(schedule: AbstractSchedule, parameterization: AbstractParameterization) -> None:
    """**Raises:** `ValueError` if a parameterization has no finite map to x0 at some level of a schedule.

    Nothing is checked while numbers are traced.
    """
    if is_traced((schedule, parameterization)):
        return
    with jax.ensure_compile_time_eval():
        total = schedule.num_timesteps
        times = jnp.asarray(np.array(sorted({1.0 / total, 0.5, 1.0 - 0.5 / total, 1.0})), float)
        c, signal = _coefficients(as_arrays(schedule), as_arrays(parameterization), times)
        finite = np.isfinite(np.stack([np.asarray(v) for v in c])).all(axis=0)
        bad = ~finite | (np.asarray(c.c_out) == 0.0)
    if not bad.any():
        return
    name, where = type(parameterization).__name__, float(times[np.argmax(bad)])
    reason = (
        "nothing of the signal is left at t = 1, where x0 cannot be found from such a prediction"
        if signal == 0.0 and where == 1.0
        else f"its coefficients are not finite at t = {where:g}"
    )
    raise ValueError(
        f"{name} cannot be used with this {type(schedule).__name__}: {reason}; choose "
        "VPrediction or X0Prediction "
        "(VelocityPrediction for FlowSchedule), or a schedule that keeps some signal"
    )


__dir__ = _face(globals())
