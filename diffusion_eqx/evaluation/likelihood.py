"""How likely a model finds data: log-likelihood and bits per dimension, by the probability-flow ODE.

The ODE carries the density of noise to that of data, and its divergence says how the density changes
(Chen et al. 2018, theorem 1; Song et al. 2021, section 4.3 and appendix D.2). The flow's variable is
y = x_t/(alpha + sigma), with u = alpha/(alpha + sigma). The clock is lambda = log(alpha/sigma), half the
log-SNR of a level, and u' = u·(1 − u):

1. The flow is dy/dlambda = v(y, lambda) = u·(1 − u)·(x0 − eps). No term of it has a pole, and neither has
   its divergence, although that of dy/du grows like 1/(1 − u) towards clean data.
2. Along the flow, d log p(y)/dlambda = −div v. Hence, with y_0 at the first time t_min and y_1 at t = 1,

       log p(y_0) = log p(y_1) + ∫ div v dlambda,   integrated from lambda(t_min) to lambda(1).

3. At t = 1, x_t ~ N(0, sigma²), so y_1 ~ N(0, (1 − u)²). The signal that is left there is neglected, as in
   sampling.
4. At t_min, x_t/alpha = x0 + (sigma/alpha)·eps is the data in its own scale, with a little noise. With
   x = x_t/alpha, y_0 = u·x, and in d dimensions log p(x) = log p(y_0) + d·log u.

The result is the density, at the data, of the model's distribution with noise of standard deviation
sigma/alpha at t_min. By default t_min is the first timestep, 1/T, the least noise that a network has
learnt.

The divergence is the trace of a Jacobian. The exact trace takes one directional derivative for each
dimension. The estimator of Hutchinson (1990) is the mean of z·Jz over random signs z. A probe z stays the
same along the whole path (Grathwohl et al. 2019, section 3.1), so that each probe gives an unbiased
likelihood, and the spread of these gives the error of their mean. All derivatives are taken in forward
mode: memory is that of a few network calls, whatever the number of steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, Images, PRNGKey, Scalar
from diffusion_eqx._values import as_arrays
from diffusion_eqx.data import to_unit_range
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.guidance import keeps_pair
from diffusion_eqx.samplers import image_keys

# From here on, alpha/sigma = 3e-4, what is noisier is as good as pure noise.
_PURE_NOISE = -8.0
# Directions that are differentiated at once; more of them cost memory, fewer of them time.
_AT_ONCE = 8

_Number = Float[Array, ""]
# (batch, *shape) to (batch, *shape).
_Field = Callable[[Batch], Batch]


class Likelihood(NamedTuple):
    """How likely each example is, and how exactly that is known.

    - `log_likelihood`: log p in nats, (batch,).
    - `bits_per_dim`: −log2 p over the number of dimensions, (batch,).
    - `probe_error`: the standard error of `bits_per_dim` that the probes of the trace cause, (batch,); 0 if
      the trace is exact.
    """

    log_likelihood: Float[Array, " batch"]
    bits_per_dim: Float[Array, " batch"]
    probe_error: Float[Array, " batch"]

    @property
    def mean(self) -> Scalar:
        """The mean of `bits_per_dim` over the examples."""
        return jnp.mean(self.bits_per_dim)

    @property
    def standard_error(self) -> Scalar:
        """The standard error of `mean`, from the spread over the examples.

        That spread includes the error of the probes. NaN for a single example.
        """
        return jnp.std(self.bits_per_dim, ddof=1) / jnp.sqrt(len(self.bits_per_dim))


def log_likelihood(
    denoiser: AbstractDenoiser,
    x: Batch,
    cond: Cond = None,
    *,
    key: PRNGKey | None = None,
    probes: int | None = 8,
    t_min: float | None = None,
    solver: diffrax.AbstractSolver | None = None,
    steps: int = 50,
    tolerance: float | None = None,
    first: int = 0,
) -> Likelihood:
    """The likelihood of examples under a denoiser, by the probability-flow ODE.

    - `x`: the examples, (batch, *shape).
    - `cond`: their condition, as the denoiser takes it.
    - `key`: draws the probes.
    - `probes`: how many random directions estimate the trace, each example its own ones. None takes the
      exact trace, at a cost that grows with the number of dimensions.
    - `t_min`: the time whose noise the data is taken to have, by default that of the first timestep.
    - `solver`: any explicit solver of diffrax, by default `Tsit5`, of order 5 and six evaluations a step.
    - `steps`: the solver's steps, equally spaced in the log-SNR.
    - `tolerance`: the relative and absolute error of a step. With it the solver chooses its own steps,
      the same for the whole batch, and `steps` is the most it may take. If that is too few, the result is
      NaN.
    - `first`: the number of the first example. The probes of example k depend on `key` and k only.

    Give a denoiser without clipping: clipping maps many images to one, and then there is no density. The
    cost is roughly steps · stages · (1 + probes) calls of the denoiser.

    **Raises:** `ValueError` if probes are asked for without a `key`, or fewer than two, which have no
    spread; if `t_min` is not between 0 and 1; if `steps` is less than 1; if the denoiser is guided by
    CFG++, whose predictions make no flow.
    """
    if probes is not None and key is None:
        raise ValueError("the probes of the trace need a key; give one, or probes=None")
    if probes is not None and probes < 2:
        raise ValueError(f"probes must be at least 2, so that their spread is known; got {probes}")
    if t_min is None:
        t_min = 1.0 / denoiser.schedule.num_timesteps
    if not 0.0 < t_min < 1.0:
        raise ValueError(f"t_min must be between 0 and 1, both excluded; got {t_min}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    if not keeps_pair(denoiser):
        raise ValueError(
            "this denoiser's x0 and eps come from different predictions (CFG++), so that they make no flow "
            "and have no likelihood; use ClassifierFreeGuidance instead"
        )
    solver = diffrax.Tsit5() if solver is None else solver
    # In inference mode, layers are without dropout, and can be differentiated in forward mode.
    denoiser = as_arrays(eqx.nn.inference_mode(denoiser))
    directions = None if probes is None or key is None else _signs(key, probes, x, first)
    return _log_likelihood(
        denoiser, x, cond, directions, jnp.asarray(t_min, x.dtype), solver, steps, tolerance
    )


def image_bits_per_dim(
    denoiser: AbstractDenoiser,
    images: Images | np.ndarray,
    cond: Cond = None,
    *,
    key: PRNGKey,
    grey_levels: int = 256,
    first: int = 0,
    **options: Any,
) -> Likelihood:
    """Bits per dimension of discrete images: an upper bound of −log2 P(image) over its dimensions.

    - `images`: (batch, height, width, channels), uint8 or float in [−1, 1].
    - `grey_levels`: how many values a pixel can have, equally spaced from −1 to 1.
    - `first`: the number of the first image. What is drawn for image k depends on `key` and k only.
    - `options`: those of `log_likelihood`.

    A pixel of value k stands for an interval of width w = 2/(grey_levels − 1) around it. Uniform noise of
    that width makes the data continuous, and by Jensen's inequality −log2 P <= −log2 p − log2 w for each
    dimension, on average over that noise (Theis et al. 2016, section 3.1). For 8 bits, −log2 w =
    log2(127.5). Every figure of the result is one of discrete images.

    **Raises:** `ValueError` as `log_likelihood`; if there are fewer than two grey levels; if images of
    floats are not finite, or leave [−1, 1].
    """
    if grey_levels < 2:
        raise ValueError(f"grey_levels must be at least 2; got {grey_levels}")
    key_noise, key_probes = jax.random.split(key)
    x = to_unit_range(jnp.asarray(images))
    low, high = float(x.min()), float(x.max())
    if not (low >= -1.0 and high <= 1.0):
        raise ValueError(
            f"images must be uint8, or floats in [-1, 1]; these lie in [{low:g}, {high:g}]: scale them, "
            "such as images / 127.5 - 1"
        )
    width = 2.0 / (grey_levels - 1)
    keys = image_keys(key_noise, len(x), first)
    noise = jax.vmap(lambda k: jax.random.uniform(k, x.shape[1:], x.dtype, -0.5, 0.5))(keys)
    found = log_likelihood(
        denoiser, x + width * noise, cond, key=key_probes, first=first, **options
    )
    return Likelihood(
        found.log_likelihood + x[0].size * np.log(width),
        found.bits_per_dim - np.log2(width),
        found.probe_error,
    )


@eqx.filter_jit
def _log_likelihood(
    denoiser: AbstractDenoiser,
    x: Batch,
    cond: Cond,
    directions: Float[Array, "..."] | None,
    t_min: _Number,
    solver: diffrax.AbstractSolver,
    steps: int,
    tolerance: float | None,
) -> Likelihood:
    schedule = denoiser.schedule
    exact = directions is None
    chosen = _basis(x) if directions is None else directions
    probes = 1 if exact else len(chosen)

    def rate(place: Any, state: tuple[Batch, Array], args: Any) -> tuple[Batch, Array]:
        """The rate of y, and of the log-density by each probe, or by the exact trace."""
        field = _flow(denoiser, cond, jnp.asarray(place))
        velocity, parts = _derivatives(field, state[0], chosen)
        return velocity, (parts.sum(0)[None] if exact else parts)

    begin = jnp.maximum(schedule.at(t_min).lam, _PURE_NOISE)
    end = jnp.maximum(schedule.at(jnp.ones_like(t_min)).lam, _PURE_NOISE)
    u_first, u_last = jax.nn.sigmoid(begin), jax.nn.sigmoid(end)
    y_last, change = _solve(
        rate,
        (u_first * x, jnp.zeros((probes, len(x)), x.dtype)),
        (begin, end),
        solver=solver,
        steps=steps,
        tolerance=tolerance,
    )
    size = x[0].size
    total = _log_normal(y_last, 1.0 - u_last)[None] + change + size * jnp.log(u_first)
    mean = total.mean(0)
    nats_per_bit = size * np.log(2.0)
    spread = jnp.zeros_like(mean) if exact else total.std(0, ddof=1) / np.sqrt(probes)
    return Likelihood(mean, -mean / nats_per_bit, spread / nats_per_bit)


def _flow(denoiser: AbstractDenoiser, cond: Cond, place: _Number) -> _Field:
    """v(y) = u·(1 − u)·(x0 − eps) at a lambda."""
    level = denoiser.schedule.at_log_snr(2.0 * place)
    scale = level.alpha + level.sigma
    pace = jax.nn.sigmoid(place) * jax.nn.sigmoid(-place)

    def field(y: Batch) -> Batch:
        x0, eps = denoiser(scale * y, level, cond)
        return pace * (x0 - eps)

    return field


def _basis(x: Batch) -> Float[Array, "..."]:
    """The unit vectors of an example's space, (dimensions, 1, *shape)."""
    return jnp.eye(x[0].size, dtype=x.dtype).reshape(-1, 1, *x.shape[1:])


