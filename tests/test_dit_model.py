"""The diffusion transformer as the backbone of every model, and as a model of its own."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusion_eqx_export import export_sampler, read_artifact, verify

from diffusion_eqx.config import (
    DDIMConfig,
    DDPMConfig,
    DiTBackboneConfig,
    DiTConfig,
    NoiseScheduleConfig,
    ScoreDiffusionConfig,
    TrainingConfig,
    UNetBackboneConfig,
    dit_size,
    from_json,
    to_json,
)
from diffusion_eqx.losses import HybridLoss, training_loss
from diffusion_eqx.models import (
    DDIMModel,
    DDPMModel,
    DiTModel,
    ScoreDiffusionModel,
    build_dit,
    build_schedule,
    load_model,
    read_arrays,
    save_model,
    write_arrays,
)
from diffusion_eqx.samplers import DDPMSampler
from tests.filled import filled, is_shape

SMALL = {"hidden_size": 16, "depth": 3, "num_heads": 2, "num_classes": 3}


def as_model(model_class, config):
    """A model of random weights; its schedule is the configured one."""
    model = filled(model_class, config)
    schedule = build_schedule(config.noise_schedule)
    return eqx.tree_at(lambda m: m.denoiser.schedule, model, schedule)


def small_config(**changes) -> DiTConfig:
    return DiTConfig(
        **({"img_size": (8, 6), "channels": 1, "cfg_scale": 2.0} | SMALL | changes),
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine", num_timesteps=50),
    )


def small_model(**changes) -> DiTModel:
    return as_model(DiTModel, small_config(**changes))


@pytest.mark.parametrize(
    ("name", "parameters"), [("S/2", 33.0), ("B/4", 130.7), ("L/8", 459.1), ("XL/2", 675.1)]
)
def test_named_sizes_have_the_papers_parameters(name, parameters):
    """In millions, with the 1000 classes, 4 channels and learnt variance of the paper's networks."""
    config = DiTBackboneConfig(**dit_size(name), in_channels=4, num_classes=1000, learn_sigma=True)
    dit = eqx.filter_eval_shape(build_dit, config, key=jax.random.key(0))
    count = sum(a.size for a in jax.tree.leaves(dit) if is_shape(a))
    assert count / 1e6 == pytest.approx(parameters, rel=0.01)


@pytest.mark.parametrize("name", ["S", "S/3", "M/2", "XL/16", ""])
def test_other_sizes_are_refused(name):
    with pytest.raises(ValueError, match="S/2, S/4"):
        dit_size(name)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: DiTConfig(hidden_size=64, num_heads=3), ["hidden_size=64", "num_heads=3"]),
        (lambda: DiTConfig(img_size=(8, 9)), ["patch_size=2", "8x9"]),
        (lambda: DiTConfig(dropout_rate=1.0), ["dropout_rate", "less than 1"]),
        (lambda: DDPMConfig(backbone=DiTBackboneConfig(patch_size=8)), ["patch_size=8", "28x28"]),
        (lambda: DDPMConfig(backbone=DiTBackboneConfig(in_channels=3)), ["in_channels", "is 3"]),
        (lambda: from_json(DDPMConfig, '{"backbone": {"kind": "vit"}}'), ["vit", "unet", "dit"]),
        (lambda: from_json(DDPMConfig, '{"backbone": {"depth": 3}}'), ["depth"]),
    ],
)
def test_wrong_configurations_say_what_is_wrong(build, names):
    with pytest.raises(ValueError, match="validation error") as error:
        build()
    for name in names:
        assert name in str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        small_config(learn_sigma=True),
        DDIMConfig(backbone=DiTBackboneConfig(**dit_size("S/4"))),
        DDIMConfig(backbone=UNetBackboneConfig(hidden_dims=(8,))),
        ScoreDiffusionConfig(backbone=DiTBackboneConfig(depth=3)),
    ],
    ids=["dit", "ddim-dit", "ddim-unet", "score-dit"],
)
def test_configurations_keep_their_backbone_as_json(config):
    assert from_json(type(config), to_json(config)) == config
    assert hash(from_json(type(config), to_json(config))) == hash(config)


def test_a_configuration_of_no_kind_has_a_unet():
    """As files had it when there was only one."""
    config = DDIMConfig(backbone=UNetBackboneConfig(hidden_dims=(8, 16)))
    text = json.loads(to_json(config))
    del text["backbone"]["kind"]
    assert from_json(DDIMConfig, json.dumps(text)) == config


