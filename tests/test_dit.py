"""The diffusion transformer: as a network, as a backbone of every model, as the guide's model."""

import json
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusion_eqx.variational import HybridLoss
from diffusion_eqx_export import export_sampler, read_artifact, verify

from diffusion_eqx.config import (
    DDIMConfig,
    DDPMConfig,
    DiffusionTrainingConfig,
    DiTBackboneConfig,
    DiTConfig,
    NoiseScheduleConfig,
    ScoreDiffusionConfig,
    UNetBackboneConfig,
    dit_size,
    from_json,
    to_json,
)
from diffusion_eqx.models import (
    DDIMModel,
    DDPMModel,
    DiTModel,
    SavedModel,
    ScoreDiffusionModel,
    load_model,
    save_model,
)
from diffusion_eqx.models.build import build_dit, build_schedule
from diffusion_eqx.nn import DiT, TransformerStack, patchify, position_features, unpatchify
from diffusion_eqx.samplers import DDPMSampler, sample
from tests.filled import filled, is_shape

SMALL = {"hidden_size": 16, "depth": 3, "num_heads": 2, "num_classes": 3}


def small_dit(**changes) -> DiT:
    return filled(build_dit, DiTBackboneConfig(**(SMALL | changes)))


def small_stack(**changes) -> TransformerStack:
    return filled(TransformerStack, 3, 16, heads=2, mlp_ratio=4.0, **changes)


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


@pytest.mark.peer
@pytest.mark.parametrize(
    ("size", "patch_size", "channels", "out_channels"), [(8, 2, 4, 8), (12, 4, 3, 3)]
)
def test_the_same_weights_give_diffusers_output(size, patch_size, channels, out_channels, getkey):
    torch = pytest.importorskip("torch")
    from tests.peer_dit import peer_dit, with_weights_of

    peer = peer_dit(
        size=size,
        channels=channels,
        out_channels=out_channels,
        patch_size=patch_size,
        dim=32,
        depth=3,
        heads=4,
        num_classes=5,
    )
    dit = with_weights_of(peer)
    x = jax.random.normal(getkey(), (3, size, size, channels))
    timesteps, labels = np.array([0, 17, 250]), np.array([0, 2, 5])
    with torch.no_grad():
        expected = peer(
            torch.tensor(np.asarray(x.transpose(0, 3, 1, 2))),
            torch.tensor(timesteps),
            torch.tensor(labels),
        ).sample.numpy()
    expected = expected.transpose(0, 2, 3, 1)
    assert 0.3 < expected.std() < 10
    found = dit(x, jnp.asarray(timesteps, jnp.float32), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)


def test_patches_come_back(getkey):
    x = jax.random.normal(getkey(), (2, 6, 8, 3))
    patches = patchify(x, 2)
    assert patches.shape == (2, 3, 4, 12)
    np.testing.assert_array_equal(patches[1, 2, 3], x[1, 4:6, 6:8].reshape(-1))
    np.testing.assert_array_equal(unpatchify(patches, 2), x)


def test_positions_are_sines_and_cosines_of_column_and_row():
    found = position_features(2, 3, 8)
    assert found.shape == (2, 3, 8)
    expected = [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)]
    expected += [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)]
    np.testing.assert_allclose(found[1, 2], expected, atol=1e-6)
    places = np.asarray(found).reshape(6, 8)
    assert len(np.unique(places.round(4), axis=0)) == 6
    with pytest.raises(ValueError, match="4 divides"):
        position_features(2, 2, 6)


def test_a_new_transformer_is_the_identity_and_its_output_zero(getkey):
    stack = TransformerStack(3, 16, heads=2, mlp_ratio=4.0, key=getkey())
    tokens, condition = (
        jax.random.normal(getkey(), (2, 5, 16)),
        jax.random.normal(getkey(), (2, 16)),
    )
    np.testing.assert_array_equal(stack(tokens, condition), tokens)
    x = jax.random.normal(getkey(), (2, 8, 6, 1))
    dit = build_dit(DiTBackboneConfig(**SMALL), key=getkey())
    assert float(jnp.abs(dit(x, jnp.ones(2))).max()) == 0.0


