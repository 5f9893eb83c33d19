"""Losses: what each error, weight, distribution of levels and dropped label is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.config import DDIMConfig, TrainingConfig, UNetBackboneConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.losses import (
    SNR,
    DenoisingLoss,
    Draws,
    HybridLoss,
    MinSNR,
    Uniform,
    drop_cond,
    training_loss,
)
from diffusion_eqx.testing import AnySchedule
from tests.catalogue import PARAMETERIZATIONS, SCHEDULES
from tests.test_combinations import refused_pairs

LINEAR = SCHEDULES["linear"]


def no_network(x, c_noise, cond, *, key):
    return jnp.zeros_like(x)


def denoiser(schedule="linear", parameterization="epsilon", null=None) -> Denoiser:
    return Denoiser(no_network, SCHEDULES[schedule], PARAMETERIZATIONS[parameterization], null=null)


ERRORS = {
    "mse": lambda d: d**2,
    "l1": np.abs,
    # Quadratic up to 1, then a straight line of slope 1.
    "huber": lambda d: np.where(np.abs(d) <= 1.0, 0.5 * d**2, np.abs(d) - 0.5),
    "pseudo_huber": lambda d: np.hypot(1.0, d) - 1.0,
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_their_formulas(name):
    """The network's output is 0, so the error is that of the target itself."""
    loss = DenoisingLoss(denoiser(), error=name)
    x0, key = jnp.linspace(-1.0, 1.0, 1200).reshape(300, 4), jax.random.key(1)
    noised = loss.noised(x0, None, Draws.of(key, 300))
    eps = np.asarray(noised.eps, np.float64)
    assert np.abs(eps).max() > 1.0
    expected = ERRORS[name](eps).mean()
    assert float(loss(no_network, x0, key=key)) == pytest.approx(expected, rel=1e-5)
    others = [ERRORS[other](eps).mean() for other in ERRORS if other != name]
    assert min(abs(expected - other) for other in others) > 0.03
    np.testing.assert_allclose(noised.x, noised.level.noised(x0, noised.eps), atol=1e-6)


@pytest.mark.parametrize("name", ERRORS)
def test_gradients_of_errors_are_those_of_differences(name):
    loss = DenoisingLoss(denoiser(parameterization="v"), error=name, weight=MinSNR(5.0))
    x0, key = jnp.linspace(-1.0, 1.0, 1200).reshape(300, 4), jax.random.key(1)

    def at(scale):
        return loss(lambda x, c, cond, *, key: scale * jnp.sin(x), x0, key=key)

    with jax.enable_x64(True):
        x0 = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)
        found = float(jax.grad(at)(jnp.asarray(0.7)))
        quotient = float(at(jnp.asarray(0.7 + 1e-5)) - at(jnp.asarray(0.7 - 1e-5))) / 2e-5
    assert found == pytest.approx(quotient, rel=1e-4)


def test_unknown_errors_and_impossible_probabilities_are_refused():
    with pytest.raises(
        ValueError, match="unknown error 'l2'; choose one of mse, l1, huber, pseudo_huber"
    ):
        DenoisingLoss(denoiser(), error="l2")
    for wrong in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError, match="label_dropout is a probability"):
            DenoisingLoss(denoiser(null=0), label_dropout=wrong)


