"""Models: what they draw, what they refuse, and that a file restores the very model."""

import dataclasses
import hashlib
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from diffusion_eqx.config import (
    DDIMConfig,
    DDPMConfig,
    DiTConfig,
    LDMConfig,
    NoiseScheduleConfig,
    SamplerConfig,
    ScoreDiffusionConfig,
    TrainingConfig,
    UNetBackboneConfig,
)
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.guidance import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    DynamicThresholding,
    Guided,
)
from diffusion_eqx.losses import SNR, MinSNR, Uniform, training_loss
from diffusion_eqx.models import (
    DDIMModel,
    DDPMModel,
    DiTModel,
    LDMModel,
    ModelFileError,
    ScoreDiffusionModel,
    load_model,
    read_record,
    save_model,
)
from diffusion_eqx.parameterizations import EDMPrediction, EpsilonPrediction
from diffusion_eqx.samplers import DDIMSampler, KarrasGrid, draw, image_keys, sample
from diffusion_eqx.schedules import DiscreteSchedule, VESchedule, cosine_betas
from tests.own_schedule import OwnSchedule
from tests.perturbed import perturbed


def make(model_class, config, key):
    model = model_class(config, key=key)
    noisy = perturbed(model.denoiser.backbone, key=key, scale=0.05)
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, noisy)


def with_config(model, **changes):
    """The same model under a configuration with some fields changed."""
    config = dataclasses.replace(model.config, **changes)
    other = eqx.filter_eval_shape(type(model), config, key=jax.random.key(0))
    return eqx.tree_at(lambda m: m.denoiser, other, model.denoiser)


@pytest.fixture
def model(small_config, getkey):
    return make(DDIMModel, small_config, getkey())


def test_a_configuration_written_out_draws_images(getkey):
    config = DDPMConfig(
        name="ddpm_mnist",
        backbone=UNetBackboneConfig(
            name="unet_backbone",
            hidden_dims=(8, 16, 32),
            activation="gelu",
            in_channels=1,
            out_channels=1,
            time_embedding_dim=16,
            attention_resolutions=(16, 8),
            num_res_blocks=2,
            channel_mult=(1, 2, 4),
        ),
        noise_schedule=NoiseScheduleConfig(schedule_type="linear", num_timesteps=20),
        input_shape=(28, 28, 1),
        loss_type="mse",
        clip_denoised=True,
    )
    samples = DDPMModel(config, key=getkey()).generate(n_samples=4, key=getkey())
    assert samples.shape == (4, 28, 28, 1)
    assert float(jnp.abs(samples).max()) <= 1.0
    assert float(samples.std()) > 0.1


def test_forward_diffusion_has_the_moments_of_its_timestep(getkey):
    config = DDPMConfig(
        backbone=UNetBackboneConfig(hidden_dims=(8,), in_channels=3, out_channels=3),
        input_shape=(32, 32, 3),
    )
    model = DDPMModel(config, key=getkey())
    x = jnp.ones((4, 32, 32, 3))
    timesteps = jnp.array([0, 200, 400, 999])
    noisy, noise = model.forward_diffusion(x, timesteps, key=getkey())
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[np.asarray(timesteps)]
    np.testing.assert_allclose(noisy.mean((1, 2, 3)), np.sqrt(alpha_bar), atol=0.06)
    np.testing.assert_allclose(noisy.std((1, 2, 3)), np.sqrt(1 - alpha_bar), rtol=0.06)
    expected = np.sqrt(alpha_bar)[:, None, None, None] * x
    expected += np.sqrt(1 - alpha_bar)[:, None, None, None] * noise
    np.testing.assert_allclose(noisy, expected, atol=1e-5)


