import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from diffusion_eqx.config import DDIMConfig, DDPMConfig, NoiseScheduleConfig, UNetBackboneConfig
from diffusion_eqx.losses import MinSNRWeight, SNRWeight, UniformWeight, stratified_timesteps
from diffusion_eqx.models import DDIMModel, DDPMModel, ModelFileError, load_model, save_model
from tests.perturbed import perturbed


def make(model_class, config, key):
    model = model_class(config, key=key)
    noisy = perturbed(model.denoiser.backbone, key=key, scale=0.05)
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, noisy)


@pytest.fixture
def model(small_config, getkey):
    return make(DDIMModel, small_config, getkey())


def test_the_guides_quick_start_draws_images(getkey):
    """Section "Quick Start", with fewer channels and timesteps."""
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
    ddim = model.sample(4, "ddim", 5, key=key, labels=labels, guidance_scale=2.0)
    shaped = model.sample((4, 8, 8, 1), "ddim", 5, key=key, labels=labels, guidance_scale=2.0)
    np.testing.assert_array_equal(ddim, shaped)
    for other in (
        model.sample(4, "ddpm", 5, key=key, labels=labels, guidance_scale=2.0),
        model.sample(4, "ddim", 5, key=key, labels=labels, guidance_scale=2.0, eta=1.0),
        model.sample(4, "ddim", 5, key=key, labels=labels),
        model.sample(4, "ddim", 5, key=key, labels=labels + 1, guidance_scale=2.0),
    ):
        assert other.shape == ddim.shape
        assert float(jnp.abs(other - ddim).max()) > 1e-3


def test_generate_uses_the_configured_steps(model, getkey):
    key = getkey()
    np.testing.assert_array_equal(
        model.generate(3, key=key), model.sample(3, "ddim", 10, key=key, eta=0.0)
    )


def test_guidance_of_one_is_the_conditional_sample(model, getkey):
    key, labels = getkey(), jnp.arange(4)
    guided = model.sample(4, "ddim", 5, key=key, labels=labels, guidance_scale=1.0)
    plain = model.sample(4, "ddim", 5, key=key, labels=labels)
    np.testing.assert_allclose(guided, plain, atol=1e-5)


def test_progressive_ends_with_the_sample(model, getkey):
    key = getkey()
    path = model.progressive(2, "ddim", 10, every=4, key=key)
    assert path.shape == (4, 2, 8, 8, 1)
    np.testing.assert_allclose(path[-1], model.sample(2, "ddim", 10, key=key), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, k: m.sample(2, "no-such", key=k), "unknown sampler"),
        (lambda m, k: m.sample(2, "ddpm", 5, key=k, eta=0.5), "no parameter 'eta'"),
        (lambda m, k: m.sample(2, "ddim", 5, key=k, grid="no-such"), "unknown grid"),
        (lambda m, k: m.sample(2, "ddim", 2000, key=k), "1 and the 1000"),
        (lambda m, k: m.sample(0, "ddim", 5, key=k), "at least 1"),
        (lambda m, k: m.sample((2, 9, 8, 1), "ddim", 5, key=k), r"\(8, 8, 1\)"),
        (lambda m, k: m.sample(2, "ddim", 5, key=k, labels=jnp.arange(3)), r"shape \(2,\)"),
        (lambda m, k: m.sample(2, "ddim", 5, key=k, guidance_scale=2.0), "needs a conditioning"),
        (lambda m, k: m.ddim_sample(key=k), "give either"),
        (lambda m, k: m.ddim_sample(3, noise=jnp.zeros((2, 8, 8, 1))), "contradicts"),
    ],
)
def test_wrong_calls_are_refused(model, call, message, getkey):
    with pytest.raises(ValueError, match=message):
        call(model, getkey())


def test_guidance_of_an_unconditional_model_is_refused(getkey):
    config = DDPMConfig(backbone=UNetBackboneConfig(hidden_dims=(8,)), input_shape=(8, 8, 1))
    with pytest.raises(ValueError, match="class-conditional"):
        DDPMModel(config, key=getkey()).sample(2, "ddim", 5, key=getkey(), guidance_scale=2.0)


