"""Laws of one training step: parts of a batch, float16, averages, optimisers, memory."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_eqx.config import (
    OPTIMIZERS,
    DiTBackboneConfig,
    TrainingConfig,
    UNetBackboneConfig,
)
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.losses import DenoisingLoss, MinSNR
from diffusion_eqx.models import build_backbone
from diffusion_eqx.nn import MLP, rematerialized
from diffusion_eqx.parameterizations import VPrediction
from diffusion_eqx.training import (
    ExponentialAverage,
    LossScale,
    PowerAverage,
    averaged,
    build_optimizer,
    decayed,
    gamma_of,
    learning_rate,
    make_recipe,
    matrix_axes,
    train_step,
)
from tests.catalogue import SCHEDULES
from tests.networks import small_dit

BACKBONES = {
    "unet": UNetBackboneConfig(
        hidden_dims=(8,),
        time_embedding_dim=8,
        attention_resolutions=(8,),
        num_classes=3,
        dropout=0.3,
    ),
    "dit": DiTBackboneConfig(
        hidden_size=16,
        depth=2,
        num_heads=2,
        patch_size=2,
        num_classes=3,
        dropout_rate=0.3,
        in_channels=1,
    ),
}


# Both kinds; the U-Net takes long to compile.
KINDS = [pytest.param("unet", marks=pytest.mark.long), "dit"]


def backbone(kind: str):
    network = build_backbone(BACKBONES[kind], (8, 8), key=jax.random.key(0))
    # Layers that begin at zero would hide a wrong gradient behind them.
    arrays, rest = eqx.partition(network, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(arrays)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        leaf + 0.05 * jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return eqx.combine(jax.tree.unflatten(structure, leaves), rest)


def loss_for(network) -> DenoisingLoss:
    shell = Denoiser(network, SCHEDULES["vp"], VPrediction(), null=3)
    return DenoisingLoss(shell, weight=MinSNR(5.0), label_dropout=0.2)


def config(**changes) -> TrainingConfig:
    return TrainingConfig(**({"steps": 50, "batch_size": 64, "warmup_steps": 0} | changes))


def batch(count: int = 64):
    key = jax.random.key(5)
    images = jnp.tanh(jax.random.normal(key, (count, 8, 8, 1)))
    return images, jnp.arange(count, dtype=jnp.int32) % 3


def copied(state):
    return jax.tree.map(lambda a: jnp.copy(a) if eqx.is_array(a) else a, state)


def gradient(network, images, labels, **options):
    """The gradient of a step, from the weights after one step of plain descent with rate 1."""
    recipe = make_recipe(config(**options), loss_for(network), optax.sgd(1.0))
    state = recipe.init(network, key=jax.random.key(2))
    state, metrics = train_step(recipe, state, images, labels)
    arrays = (eqx.filter(tree, eqx.is_inexact_array) for tree in (network, state.network))
    return jax.tree.map(lambda a, b: a - b, *arrays), metrics


def relative(one, other) -> float:
    difference = jax.tree.map(lambda a, b: a - b, one, other)
    return float(optax.tree.norm(difference) / optax.tree.norm(one))


# Parts of a batch.


@pytest.mark.parametrize("kind", KINDS)
def test_four_parts_of_sixteen_are_one_batch_of_sixty_four(kind):
    """With dropout, dropped labels and random levels: each row draws its own numbers."""
    network = backbone(kind)
    images, labels = batch()
    whole, metrics = gradient(network, images, labels)
    parts, metrics_of_parts = gradient(network, images, labels, accumulation=4)
    assert relative(whole, parts) < 1e-6
    assert float(metrics["loss"]) == pytest.approx(float(metrics_of_parts["loss"]), rel=1e-6)
    other, _ = gradient(network, images, labels[::-1])
    assert relative(whole, other) > 1e-2


def test_a_batch_that_does_not_divide_into_parts_is_refused():
    with pytest.raises(ValueError, match="batch_size=64 cannot be cut into accumulation=5"):
        config(accumulation=5)


@pytest.mark.long
@pytest.mark.parametrize("option", ["learned_uncertainty", "loss_aware_times"])
def test_adaptive_losses_learn_the_same_from_parts(option):
    network = backbone("dit")
    images, labels = batch()
    states = []
    for parts in (1, 4):
        recipe = make_recipe(config(accumulation=parts, **{option: True}), loss_for(network))
        state = recipe.init(network, key=jax.random.key(2))
        start = copied(state.learned)
        for _ in range(2):
            state, _ = train_step(recipe, state, images, labels)
        states.append(state)
    whole, parts = (eqx.filter(state.learned, eqx.is_inexact_array) for state in states)
    assert relative(whole, parts) < 1e-5
    assert relative(whole, eqx.filter(start, eqx.is_inexact_array)) > 1e-6


def test_an_adaptive_option_needs_a_loss_whose_levels_are_known():
    with pytest.raises(TypeError, match=r"DenoisingLoss or a HybridLoss.*got a function"):
        make_recipe(config(loss_aware_times=True), lambda network, x0, cond, *, key: 0.0)


# Precision.


@pytest.mark.parametrize("parts", [1, 4])
def test_an_overflow_in_float16_skips_the_step_and_touches_nothing_else(parts):
    network = backbone("dit")
    images, labels = batch()
    recipe = make_recipe(
        config(
            precision="float16", accumulation=parts, learned_uncertainty=True, loss_aware_times=True
        ),
        loss_for(network),
    )
    state = recipe.init(network, key=jax.random.key(2))
    state, metrics = train_step(recipe, state, images, labels)
    assert np.isfinite(float(metrics["grad_norm"]))
    assert (int(state.step), int(state.updates)) == (1, 1)
    before = copied(state)
    # One number of one image of the last part.
    state, metrics = train_step(recipe, state, images.at[-1, 0, 0, 0].set(jnp.inf), labels)
    assert not np.isfinite(float(metrics["grad_norm"]))
    assert (int(state.step), int(state.updates)) == (2, 1)
    assert float(state.loss_scale.value) == 0.5 * float(before.loss_scale.value)
    touched = {"step", "loss_scale"}
    for field in dataclasses.fields(state):
        same = eqx.tree_equal(getattr(state, field.name), getattr(before, field.name))
        assert bool(same) == (field.name not in touched), field.name
    state, _ = train_step(recipe, state, images, labels)
    assert (int(state.step), int(state.updates)) == (3, 2)


def test_the_loss_scale_grows_and_is_exhausted_at_last():
    scale = LossScale.start(growth_interval=3)
    yes, no = jnp.asarray(True), jnp.asarray(False)
    values = []
    for ok in [yes] * 7:
        scale = scale.after(ok)
        values.append(float(scale.value) / 2**15)
    assert values == [1, 1, 2, 2, 2, 4, 4]
    for _ in range(17):
        scale = scale.after(no)
    assert float(scale.value) == 1.0
    assert bool(scale.exhausted(17))
    assert not bool(scale.exhausted(18))
    assert not bool(scale.after(yes).exhausted(1))


def test_float16_that_overflows_at_every_scale_halts():
    network = backbone("dit")
    images, labels = batch(4)
    recipe = make_recipe(config(precision="float16"), loss_for(network))
    state = recipe.init(network, key=jax.random.key(2))
    for _ in range(40):
        state, _ = train_step(recipe, state, jnp.full_like(images, jnp.nan), labels)
    assert bool(state.halted)
    assert int(state.updates) == 0
    arrays = eqx.filter(state.network, eqx.is_inexact_array)
    assert all(np.isfinite(array).all() for array in jax.tree.leaves(arrays))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_gradients_in_half_precision_are_near_those_in_float32(kind, precision):
    network = backbone(kind)
    images, labels = batch(16)
    exact, metrics = gradient(network, images, labels)
    found, metrics_of_half = gradient(network, images, labels, precision=precision)
    assert {a.dtype for a in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    assert relative(exact, found) < {"bfloat16": 5e-2, "float16": 1e-2}[precision]
    loss = float(metrics["loss"])
    assert float(metrics_of_half["loss"]) == pytest.approx(loss, rel=2e-2)
    assert float(metrics_of_half["loss"]) != loss


# Averages.


def test_known_lengths_of_power_averages():
    """Those of Karras et al. (2024), section 3.1."""
    assert gamma_of(0.05) == pytest.approx(16.97, abs=5e-3)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=5e-3)
    for wrong in (0.0, 0.3, -1.0):
        with pytest.raises(ValueError, match="relative width"):
            PowerAverage(1, wrong)


def test_a_power_average_weighs_by_a_power_of_the_step():
    values = np.random.default_rng(0).normal(size=200)
    for sigma_rel in (0.05, 0.1, 0.25):
        average, found = PowerAverage(1, sigma_rel), 0.0
        for n, value in enumerate(values):
            decay = float(average.decay(jnp.asarray(n)))
            found = decay * found + (1 - decay) * value
        # The continuous weighting t^gamma, integrated over each step.
        t = np.arange(201) / 200
        mass = np.diff(t ** (gamma_of(sigma_rel) + 1.0))
        assert found == pytest.approx(np.sum(mass * values), abs=1e-5)
        middle = (t[1:] + t[:-1]) / 2
        mean = np.sum(mass * middle)
        assert np.sqrt(np.sum(mass * (middle - mean) ** 2)) == pytest.approx(sigma_rel, rel=2e-2)


def test_a_half_life_in_images_does_not_depend_on_the_batch():
    for size, every in ((16, 1), (64, 2), (128, 1)):
        average = ExponentialAverage.of_halflife(1280.0, size, every)
        moves = 1280 // (size * every)
        assert average.target**moves == pytest.approx(0.5)
    recipe = make_recipe(
        config(batch_size=64, ema_halflife=640.0), lambda network, x0, cond, *, key: 0.0
    )
    assert dict(recipe.averages)["ema"].target == pytest.approx(2**-0.1)


def test_a_run_keeps_several_averages():
    network = MLP(2, width=16, depth=1, embedding_dim=8, key=jax.random.key(0))
    loss = DenoisingLoss(Denoiser(network, SCHEDULES["vp"], VPrediction()))
    recipe = make_recipe(config(ema_lengths=(0.05, 0.1)), loss)
    state = recipe.init(network, key=jax.random.key(1))
    assert list(state.averages) == ["ema", "length-0.05", "length-0.1"]
    history = []
    for _ in range(12):
        state, _ = train_step(recipe, state, jnp.ones((8, 2)))
        history.append(np.asarray(state.network.linear_in.weight))
    for length in (0.05, 0.1):
        mass = np.diff((np.arange(13) / 12) ** (gamma_of(length) + 1.0))
        expected = sum(m * w for m, w in zip(mass, history, strict=True))
        found = averaged(state, f"length-{length:g}").linear_in.weight
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"keeps no average 'fast'; there are: ema, length-0\.05"):
        averaged(state, "fast")


# Optimisers.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_and_decays_matrices_only(name):
    network = backbone("dit")
    images, labels = jnp.full((16, 8, 8, 1), 0.7), batch(16)[1]
    rate = {"lion": 1e-3, "sgd": 3e-2}.get(name, 1e-2)
    settings = config(optimizer=name, learning_rate=rate, ema_decay=0.5)
    recipe = make_recipe(settings, loss_for(eqx.nn.inference_mode(network)))
    state = recipe.init(network, key=jax.random.key(2))
    losses = []
    for _ in range(25):
        state, metrics = train_step(recipe, state, images, labels)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    # The gradient is zero: only decay moves weights.
    parameters = eqx.filter(network, eqx.is_inexact_array)
    optimizer = build_optimizer(
        config(optimizer=name, weight_decay=0.1, learning_rate_schedule="constant")
    )
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(zeros, optimizer.init(parameters), parameters)
    moved = jax.tree.map(lambda u: bool(np.abs(u).max() > 2e-6), updates)
    assert jax.tree.leaves(moved) == jax.tree.leaves(decayed(parameters))


def test_muon_makes_matrices_orthogonal_and_leaves_the_rest_to_adam():
    """Of stacked blocks each one by itself: the singular values of an update are alike."""
    network = backbone("dit")
    parameters = eqx.filter(network, eqx.is_inexact_array)
    keys = iter(jax.random.split(jax.random.key(0), 100))
    gradient = jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape), parameters)
    optimizer = build_optimizer(config(optimizer="muon", max_grad_norm=None))
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(gradient, optimizer.init(parameters), parameters)
    for stacked in updates.stack.blocks.qkv.weight:
        values = np.linalg.svd(np.asarray(stacked), compute_uv=False)
        assert values.max() / values.min() < 2.0
        values = np.linalg.svd(np.asarray(gradient.stack.blocks.qkv.weight[0]), compute_uv=False)
        assert values.max() / values.min() > 2.0
    # Adam's first update has one size.
    sizes = np.abs(np.asarray(updates.stack.blocks.qkv.bias))
    np.testing.assert_allclose(sizes, sizes.max(), rtol=1e-3)
    table = np.abs(np.asarray(updates.embedding.classes.table))
    np.testing.assert_allclose(table, table.max(), rtol=1e-3)


def test_axes_of_matrices_are_those_that_the_layer_sums_over():
    layers = {
        "linear": build_backbone(BACKBONES["dit"], (8, 8), key=jax.random.key(0)).out,
        "conv": build_backbone(BACKBONES["unet"], (8, 8), key=jax.random.key(0)).conv_in,
        "eqx linear": eqx.nn.Linear(3, 5, key=jax.random.key(0)),
        "eqx conv": eqx.nn.Conv2d(3, 5, 3, key=jax.random.key(0)),
    }
    found = {name: matrix_axes(layer).weight for name, layer in layers.items()}
    assert found == {
        "linear": ((0,), 1),
        "conv": ((0, 1, 2), 3),
        "eqx linear": ((1,), 0),
        "eqx conv": ((1, 2, 3), 0),
    }


def test_schedule_free_averages_the_weights_that_count():
    """Not those at which gradients are taken: `averages` follow optax's evaluation weights."""
    network = MLP(2, width=16, depth=1, embedding_dim=8, key=jax.random.key(0))
    loss = DenoisingLoss(Denoiser(network, SCHEDULES["vp"], VPrediction()))
    recipe = make_recipe(config(optimizer="schedule_free", ema_decay=0.0), loss)
    state = recipe.init(network, key=jax.random.key(1))
    for _ in range(10):
        state, _ = train_step(recipe, state, jnp.ones((8, 2)))
    parameters = eqx.filter(state.network, eqx.is_inexact_array)
    expected = optax.contrib.schedule_free_eval_params(state.opt_state, parameters)
    found = eqx.filter(averaged(state), eqx.is_inexact_array)
    assert relative(expected, found) < 1e-6
    assert relative(parameters, found) > 1e-3
    with pytest.raises(ValueError, match=r"schedule_free.*leave learning_rate_schedule out"):
        config(optimizer="schedule_free", learning_rate_schedule="cosine")