def test_every_way_of_sampling(model, getkey):
    key, labels = getkey(), jnp.arange(4)
    ddim = model.sample(4, "ddim", steps=5, key=key, labels=labels, guidance=2.0)
    same = (
        model.sample((4, 8, 8, 1), "ddim", steps=5, key=key, labels=labels, guidance=2.0),
        model.sample(4, DDIMSampler(), steps=5, key=key, labels=labels, guidance="cfg"),
        model.sample(
            4, "ddim", steps=5, key=key, labels=labels, guidance="cfg", guidance_scale=2.0
        ),
        model.sample(
            4, "ddim", steps=5, key=key, labels=labels, guidance=ClassifierFreeGuidance(2.0)
        ),
        model.sample(4, "ddim", steps=5, key=key, cond={"label": labels}, guidance=2.0),
    )
    for other in same:
        np.testing.assert_array_equal(ddim, other)
    for other in (
        model.sample(4, "ddpm", steps=5, key=key, labels=labels, guidance=2.0),
        model.sample(4, "ddim", steps=5, key=key, labels=labels, guidance=2.0, eta=1.0),
        model.sample(4, "ddim", steps=5, key=key, labels=labels),
        model.sample(4, "ddim", steps=5, key=key, labels=labels + 1, guidance=2.0),
        model.sample(4, "ddim", steps=5, key=key, labels=labels, guidance=2.0, grid=KarrasGrid()),
        model.sample(
            4,
            "ddim",
            steps=5,
            key=key,
            labels=labels,
            guidance=(ClassifierFreeGuidance(6.0), DynamicThresholding()),
        ),
    ):
        assert other.shape == ddim.shape
        assert float(jnp.abs(other - ddim).max()) > 1e-3


def test_one_label_is_for_all_images(model, getkey):
    key = getkey()
    np.testing.assert_array_equal(
        model.sample(3, steps=3, labels=2, key=key),
        model.sample(3, steps=3, labels=[2, 2, 2], key=key),
    )


def test_no_labels_are_the_null_condition(model, getkey):
    key = getkey()
    np.testing.assert_array_equal(
        model.sample(3, steps=3, key=key), model.sample(3, steps=3, labels=10, key=key)
    )


def test_the_recommended_sampler_is_that_of_the_configuration(model, getkey):
    key = getkey()
    np.testing.assert_array_equal(
        model.sample(3, key=key), model.sample(3, "ddim", steps=10, key=key, eta=0.0)
    )
    np.testing.assert_array_equal(model.generate(3, key=key), model.sample(3, key=key))
    recipe = SamplerConfig(name="dpm++2m-sde", steps=4, numbers=(("eta", 0.5),))
    other = with_config(model, sampler=recipe)
    np.testing.assert_array_equal(
        other.sample(3, key=key), model.sample(3, "dpm++2m-sde", steps=4, eta=0.5, key=key)
    )


def test_batches_are_one_sample_in_parts(model, getkey):
    key, labels = getkey(), np.arange(10)
    whole = model.sample(10, steps=3, labels=labels, key=key)
    parts = list(model.sample_batches(10, batch=4, steps=3, labels=labels, key=key))
    assert [len(part) for part in parts] == [4, 4, 2]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)
    rest = model.sample(2, steps=3, labels=labels[8:], first=8, key=key)
    np.testing.assert_allclose(rest, whole[8:], atol=1e-5)


def test_guidance_of_one_is_the_conditional_sample(model, getkey):
    key, labels = getkey(), jnp.arange(4)
    guided = model.sample(4, "ddim", steps=5, key=key, labels=labels, guidance=1.0)
    plain = model.sample(4, "ddim", steps=5, key=key, labels=labels)
    np.testing.assert_allclose(guided, plain, atol=1e-5)


def test_outside_its_interval_guidance_is_the_conditional_sample(model, getkey):
    never = with_config(model, guidance_interval=(0.0, 1e-4))
    key, labels = getkey(), jnp.arange(4)
    np.testing.assert_allclose(
        never.sample(4, steps=5, key=key, labels=labels, guidance=5.0),
        model.sample(4, steps=5, key=key, labels=labels),
        atol=1e-5,
    )
    for name in ("cfg", "apg"):
        guidance = never.guidance(name)[0]
        assert guidance.interval == (0.0, 1e-4)


