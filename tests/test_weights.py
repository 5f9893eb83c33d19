"""Weights, errors and spaces of the loss: what they are, and that they do not depend on the prediction."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.losses import (
    ERRORS,
    P2,
    SNR,
    AdaptiveLoss,
    Debiased,
    DenoisingLoss,
    Draws,
    EDMWeight,
    MinSNR,
    SigmoidWeight,
    SoftMinSNR,
    Uncertainty,
    Uniform,
)
from diffusion_eqx.parameterizations import (
    AbstractParameterization,
    Coefficients,
    EDMPrediction,
    VPrediction,
    X0Prediction,
)
from tests.catalogue import PARAMETERIZATIONS, SCHEDULES
from tests.test_times import TIMES

VP = SCHEDULES["vp"]
WEIGHTS = {
    "uniform": Uniform(),
    "snr": SNR(),
    "min-snr": MinSNR(5.0),
    "soft-min-snr": SoftMinSNR(5.0),
    "edm": EDMWeight(0.5),
    "sigmoid": SigmoidWeight(-1.0),
    "p2": P2(),
    "debiased": Debiased(),
}


def no_network(x, c_noise, cond, *, key):
    return jnp.zeros_like(x)


class Given(AbstractParameterization):
    """A parameterization by its coefficients, so that a vmap tries several."""

    given: Coefficients

    def coefficients(self, schedule, level):
        return jax.tree.map(lambda a: a.reshape(level.time.shape), self.given)


def by_x0(loss, uncertainty=None):
    """The gradient of the loss by the predicted clean example, at one prediction for all networks."""
    draws = Draws.of(jax.random.key(2), 8)
    x0 = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)
    noised = loss.noised(x0, None, draws)
    predicted = 0.5 * jnp.tanh(noised.x) + 0.1

    def of(given):
        shell = Denoiser(no_network, VP, Given(given))
        c = shell.coefficients(noised.level.over(x0))
        own = eqx.tree_at(lambda loss: loss.shell, loss, shell)

        def value(output):
            each = own.of_output(output, x0, noised, draws)
            if uncertainty is not None:
                u = uncertainty(noised.level)
                each = each * jnp.exp(-u) + u
            return jnp.sum(each)

        return jax.grad(value)((predicted - c.c_skip * noised.x) / c.c_out) / c.c_out

    all_given = [p.coefficients(VP, noised.level) for p in PARAMETERIZATIONS.values()]
    return jax.vmap(of)(jax.tree.map(lambda *a: jnp.stack(a), *all_given))


@pytest.mark.parametrize("weight", [*WEIGHTS, "learned uncertainty"])
@pytest.mark.parametrize("times", TIMES)
def test_one_prediction_of_x0_has_one_gradient(weight, times):
    """6 predictions × 9 weights × 7 times, with several errors and spaces: all gradients agree in terms of
    x0, so that a weight right for one prediction is right for all."""
    with jax.enable_x64(True):
        uncertainty = None
        if weight == "learned uncertainty":
            uncertainty = Uncertainty(key=jax.random.key(0))
            tilted = uncertainty.out.weight + 0.3
            uncertainty = eqx.tree_at(lambda u: u.out.weight, uncertainty, tilted)
        found = {}
        for space in ("v", "x0"):
            for error in ERRORS if times == "uniform" else ("mse", "huber"):
                loss = DenoisingLoss(
                    Denoiser(no_network, VP, EDMPrediction(0.5)),
                    weight=WEIGHTS.get(weight, MinSNR(5.0)),
                    times=TIMES[times][0],
                    error=error,
                    space=PARAMETERIZATIONS[space],
                )
                found[space, error] = np.asarray(by_x0(loss, uncertainty))
    for place, gradients in found.items():
        reference = gradients[list(PARAMETERIZATIONS).index("x0")]
        scale = np.abs(reference).max(axis=1, keepdims=True)
        assert scale.min() > 0.0
        assert (np.abs(gradients - reference) / scale).max() < 5e-5, place
    if weight != "uniform":
        # A squared error with a weight of x0 is the same in every space.
        one, other = found["v", "mse"], found["x0", "mse"]
        assert np.abs(one - other).max() < 5e-5 * np.abs(one).max()


def test_weights_are_their_formulas():
    """On the error of x0 (c = 1), of eps (c = sigma/alpha) and of v."""
    level = VP.at(jnp.asarray([0.01, 0.2, 0.5, 0.9]))
    snr = np.exp(np.asarray(level.log_snr, np.float64))
    s = 1.0 / np.sqrt(snr)
    on_x0 = {
        "snr": snr,
        "min-snr": np.minimum(snr, 5.0),
        "soft-min-snr": snr * 5.0 / (snr + 5.0),
        "edm": (s**2 + 0.25) / (0.5 * s) ** 2,
        "sigmoid": snr / (1.0 + np.exp(1.0 + np.log(snr))),
        "p2": snr / (1.0 + snr),
        "debiased": np.sqrt(snr),
    }
    for name, prediction in PARAMETERIZATIONS.items():
        c = prediction.coefficients(VP, level).c_out
        np.testing.assert_allclose(Uniform()(level, c), 1.0)
        for weight, expected in on_x0.items():
            found = WEIGHTS[weight](level, c)
            np.testing.assert_allclose(
                found, expected * np.asarray(c, np.float64) ** 2, rtol=2e-4, err_msg=name
            )
    assert on_x0.keys() == WEIGHTS.keys() - {"uniform"}


def test_published_forms_on_the_outputs_they_were_published_for():
    level = VP.at(jnp.asarray([0.05, 0.3, 0.7]))
    snr = np.exp(np.asarray(level.log_snr, np.float64))
    eps, v, edm = (
        PARAMETERIZATIONS[name].coefficients(VP, level).c_out for name in ("epsilon", "v", "edm")
    )
    np.testing.assert_allclose(MinSNR(5.0)(level, eps), np.minimum(snr, 5.0) / snr, rtol=1e-4)
    np.testing.assert_allclose(MinSNR(5.0)(level, v), np.minimum(snr, 5.0) / (snr + 1.0), rtol=1e-4)
    np.testing.assert_allclose(EDMWeight(0.5)(level, edm), 1.0, rtol=1e-5)
    np.testing.assert_allclose(P2(1.5, 0.7)(level, eps), (0.7 + snr) ** -1.5, rtol=1e-4)
    np.testing.assert_allclose(Debiased()(level, eps), snr**-0.5, rtol=1e-4)
    # sigmoid(b − log snr) on eps is the soft minimum of snr and e^b.
    sigmoid = SigmoidWeight(np.log(5.0))(level, eps)
    np.testing.assert_allclose(sigmoid, SoftMinSNR(5.0)(level, eps), rtol=1e-4)


def test_the_average_over_log_snr_does_not_depend_on_the_times():
    """The loss of a network that knows nothing is the same integral over the log-SNR, by any times."""
    x0 = jnp.ones((5_000, 1))
    shell = Denoiser(no_network, VP, X0Prediction())
    values = []
    for name in ("uniform", "cosine", "log-normal", "mode"):
        loss = DenoisingLoss(shell, weight=SigmoidWeight(0.0), times=TIMES[name][0])
        values.append(float(loss(no_network, x0, key=jax.random.key(0))))
    # x0' = 0 for x0 = 1: the integral of snr·sigmoid(−log snr), which is log(1 + snr).
    end = VP.at(jnp.asarray([1.0 / VP.num_timesteps, 1.0]))
    first, last = np.asarray(end.log_snr, np.float64)
    expected = np.logaddexp(0.0, first) - np.logaddexp(0.0, last)
    np.testing.assert_allclose(values[:1], expected, rtol=2e-2)
    np.testing.assert_allclose(values[1:], values[0], rtol=6e-2)


def test_uncertainty_is_the_mean_loss_of_each_level():
    """At the optimum of l·exp(−u) + u, exp(u) is the mean of l."""
    uncertainty = Uncertainty(key=jax.random.key(1))
    level = VP.at(jnp.linspace(0.01, 1.0, 50))
    assert np.all(np.asarray(uncertainty(level)) == 0.0)
    size = 0.3 + 2.0 * level.time

    @jax.jit
    def descend(out):
        def value(out):
            u = eqx.tree_at(lambda u: u.out, uncertainty, out)(level)
            return jnp.mean(size * jnp.exp(-u) + u)

        def move(out, _):
            return jax.tree.map(lambda p, g: p - 0.05 * g, out, jax.grad(value)(out)), None

        return jax.lax.scan(move, out, None, 3000)[0]

    learnt = eqx.tree_at(lambda u: u.out, uncertainty, descend(uncertainty.out))
    np.testing.assert_allclose(jnp.exp(learnt(level)), size, rtol=0.05)


def test_an_adaptive_loss_begins_as_the_loss_itself():
    shell = Denoiser(no_network, VP, VPrediction())
    plain = DenoisingLoss(shell, weight=MinSNR(5.0))
    draws = Draws.of(jax.random.key(3), 64)
    x0 = jnp.linspace(-1.0, 1.0, 128).reshape(64, 2)
    adaptive = AdaptiveLoss.begin(plain, uncertainty=True, importance=True, key=jax.random.key(0))
    each, seen = adaptive.each_seen(no_network, x0, None, draws)
    np.testing.assert_allclose(each, plain.each(no_network, x0, None, draws), rtol=1e-3)
    np.testing.assert_allclose(each, seen.losses, rtol=1e-6)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_every_option_of_the_configuration_reaches_the_loss(prediction, small_config):
    from diffusion_eqx.losses import training_loss
    from diffusion_eqx.models import DDIMModel

    config = dataclasses.replace(small_config, prediction_type=prediction)
    model = DDIMModel(config, key=jax.random.key(0))

    def loss(**options):
        return training_loss(model.denoiser, config, TrainingConfig(steps=1, **options))

    names = ("uniform", "snr", "min_snr", "soft_min_snr", "edm", "sigmoid", "p2", "debiased")
    for name, kind in zip(names, WEIGHTS.values(), strict=True):
        assert type(loss(loss_weighting=name).weight) is type(kind)
    assert loss(loss_weighting="p2", p2_gamma=0.5, p2_k=2.0).weight == P2(0.5, 2.0)
    assert loss(loss_weighting="sigmoid", sigmoid_bias=1.5).weight == SigmoidWeight(1.5)
    assert loss(loss_weighting="soft_min_snr", snr_gamma=3.0).weight == SoftMinSNR(3.0)
    for name, kind in (
        ("uniform", "uniform"),
        ("logit_normal", "logit-normal"),
        ("mode", "mode"),
        ("log_normal", "log-normal"),
        ("cosine", "cosine"),
    ):
        assert type(loss(timestep_sampling=name).times) is type(TIMES[kind][0])
    shifted = loss(
        timestep_sampling="log_normal", timestep_mean=0.0, timestep_std=1.0, timestep_shift=3.0
    )
    assert shifted.times == TIMES["shifted log-normal"][0]
    spaces = {name: loss(loss_space=name).space for name in ("sample", "v_prediction")}
    assert spaces.pop(prediction) is None
    assert next(iter(spaces.values())) in (X0Prediction(), VPrediction())
    with pytest.raises(ValueError, match="timestep_mean is of timestep_sampling"):
        TrainingConfig(timestep_mean=0.5)