def test_weights_are_their_formulas():
    """On the error of the output: 1, snr·c_out² and min(snr, gamma)·c_out²."""
    level = LINEAR.at(jnp.asarray([0.01, 0.2, 0.5, 0.9]))
    snr = np.exp(np.asarray(level.log_snr, np.float64))
    for name, known in (
        ("epsilon", (np.ones(4), np.minimum(snr, 5.0) / snr)),
        ("v", (snr / (snr + 1.0), np.minimum(snr, 5.0) / (snr + 1.0))),
        ("x0", (snr, np.minimum(snr, 5.0))),
    ):
        c_out = denoiser(parameterization=name).coefficients(level).c_out
        np.testing.assert_allclose(Uniform()(level, c_out), 1.0)
        np.testing.assert_allclose(SNR()(level, c_out), known[0], rtol=1e-4)
        np.testing.assert_allclose(MinSNR(5.0)(level, c_out), known[1], rtol=1e-4)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_every_pair_has_a_finite_loss_and_gradient_at_its_ends(name):
    """At t = 1 and the first timestep, which stratified levels of a large batch reach in every step."""
    allowed = [schedule for s, schedule in SCHEDULES.items() if (s, name) not in refused_pairs()]
    assert len(allowed) >= 7
    x0 = jnp.tile(jnp.linspace(-1.0, 1.0, 4)[None], (1000, 1))

    @jax.jit
    def step(which, weight):
        schedule = AnySchedule(tuple(allowed), which)
        loss = DenoisingLoss(
            Denoiser(no_network, schedule, PARAMETERIZATIONS[name]), weight=MinSNR(5.0)
        )

        def value(weight):
            def network(x, c_noise, cond, *, key):
                return jnp.tanh(weight * x)

            return loss(network, x0, key=jax.random.key(3))

        return jax.value_and_grad(value)(weight)

    values = jax.vmap(step, in_axes=(0, None))(jnp.arange(len(allowed)), jnp.asarray(0.7))
    assert np.isfinite(values).all(), values


# Label dropout, from the configuration to what the network is shown.


class Recorder(eqx.Module):
    """Counts how many conditions that reach the network are the null one, by its output."""

    null: int = eqx.field(static=True)

    def __call__(self, x, c_noise, cond, *, key):
        return jnp.where(
            (cond == self.null).reshape(-1, *(1,) * (x.ndim - 1)), 100.0, 0.0
        ) * jnp.ones_like(x)


def share_dropped(loss, null, count=4000):
    """The share of dropped labels, found from the loss: a dropped one gives an error of 100²."""
    x0, labels = jnp.zeros((count, 1)), jnp.arange(count, dtype=jnp.int32) % null
    value = float(loss(Recorder(null), x0, labels, key=jax.random.key(11)))
    return value / 100.0**2


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5])
def test_labels_are_dropped_as_often_as_asked(probability):
    loss = DenoisingLoss(denoiser(null=7), label_dropout=probability)
    assert share_dropped(loss, 7) == pytest.approx(probability, abs=0.02)


def test_label_dropout_is_wired_from_the_configuration():
    config = DDIMConfig(
        backbone=UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8, num_classes=7),
        input_shape=(1, 1, 1),
    )
    for probability in (0.0, 0.3):
        training = TrainingConfig(steps=1, label_dropout=probability, loss_weighting="uniform")
        loss = training_loss(denoiser(null=7), config, training)
        assert share_dropped(loss, 7) == pytest.approx(probability, abs=0.03)
        # A model without a null condition has nothing to drop to.
        assert training_loss(denoiser(), config, training).label_dropout == 0.0


def test_a_dropped_label_takes_the_whole_condition_with_it():
    cond = {"label": jnp.arange(1000, dtype=jnp.int32), "text": jnp.ones((1000, 3))}
    null = {"label": 1000, "text": np.zeros(3, np.float32)}
    found = drop_cond(Draws.of(jax.random.key(0), 1000), cond, null, 0.4)
    dropped = np.asarray(found["label"] == 1000)
    assert dropped.mean() == pytest.approx(0.4, abs=0.05)
    np.testing.assert_array_equal(np.asarray(found["text"])[:, 0] == 0.0, dropped)
    np.testing.assert_array_equal(found["label"][~dropped], np.arange(1000)[~dropped])
    with pytest.raises(ValueError, match=r"no condition that stands for none.*null="):
        drop_cond(Draws.of(jax.random.key(0), 1000), cond["label"], None, 0.4)


def test_a_loss_without_labels_shows_the_null_condition():
    loss = DenoisingLoss(denoiser(null=7))
    value = float(loss(Recorder(7), jnp.zeros((8, 1)), key=jax.random.key(0)))
    assert value == pytest.approx(100.0**2, rel=0.1)


def test_the_error_of_the_configuration_is_used():
    for name in ERRORS:
        config = DDIMConfig(
            backbone=UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8),
            input_shape=(1, 1, 1),
            loss_type=name,
        )
        loss = training_loss(denoiser(), config, TrainingConfig(steps=1))
        assert not isinstance(loss, HybridLoss)
        assert loss.error == name