def test_a_trajectory_ends_with_the_sample(model, getkey):
    key = getkey()
    path = model.trajectory(2, "ddim", steps=10, every=4, key=key)
    assert path.shape == (4, 2, 8, 8, 1)
    final = model.sample(2, "ddim", steps=10, key=key)
    np.testing.assert_allclose(path[-1], final, atol=1e-5)
    np.testing.assert_array_equal(path, model.progressive(2, "ddim", every=4, steps=10, key=key))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, k: m.sample(2, "no-such", key=k), "unknown sampler"),
        (lambda m, k: m.sample(2, "ddpm", steps=5, key=k, eta=0.5), "no option 'eta'"),
        (lambda m, k: m.sample(2, steps=5, key=k, eta=1.5), "eta must be between 0 and 1"),
        (lambda m, k: m.sample(2, steps=5, key=k, grid="no-such"), "unknown grid"),
        (lambda m, k: m.sample(2, steps=5, key=k, guidance="no-such"), "unknown guidance"),
        (lambda m, k: m.sample(2, steps=5, key=k, rescale=0.5), "no option 'rescale'"),
        (lambda m, k: m.sample(2, "ddim", steps=2000, key=k), "1 and the 1000"),
        (lambda m, k: m.sample(2, "ddim", steps=0, key=k), "at least 1"),
        (lambda m, k: m.sample(2, "ddim", steps=-3, key=k), "at least 1"),
        (lambda m, k: m.sample(0, "ddim", steps=5, key=k), "at least 1"),
        (lambda m, k: m.sample((2, 9, 8, 1), "ddim", steps=5, key=k), r"\(8, 8, 1\)"),
        (lambda m, k: m.sample(2, steps=5, key=k, labels=jnp.arange(3)), "one for all 2 images"),
        (lambda m, k: m.sample(2, steps=5, key=k, labels=11), "10 means no class"),
        (lambda m, k: m.sample(2, steps=5, key=k, labels=-1), "10 means no class"),
        (lambda m, k: m.sample(2, steps=5, key=k, labels=1.0), "labels are integers"),
        (lambda m, k: m.sample(2, steps=5, key=k, labels=1, cond={"label": 2}), "given twice"),
        (lambda m, k: m.sample(2, steps=5, key=k, cond={"text": 2}), "cond holds 'text'"),
        (lambda m, k: m.sample(2, steps=5, key=k, guidance=2.0), "needs a condition"),
        (lambda m, k: m.sample(2, "unipc", steps=5, key=k, guidance="cfg++", labels=1), "misread"),
        (
            lambda m, k: m.sample(
                2, steps=5, key=k, guidance=ClassifierGuidance(lambda x, level: x[:, 0, :, 0])
            ),
            "class_label",
        ),
        (lambda m, k: list(m.sample_batches(2, batch=0, key=k)), "batch must be"),
        (lambda m, k: m.ddim_sample(key=k), "give either"),
        (lambda m, k: m.ddim_sample(3, noise=jnp.zeros((2, 8, 8, 1))), "contradicts"),
        (
            lambda m, k: m.generate(2, y=jnp.zeros(2, int), labels=jnp.zeros(2, int), key=k),
            "same thing",
        ),
        (
            lambda m, k: m(jnp.zeros((1, 8, 8, 1)), jnp.array([1000])),
            r"timestep lies in \[0, 999\]",
        ),
        (lambda m, k: m.q_sample(jnp.zeros((1, 8, 8, 1)), jnp.array([-1]), key=k), "timestep"),
        (lambda m, k: m.q_sample(jnp.zeros((1, 8, 8, 1)), jnp.array([1])), "either noise"),
    ],
)
def test_wrong_calls_are_refused(model, call, message, getkey):
    with pytest.raises(ValueError, match=message):
        call(model, getkey())


def test_guidance_of_an_unconditional_model_is_refused(getkey):
    config = DDPMConfig(backbone=UNetBackboneConfig(hidden_dims=(8,)), input_shape=(8, 8, 1))
    model = DDPMModel(config, key=getkey())
    with pytest.raises(ValueError, match="this one is unconditional"):
        model.sample(2, "ddim", steps=5, key=getkey(), guidance=2.0)
    with pytest.raises(ValueError, match="the model is unconditional"):
        model.sample(2, "ddim", steps=5, key=getkey(), labels=1)