def test_the_scan_is_the_blocks_one_after_another(getkey):
    stack = small_stack()
    tokens, condition = (
        jax.random.normal(getkey(), (2, 5, 16)),
        jax.random.normal(getkey(), (2, 16)),
    )
    arrays, rest = eqx.partition(stack.blocks, eqx.is_array)
    expected = tokens
    for layer in range(3):
        block = eqx.combine(jax.tree.map(lambda a, layer=layer: a[layer], arrays), rest)
        expected = block(expected, condition)
    np.testing.assert_allclose(stack(tokens, condition), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (4, 10), (2, 2)])
def test_any_size_that_patches_tile(size, getkey):
    dit = small_dit()
    x = jax.random.normal(getkey(), (2, *size, 1))
    assert dit(x, jnp.zeros(2)).shape == x.shape


def test_a_transformer_knows_where_a_patch_is(getkey):
    """Without positions, moving patches of the input would only move those of the output."""
    dit = small_dit()
    x = jax.random.normal(getkey(), (1, 4, 6, 1))
    for axis in (1, 2):
        moved = jnp.roll(dit(x, jnp.zeros(1)), 2, axis)
        assert float(jnp.abs(dit(jnp.roll(x, 2, axis), jnp.zeros(1)) - moved).max()) > 1e-2


def test_a_transformer_depends_on_all_its_inputs(getkey):
    dit = small_dit()
    x, t, label = (
        jax.random.normal(getkey(), (2, 4, 6, 1)),
        jnp.full(2, 3.0),
        jnp.ones(2, jnp.int32),
    )
    base = dit(x, t, label)
    for other in (dit(x + 0.1, t, label), dit(x, t + 100, label), dit(x, t, label + 1)):
        assert float(jnp.abs(other - base).max()) > 1e-4
    np.testing.assert_allclose(dit(x, t, None), dit(x, t, jnp.full(2, 3)), atol=1e-6)


def test_wrong_inputs_are_refused(getkey):
    dit = small_dit(num_classes=None)
    with pytest.raises(ValueError, match=r"7x8 pixels .* 2x2"):
        dit(jnp.zeros((1, 7, 8, 1)), jnp.zeros(1))
    with pytest.raises(ValueError, match="no class embedding"):
        dit(jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.array([0]))


def test_dropout_needs_a_key_and_ends_with_inference(getkey):
    dit = small_dit(dropout_rate=0.5)
    x, t = jax.random.normal(getkey(), (1, 8, 6, 1)), jnp.zeros(1)
    with pytest.raises(RuntimeError, match="key"):
        dit(x, t)
    assert float(jnp.abs(dit(x, t, key=getkey()) - dit(x, t, key=getkey())).max()) > 1e-4
    quiet = eqx.nn.inference_mode(dit)
    np.testing.assert_array_equal(quiet(x, t), quiet(x, t, key=getkey()))


def test_dropout_is_not_the_same_in_every_block(getkey):
    """Blocks of equal weights: with equal masks, exchanging keys between blocks would do nothing."""
    stack = small_stack(dropout=0.5)
    arrays, rest = eqx.partition(stack.blocks, eqx.is_array)
    equal = jax.tree.map(lambda a: jnp.broadcast_to(a[:1], a.shape), arrays)
    stack = eqx.tree_at(lambda s: s.blocks, stack, eqx.combine(equal, rest))
    tokens, condition, key = jnp.ones((1, 5, 16)), jnp.ones((1, 16)), getkey()
    block = eqx.combine(jax.tree.map(lambda a: a[0], arrays), rest)
    same = tokens
    for _ in range(3):
        same = block(same, condition, key=jax.random.fold_in(key, 0))
    assert float(jnp.abs(stack(tokens, condition, key=key) - same).max()) > 1e-3


def test_remat_changes_memory_only(getkey):
    key = getkey()
    x, t = jax.random.normal(getkey(), (2, 8, 6, 1)), jnp.array([3.0, 40.0])

    def gradient(remat):
        dit = small_dit(remat=remat, dropout_rate=0.3)
        return eqx.filter_jit(eqx.filter_grad(lambda d: jnp.sum(d(x, t, key=key) ** 2)))(dit)

    kept, again = gradient(False), gradient(True)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(again), strict=True):
        assert jnp.all(jnp.isfinite(a))
        assert float(jnp.abs(a).max()) > 0
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