def test_learning_rates_are_their_formulas():
    usual = {"steps": 100, "learning_rate": 0.1, "warmup_steps": 10}
    cosine = learning_rate(config(**usual))
    assert float(cosine(0)) == 0.0
    assert float(cosine(10)) == pytest.approx(0.1)
    assert float(cosine(55)) == pytest.approx(0.05)
    assert float(cosine(100)) == pytest.approx(0.0, abs=1e-8)
    constant = learning_rate(config(learning_rate_schedule="constant", **usual))
    assert float(constant(4)) == pytest.approx(0.1 * 5 / 11)
    assert float(constant(90)) == pytest.approx(0.1)
    root = learning_rate(config(learning_rate_schedule="inverse_sqrt", decay_start=20, **usual))
    assert float(root(20)) == pytest.approx(0.1)
    assert float(root(80)) == pytest.approx(0.05)


def test_gradients_are_not_clipped_unless_asked():
    parameters = {"w": jnp.ones(3)}
    plain, clipped = (
        build_optimizer(
            config(optimizer="sgd", max_grad_norm=norm, b1=0.0, learning_rate_schedule="constant")
        )
        for norm in (None, 1.0)
    )
    sizes = []
    for optimizer in (plain, clipped):
        with jax.numpy_dtype_promotion("standard"):
            updates, _ = optimizer.update(
                {"w": 100 * jnp.ones(3)}, optimizer.init(parameters), parameters
            )
        sizes.append(float(optax.tree.norm(updates)))
    assert sizes[0] == pytest.approx(100 * np.sqrt(3) * sizes[1], rel=1e-4)