def test_inversion_of_a_network_returns_the_image(model, getkey):
    model = with_config(model, clip_denoised=False)
    images = jnp.clip(0.5 * jax.random.normal(getkey(), (2, 8, 8, 1)), -1, 1)
    labels = jnp.array([1, 2])
    errors = []
    for iterations in (1, 3, 12):
        noise = model.ddim_reverse(images, 50, iterations=iterations, labels=labels)
        returned = model.ddim_sample(steps=50, noise=noise, labels=labels)
        errors.append(float(jnp.abs(returned - images).max()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3, errors


def test_both_ways_of_ddim_limit_x0_alike(model, getkey):
    """Fresh noise and given noise take one road: the same noise gives the same image."""
    key = getkey()
    assert model.config.clip_denoised
    noise = draw(image_keys(key, 3), 0, (8, 8, 1))
    np.testing.assert_allclose(
        model.ddim_sample(3, 5, key=key), model.ddim_sample(steps=5, noise=noise), atol=1e-6
    )


def test_a_model_calls_its_network_as_training_does(getkey):
    """At noise that is not of unit variance the network is shown c_in·x."""
    config = ScoreDiffusionConfig(
        backbone=UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8),
        input_shape=(4, 4, 1),
        sigma_max=20.0,
    )
    model = make(ScoreDiffusionModel, config, getkey())
    x, timesteps = jax.random.normal(getkey(), (2, 4, 4, 1)), jnp.array([10, 900])
    level = model.schedule.at_timestep(timesteps)
    scaled = x / jnp.sqrt(1 + level.over(x).sigma ** 2)
    direct = model.denoiser.backbone(scaled, timesteps.astype(float), None, key=None)
    np.testing.assert_allclose(model(x, timesteps), direct, rtol=1e-4, atol=1e-5)


def test_ancestral_steps_by_integer_timesteps_are_ddpm(getkey):
    """The Gaussian of a step is that of Ho et al. (2020, eqs. 6-7), by their own formulas."""
    config = DDPMConfig(
        backbone=UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8),
        input_shape=(4, 4, 1),
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine", num_timesteps=10),
    )
    model = make(DDPMModel, config, getkey())
    x, t = jax.random.normal(getkey(), (2, 4, 4, 1)), jnp.array([5, 0])
    found = model.p_mean_variance(x, t)
    ab = np.cumprod(1 - cosine_betas(10))
    beta = cosine_betas(10)
    eps = model.predicted_noise(x, t)
    for i, k in enumerate((5, 0)):
        x0 = np.clip((x[i] - np.sqrt(1 - ab[k]) * eps[i]) / np.sqrt(ab[k]), -1, 1)
        before = ab[k - 1] if k else 1.0
        mean = np.sqrt(before) * beta[k] / (1 - ab[k]) * x0
        mean += np.sqrt(1 - beta[k]) * (1 - before) / (1 - ab[k]) * x[i]
        variance = beta[max(k, 1)] * (1 - ab[max(k, 1) - 1]) / (1 - ab[max(k, 1)])
        np.testing.assert_allclose(found.mean[i], mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.log_variance[i], np.log(variance), rtol=1e-3)
    step = model.p_sample(x, t, key=getkey())
    np.testing.assert_allclose(step[1], found.pred_x0[1], atol=1e-5)
    assert float(jnp.abs(step[0] - found.mean[0]).max()) > 1e-3


def test_loss_is_that_of_its_definition(small_config, getkey):
    """A network that predicts nothing has the mean square of v as its loss."""
    model = DDIMModel(small_config, key=getkey())
    x0 = jnp.zeros((512, 8, 8, 1))
    loss = training_loss(model.denoiser, model.config, TrainingConfig(loss_weighting="uniform"))
    found = loss(model.denoiser.backbone, x0, key=getkey())
    expected = np.mean(model.schedule.at_timestep(jnp.arange(1000)).alpha ** 2)
    assert float(found) == pytest.approx(float(expected), rel=0.02)


def test_loss_weights_are_the_papers():
    schedule = VESchedule(sigma_min=0.01, sigma_max=50.0)
    snr = np.array([0.1, 1.0, 30.0])
    level = schedule.at_log_snr(jnp.log(snr))
    epsilon, v = jnp.sqrt(1 / snr), jnp.sqrt(1 / (snr + 1))
    np.testing.assert_allclose(Uniform()(level, epsilon), 1.0)
    np.testing.assert_allclose(SNR()(level, epsilon), 1.0, rtol=1e-5)
    minimum = np.minimum(snr, 5.0)
    np.testing.assert_allclose(MinSNR(5.0)(level, epsilon), minimum / snr, rtol=1e-5)
    np.testing.assert_allclose(MinSNR(5.0)(level, v), minimum / (snr + 1), rtol=1e-5)
    np.testing.assert_allclose(MinSNR(5.0)(level, jnp.ones(3)), minimum, rtol=1e-5)