@pytest.mark.parametrize(
    ("face", "kind", "learn_sigma"),
    [
        ("ddpm", "unet", True),
        ("ddpm", "dit", False),
        ("ddim", "dit", True),
        ("score", "dit", False),
    ],
)
def test_backbones_are_interchangeable(face, kind, learn_sigma, tmp_path, getkey):
    backbone = (
        DiTBackboneConfig(**SMALL, learn_sigma=learn_sigma)
        if kind == "dit"
        else UNetBackboneConfig(
            hidden_dims=(8,), time_embedding_dim=16, num_classes=3, learn_sigma=learn_sigma
        )
    )
    config_class, model_class = {
        "ddpm": (DDPMConfig, DDPMModel),
        "ddim": (DDIMConfig, DDIMModel),
        "score": (ScoreDiffusionConfig, ScoreDiffusionModel),
    }[face]
    model = as_model(model_class, config_class(backbone=backbone, input_shape=(8, 6, 1)))
    labels, key = jnp.array([0, 2]), getkey()
    images = model.sample(2, "ddpm", steps=3, labels=labels, guidance=2.0, key=key)
    assert images.shape == (2, 8, 6, 1)
    assert jnp.all(jnp.isfinite(images))
    x0 = jax.random.uniform(getkey(), (4, 8, 6, 1), minval=-1)
    loss = training_loss(model.denoiser, model.config, TrainingConfig())
    assert isinstance(loss, HybridLoss) == learn_sigma
    assert jnp.isfinite(loss(model.denoiser.backbone, x0, jnp.arange(4) % 3, key=getkey()))
    save_model(tmp_path / "model.safetensors", model)
    assert eqx.tree_equal(load_model(tmp_path / "model.safetensors"), model)


def test_names_of_other_libraries_draw_the_same_images(getkey):
    model, key, labels = small_model(), getkey(), jnp.array([0, 1, 2])
    drawn = model.sample(3, "ddpm", steps=5, labels=labels, guidance=2.0, key=key)
    assert drawn.shape == (3, 8, 6, 1)
    assert float(jnp.abs(drawn).max()) <= 1.0
    same = model.generate(
        n_samples=3, scheduler="ddpm", num_steps=5, y=labels, cfg_scale=2.0, key=key
    )
    np.testing.assert_array_equal(same, drawn)
    for other in (
        model.generate(3, "ddpm", 5, y=labels, cfg_scale=1.0, key=key),
        model.generate(3, "ddpm", 5, key=key),
        model.generate(3, "ddpm", 4, y=labels, cfg_scale=2.0, key=key),
    ):
        assert float(jnp.abs(other - drawn).max()) > 1e-3
    with pytest.raises(ValueError, match="same thing"):
        model.generate(3, y=labels, labels=labels, key=key)


def test_a_saved_transformer_is_the_same_model(tmp_path):
    model = small_model(learn_sigma=True, dropout_rate=0.1)
    save_model(tmp_path / "dit.safetensors", model)
    assert eqx.tree_equal(load_model(tmp_path / "dit.safetensors"), model)


def test_a_learnt_variance_decides_the_noise_of_ancestral_steps(getkey):
    """By the last layer's bias, f is 0 (the least variance) or 1 (the greatest) everywhere."""
    key = getkey()
    model = small_model(learn_sigma=True)

    def with_fraction(value):
        bias = model.denoiser.backbone.out.bias.reshape(-1, 2)
        last = model.denoiser.backbone.out.weight.reshape(16, -1, 2)
        return eqx.tree_at(
            lambda m: (m.denoiser.backbone.out.bias, m.denoiser.backbone.out.weight),
            model,
            (
                bias.at[:, 1].set(value).reshape(-1),
                last.at[..., 1].set(0.0).reshape(16, -1),
            ),
        )

    for value, variance in ((-1.0, "small"), (1.0, "large")):
        changed = with_fraction(value)
        learnt = changed.sample(2, "ddpm", steps=10, key=key)
        expected = changed.sample(2, DDPMSampler(variance=variance), steps=10, key=key)
        np.testing.assert_allclose(learnt, expected, atol=1e-4)


def test_a_transformer_exports_and_draws_the_same(tmp_path, getkey):
    path = tmp_path / "sampler.safetensors"
    model = small_model(learn_sigma=True)
    export_sampler(
        model,
        path,
        sampler="ddpm",
        steps=5,
        guidance=2.0,
        platforms=("cpu",),
        batch_sizes=(2,),
    )
    assert verify(read_artifact(path)).passed


def test_a_file_of_an_earlier_release_is_read(tmp_path):
    """It says whether the transformer saved memory while it was trained, which is no field any more."""
    path = tmp_path / "model.safetensors"
    model = DiTModel(small_config(), key=jax.random.key(0))
    save_model(path, model)
    metadata, arrays = read_arrays(path, "diffusion_eqx.model", "1")
    config = json.dumps({**json.loads(metadata["config"]), "remat": False})
    write_arrays(path, arrays, {**metadata, "config": config})
    assert eqx.tree_equal(load_model(path), model)