def _signs(key: PRNGKey, probes: int, x: Batch, first: int) -> Float[Array, "..."]:
    """Random signs, (probes, batch, *shape), those of example k decided by `key` and k alone."""

    def one(key: PRNGKey) -> Array:
        return jax.random.rademacher(key, (probes, *x.shape[1:]), x.dtype)

    return jnp.moveaxis(jax.vmap(one)(image_keys(key, len(x), first)), 1, 0)


def _derivatives(
    field: _Field, y: Batch, directions: Float[Array, "..."]
) -> tuple[Batch, Float[Array, "directions batch"]]:
    """The field at y, and z·Jz for each direction z and each example, J being its Jacobian there."""

    def one(z: Array) -> tuple[Batch, Array]:
        z = jnp.broadcast_to(z, y.shape)
        value, slope = jax.jvp(field, (y,), (z,))
        return value, jnp.sum(z * slope, axis=range(1, y.ndim))

    # The value is that of all directions: it is computed once for those taken at once.
    several = jax.vmap(one, out_axes=(None, 0))
    count = len(directions)
    size = next(n for n in range(_AT_ONCE, 0, -1) if count % n == 0)
    if size == count:
        return several(directions)
    values, parts = jax.lax.map(several, directions.reshape(-1, size, *directions.shape[1:]))
    return values[0], parts.reshape(count, len(y))