def test_the_loss_of_each_prediction_has_its_weight(small_config, getkey):
    """Min-SNR would hardly train the clean end of a velocity or a score."""
    for prediction, weight in (("v_prediction", MinSNR), ("velocity", Uniform), ("edm", Uniform)):
        schedule = NoiseScheduleConfig(schedule_type="vp")
        config = dataclasses.replace(
            small_config, prediction_type=prediction, noise_schedule=schedule
        )
        model = DDIMModel(config, key=getkey())
        loss = training_loss(model.denoiser, config, TrainingConfig())
        assert isinstance(loss.weight, weight), prediction


def test_edm_knows_the_deviation_of_what_it_denoises(getkey):
    backbone = UNetBackboneConfig(hidden_dims=(8,), in_channels=4, out_channels=4)
    latent = LDMConfig(backbone=backbone, prediction_type="edm", input_shape=(8, 8, 1))
    pixel = DDPMConfig(backbone=UNetBackboneConfig(hidden_dims=(8,)), prediction_type="edm")
    given = dataclasses.replace(pixel, sigma_data=0.3)
    for kind, config, std in (
        (LDMModel, latent, 1.0),
        (DDPMModel, pixel, 0.5),
        (DDPMModel, given, 0.3),
    ):
        model = eqx.filter_eval_shape(kind, config, key=jax.random.key(0))
        assert model.denoiser.parameterization == EDMPrediction(std)


@pytest.mark.parametrize("loss_type", ["mse", "l1", "huber"])
def test_losses_are_differentiable(loss_type, small_config, getkey):
    model = make(DDIMModel, dataclasses.replace(small_config, loss_type=loss_type), getkey())
    x0 = jax.random.uniform(getkey(), (4, 8, 8, 1), minval=-1)
    loss = eqx.filter_grad(lambda m: m.loss(x0, jnp.arange(4), key=jax.random.key(0)))
    grads = eqx.filter_jit(loss)(model)
    assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(grads.denoiser.backbone))
    assert jnp.all(jnp.isfinite(grads.denoiser.schedule.log_alpha_bar))


def small_models(getkey) -> list:
    backbone = UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8, num_classes=3)
    latent = dataclasses.replace(backbone, in_channels=4, out_channels=4)
    shape = {"input_shape": (8, 8, 1)}
    return [
        DDIMModel(DDIMConfig(backbone=backbone, **shape), key=getkey()),
        DDPMModel(DDPMConfig(backbone=backbone, prediction_type="edm", **shape), key=getkey()),
        ScoreDiffusionModel(ScoreDiffusionConfig(backbone=backbone, **shape), key=getkey()),
        LDMModel(
            LDMConfig(
                backbone=latent, encoder_hidden_dims=(8, 8), decoder_hidden_dims=(8, 8), **shape
            ),
            key=getkey(),
        ),
        DiTModel(
            DiTConfig(
                img_size=8, channels=1, hidden_size=8, depth=2, num_heads=2, learn_sigma=True
            ),
            key=getkey(),
        ),
    ]


def test_a_saved_model_is_the_same_model(tmp_path, getkey):
    path = tmp_path / "deep" / "model.safetensors"
    for model in small_models(getkey):
        save_model(path, model, record={"ema": True, "training": {"steps": 3}})
        assert bool(eqx.tree_equal(load_model(path), model))
        record = read_record(path)
        assert (record.ema, record.training) == (True, {"steps": 3})
        assert record.model == type(model).__name__
        assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    record = {"ema": True, "training": {"b": 1, "a": 2}}
    digests = set()
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        save_model(path, model, record=record)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


class OwnNetwork(eqx.Module):
    """A network of a user's own."""

    weight: jax.Array
    depth: int = eqx.field(static=True, default=1)

    def __call__(self, x, c_noise, cond, *, key):
        return self.weight * x


@pytest.mark.parametrize(
    ("place", "part", "parts"),
    [
        ("backbone", OwnNetwork(jnp.full(1, 2.0)), [OwnNetwork(jnp.zeros(1))]),
        ("schedule", OwnSchedule(2.0), [OwnSchedule]),
        ("schedule", VESchedule(0.1, 3.0), []),
        ("schedule", DiscreteSchedule(cosine_betas(77)), []),
        ("parameterization", EpsilonPrediction(), []),
        ("parameterization", EDMPrediction(0.25), []),
        ("null", None, []),
    ],
)
def test_a_part_put_in_by_hand_comes_back(place, part, parts, model, tmp_path):
    """Never another part in its place, and never in silence."""
    changed = eqx.tree_at(
        lambda m: getattr(m.denoiser, place), model, part, is_leaf=lambda leaf: leaf is None
    )
    path = tmp_path / "m.safetensors"
    save_model(path, changed)
    restored = load_model(path, parts)
    assert type(getattr(restored.denoiser, place)) is type(part)
    assert bool(eqx.tree_equal(restored, changed))
    if parts:
        with pytest.raises(ModelFileError, match=type(part).__name__):
            load_model(path)