def test_inversion_of_a_network_returns_the_image(model, getkey):
    images = jnp.clip(0.5 * jax.random.normal(getkey(), (2, 8, 8, 1)), -1, 1)
    labels = jnp.array([1, 2])
    errors = []
    for iterations in (1, 3, 12):
        noise = model.ddim_reverse(images, 50, iterations=iterations, labels=labels)
        returned = model.ddim_sample(steps=50, noise=noise, labels=labels)
        errors.append(float(jnp.abs(returned - images).max()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3, errors


def test_loss_is_that_of_its_definition(small_config, getkey):
    """A network that predicts nothing has the mean square of v as its loss."""
    model = DDIMModel(small_config, key=getkey())
    x0 = jnp.zeros((512, 8, 8, 1))
    loss = model.training_loss(_training("uniform"))(model.denoiser.backbone, x0, key=getkey())
    t = np.arange(1, 1001) / 1000
    expected = np.mean(model.denoiser.schedule.alpha(jnp.asarray(t, jnp.float32)) ** 2)
    assert float(loss) == pytest.approx(float(expected), rel=0.02)


def _training(weighting):
    from diffusion_eqx.config import DiffusionTrainingConfig

    return DiffusionTrainingConfig(loss_weighting=weighting)


def test_loss_weights_are_the_papers():
    snr = jnp.array([0.1, 1.0, 30.0])
    log_snr = jnp.log(snr)
    epsilon, v = jnp.sqrt(1 / snr), jnp.sqrt(1 / (snr + 1))
    np.testing.assert_allclose(UniformWeight()(log_snr, epsilon), 1.0)
    np.testing.assert_allclose(SNRWeight()(log_snr, epsilon), 1.0, rtol=1e-5)
    minimum = np.minimum(snr, 5.0)
    np.testing.assert_allclose(MinSNRWeight(5.0)(log_snr, epsilon), minimum / snr, rtol=1e-5)
    np.testing.assert_allclose(MinSNRWeight(5.0)(log_snr, v), minimum / (snr + 1), rtol=1e-5)
    np.testing.assert_allclose(MinSNRWeight(5.0)(log_snr, jnp.ones(3)), minimum, rtol=1e-5)


def test_timesteps_are_uniform_and_spread(getkey):
    drawn = np.concatenate([stratified_timesteps(getkey(), 10, 1000) for _ in range(200)])
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1000))
    np.testing.assert_array_equal(counts, 200)


@pytest.mark.parametrize("loss_type", ["mse", "l1", "huber"])
def test_losses_are_differentiable(loss_type, small_config, getkey):
    import dataclasses

    model = make(DDIMModel, dataclasses.replace(small_config, loss_type=loss_type), getkey())
    x0 = jax.random.uniform(getkey(), (4, 8, 8, 1), minval=-1)
    loss = eqx.filter_grad(lambda m: m.loss(x0, jnp.arange(4), key=jax.random.key(0)))
    grads = eqx.filter_jit(loss)(model)
    assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(grads.denoiser.backbone))
    assert float(jnp.abs(grads.denoiser.schedule.log_alpha_bar).max()) == 0.0


@pytest.mark.parametrize("kind", [DDIMModel, DDPMModel])
def test_a_saved_model_is_the_same_model(kind, small_config, tmp_path, getkey):
    config = (
        small_config
        if kind is DDIMModel
        else DDPMConfig(backbone=small_config.backbone, input_shape=(8, 8, 1))
    )
    model = make(kind, config, getkey())
    path = tmp_path / "deep" / "model.safetensors"
    save_model(path, model, ema=True, training={"steps": 3})
    saved = load_model(path)
    assert (saved.ema, saved.training) == (True, {"steps": 3})
    assert eqx.tree_equal(saved.model, model)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


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
    safetensors.numpy.save_file(tensors, path, metadata | {"format_version": "99"})
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


def test_colour_images(getkey):
    config = DDIMConfig(
        backbone=UNetBackboneConfig(
            hidden_dims=(8, 16), in_channels=3, out_channels=3, time_embedding_dim=16
        ),
        input_shape=(32, 32, 3),
        num_inference_steps=3,
    )
    assert DDIMModel(config, key=getkey()).generate(2, key=getkey()).shape == (2, 32, 32, 3)