def compile_seconds(depth: int, *, train: bool) -> float:
    """CPU time to lower and compile the forward pass, or loss and gradient, at width 64.

    Not the time on the wall, which a busy machine stretches at random.
    """
    dit = filled(
        build_dit, DiTBackboneConfig(hidden_size=64, depth=depth, num_heads=4, in_channels=4)
    )
    x, t = jnp.zeros((2, 16, 16, 4)), jnp.zeros(2)

    def forward(dit, x, t):
        return dit(x, t)

    def gradient(dit, x, t):
        return eqx.filter_value_and_grad(lambda d: jnp.mean(d(x, t) ** 2))(dit)

    jax.clear_caches()
    start = time.process_time()
    eqx.filter_jit(gradient if train else forward).lower(dit, x, t).compile()
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True], ids=["forward", "gradient"])
def test_compile_time_does_not_grow_with_depth(train):
    depths = (4, 12, 28)
    compile_seconds(4, train=train)  # Whatever is done once only.
    # Interleaved, so that a machine whose speed drifts favours no depth.
    runs = [{depth: compile_seconds(depth, train=train) for depth in depths} for _ in range(3)]
    medians = {depth: statistics.median(run[depth] for run in runs) for depth in depths}
    print(f"compile seconds by depth: {medians}")
    assert max(medians.values()) <= 1.2 * min(medians.values()), medians


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
        ScoreDiffusionConfig(backbone=DiTBackboneConfig(remat=True)),
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
    images = model.draw(2, model.sampler("ddpm", guidance_scale=2.0), 3, key=key, labels=labels)
    assert images.shape == (2, 8, 6, 1)
    assert jnp.all(jnp.isfinite(images))
    x0 = jax.random.uniform(getkey(), (4, 8, 6, 1), minval=-1)
    loss = model.training_loss(DiffusionTrainingConfig())
    assert isinstance(loss, HybridLoss) == learn_sigma
    assert jnp.isfinite(loss(model.denoiser.backbone, x0, jnp.arange(4) % 3, key=getkey()))
    save_model(tmp_path / "model.safetensors", model)
    assert eqx.tree_equal(load_model(tmp_path / "model.safetensors").model, model)


def test_the_guides_calls_draw_images(getkey):
    model, key, y = small_model(), getkey(), jnp.array([0, 1, 2])
    drawn = model.generate(n_samples=3, y=y, cfg_scale=2.0, num_steps=5, key=key)
    assert drawn.shape == (3, 8, 6, 1)
    assert float(jnp.abs(drawn).max()) <= 1.0
    # The scale defaults to the configured one, 2; the common names say the same.
    np.testing.assert_array_equal(model.generate(3, y, num_steps=5, key=key), drawn)
    common = model.sample(3, "ddpm", 5, key=key, labels=y, guidance_scale=2.0)
    np.testing.assert_array_equal(common, drawn)
    for other in (
        model.generate(3, y, 1.0, 5, key=key),
        model.generate(3, None, num_steps=5, key=key),
        model.generate(3, y, 2.0, 4, key=key),
    ):
        assert float(jnp.abs(other - drawn).max()) > 1e-3
    plain = model.sample(3, "ddpm", 5, key=key, labels=y)
    np.testing.assert_allclose(model.generate(3, y, 1.0, 5, key=key), plain, atol=1e-5)
    with pytest.raises(ValueError, match="same thing"):
        model.generate(3, y, labels=y, key=key)


def test_a_saved_transformer_is_the_same_model(tmp_path, getkey):
    model = small_model(learn_sigma=True, dropout_rate=0.1)
    save_model(tmp_path / "dit.safetensors", model, ema=True)
    saved = load_model(tmp_path / "dit.safetensors")
    assert eqx.tree_equal(saved.model, model)


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
        learnt = changed.sample(2, "ddpm", 10, key=key)
        fixed = DDPMSampler(changed.guided(None), variance=variance)
        expected = sample(fixed, (8, 6, 1), count=2, steps=10, key=key)
        np.testing.assert_allclose(learnt, jnp.clip(expected, -1, 1), atol=1e-4)


def test_a_transformer_exports_and_draws_the_same(tmp_path, getkey):
    path = tmp_path / "sampler.safetensors"
    model = small_model(learn_sigma=True)
    export_sampler(
        SavedModel(model, True, {}),
        path,
        sampler="ddpm",
        batch_sizes=(2,),
        steps=5,
        guidance_scale=2.0,
    )
    assert verify(read_artifact(path)).passed