def test_a_model_with_anothers_configuration_is_not_saved(small_config, tmp_path, getkey):
    # By hand, since type checks would refuse it; users have none.
    wrong = object.__new__(DDPMModel)
    object.__setattr__(wrong, "config", small_config)
    object.__setattr__(wrong, "denoiser", DDIMModel(small_config, key=getkey()).denoiser)
    with pytest.raises(ValueError, match="a DDPMModel with a DDIMConfig cannot be restored"):
        save_model(tmp_path / "m.safetensors", wrong)
    with pytest.raises(ValueError, match="a record has 'ema' and 'training'; got 'steps'"):
        save_model(
            tmp_path / "m.safetensors", DDIMModel(small_config, key=getkey()), record={"steps": 3}
        )
    assert not list(tmp_path.iterdir())


def test_foreign_and_damaged_files_are_refused(small_config, tmp_path, getkey):
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="no model file"):
        load_model(path)
    path.write_bytes(b"no safetensors at all")
    with pytest.raises(ModelFileError, match="damaged or not"):
        load_model(path)
    safetensors.numpy.save_file({"a": np.zeros(1)}, path)
    with pytest.raises(ModelFileError, match="not a diffusion_eqx model"):
        load_model(path)

    save_model(path, DDIMModel(small_config, key=getkey()))
    whole = path.read_bytes()
    with safetensors.safe_open(path, "numpy") as file:
        metadata, names = file.metadata(), list(file.keys())
        tensors = {name: file.get_tensor(name) for name in names}
    text = json.loads(metadata["diffusion_eqx"])
    newer = {"diffusion_eqx": json.dumps(text | {"format_version": "99"})}
    safetensors.numpy.save_file(tensors, path, newer)
    with pytest.raises(ModelFileError, match="version 99"):
        load_model(path)
    lacking = {name: tensor for name, tensor in tensors.items() if name != names[3]}
    safetensors.numpy.save_file(lacking, path, metadata)
    with pytest.raises(ModelFileError, match=f"lacks the array {names[3]}"):
        load_model(path)
    safetensors.numpy.save_file(tensors | {names[3]: np.zeros(7, np.float32)}, path, metadata)
    with pytest.raises(ModelFileError, match="asks for"):
        load_model(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(path)


def test_pieces_draw_what_the_model_draws(model, getkey):
    """The model's own way is the pieces put together by hand."""
    key, labels = getkey(), jnp.array([1, 2])
    by_hand = sample(
        Guided(
            Denoiser(
                model.denoiser.backbone, model.schedule, model.denoiser.parameterization, null=10
            ),
            model.guidance(2.0),
        ),
        DDIMSampler(),
        (8, 8, 1),
        count=2,
        steps=4,
        key=key,
        cond=labels,
    )
    unlimited = with_config(model, clip_denoised=False)
    drawn = unlimited.sample(2, "ddim", steps=4, guidance=2.0, labels=labels, key=key)
    np.testing.assert_allclose(drawn, jnp.clip(by_hand, -1, 1), atol=1e-5)


def test_colour_images(getkey):
    config = DDIMConfig(
        backbone=UNetBackboneConfig(
            hidden_dims=(8, 16), in_channels=3, out_channels=3, time_embedding_dim=16
        ),
        input_shape=(32, 32, 3),
        num_inference_steps=3,
    )
    assert DDIMModel(config, key=getkey()).generate(2, key=getkey()).shape == (2, 32, 32, 3)


def test_a_model_whose_dropout_rests_is_saved_as_any_other(small_config, tmp_path):
    model = DDIMModel(small_config, key=jax.random.key(0))
    save_model(tmp_path / "model.safetensors", eqx.nn.inference_mode(model))
    assert eqx.tree_equal(load_model(tmp_path / "model.safetensors"), model)