# Memory.


@pytest.mark.parametrize("kind", KINDS)
def test_a_rematerialized_network_has_the_same_gradient(kind):
    network = backbone(kind)
    images, labels = batch(16)
    usual, _ = gradient(network, images, labels)
    again, _ = gradient(network, images, labels, rematerialize=True)
    assert relative(usual, again) < 1e-5


def test_a_rematerialized_network_takes_less_memory():
    network = small_dit(in_channels=1, out_channels=1, dim=64, depth=8, heads=4, num_classes=None)
    images = jnp.ones((64, 16, 16, 1))

    def memory(change) -> int:
        def loss(network):
            return jnp.sum(change(network)(images, jnp.zeros(64), None) ** 2)

        compiled = eqx.filter_jit(eqx.filter_grad(loss)).lower(network).compile()
        return compiled.compiled.memory_analysis().temp_size_in_bytes

    assert memory(rematerialized) < 0.5 * memory(lambda network: network)


# Augmentation.


def test_images_are_changed_as_asked_by_their_own_keys():
    from diffusion_eqx.data import Augmentation

    image = jnp.linspace(-1.0, 1.0, 5 * 4 * 3).reshape(5, 4, 3)
    images, keys = jnp.stack([image] * 400), jax.random.split(jax.random.key(0), 400)
    flipped = np.asarray(Augmentation(flip=True)(images, keys))
    mirrored = (flipped == np.asarray(image[:, ::-1])).all(axis=(1, 2, 3))
    same_as_before = (flipped == np.asarray(image)).all(axis=(1, 2, 3))
    assert 0.4 < mirrored.mean() < 0.6
    assert (mirrored ^ same_as_before).all()
    shifted = np.asarray(Augmentation(shift=1)(images, keys))
    padded = np.pad(np.asarray(image), ((1, 1), (1, 1), (0, 0)), mode="symmetric")
    windows = [padded[y : y + 5, x : x + 4] for y in range(3) for x in range(3)]
    counts = [(shifted == window).all(axis=(1, 2, 3)).sum() for window in windows]
    assert sum(counts) == 400
    assert min(counts) > 20
    jittered = np.asarray(Augmentation(jitter=0.3)(0.5 * images, keys))
    assert np.abs(jittered).max() <= 1.0
    light = jittered.mean(axis=(1, 2, 3)) + 1.0
    assert 0.69 < light.min() < 0.75
    assert 1.25 < light.max() < 1.31
    alone = Augmentation(flip=True, shift=1, jitter=0.3)(images[7:8], keys[7:8])
    together = Augmentation(flip=True, shift=1, jitter=0.3)(images, keys)
    np.testing.assert_allclose(alone[0], together[7], atol=1e-6)
    for wrong in ({"shift": -1}, {"jitter": 1.0}):
        with pytest.raises(ValueError, match=r"shift is a number|jitter is a share"):
            Augmentation(**wrong)


def test_parts_of_a_batch_are_augmented_as_the_whole():
    network = backbone("dit")
    images, labels = batch()
    options = {"flip": True, "shift": 1}
    whole, _ = gradient(network, images, labels, **options)
    parts, _ = gradient(network, images, labels, accumulation=4, **options)
    plain, _ = gradient(network, images, labels)
    assert relative(whole, parts) < 1e-6
    assert relative(whole, plain) > 1e-2