def _solve(
    rate: Callable[..., Any],
    start: tuple[Batch, Array],
    ends: tuple[_Number, _Number],
    *,
    solver: diffrax.AbstractSolver,
    steps: int,
    tolerance: float | None,
) -> tuple[Batch, Array]:
    """The state at the second place from that at the first."""
    begin, end = ends
    places = jnp.linspace(begin, end, steps + 1)
    controller = (
        diffrax.StepTo(ts=places)
        if tolerance is None
        else diffrax.PIDController(rtol=tolerance, atol=tolerance)
    )
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rate),
        solver,
        t0=begin,
        t1=end,
        dt0=None if tolerance is None else places[1] - places[0],
        y0=start,
        stepsize_controller=controller,
        saveat=diffrax.SaveAt(t1=True),
        max_steps=steps,
        adjoint=diffrax.ForwardMode(),
        throw=False,
    )
    arrived = diffrax.is_okay(solution.result)
    return jax.tree.map(lambda a: jnp.where(arrived, a[0], jnp.nan), solution.ys)


def _log_normal(y: Batch, std: _Number) -> Float[Array, " batch"]:
    """log N(y; 0, std²)."""
    squares = jnp.sum((y / std) ** 2, axis=range(1, y.ndim))
    return -0.5 * squares - y[0].size * (jnp.log(std) + 0.5 * np.log(2.0 * np.pi))
