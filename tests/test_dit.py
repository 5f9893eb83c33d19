"""The diffusion transformer as a network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.nn import DiT, TransformerStack, patchify, position_features, unpatchify
from tests.filled import filled
from tests.networks import small_dit


def small_stack(**changes) -> TransformerStack:
    return filled(TransformerStack, 3, 16, heads=2, mlp_ratio=4.0, **changes)


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
    dit = DiT(
        in_channels=1,
        out_channels=2,
        patch_size=2,
        dim=16,
        depth=2,
        heads=2,
        mlp_ratio=2.0,
        num_classes=None,
        dropout=0.0,
        key=getkey(),
    )
    output = dit(jax.random.normal(getkey(), (2, 8, 6, 1)), jnp.ones(2))
    np.testing.assert_array_equal(output, np.zeros((2, 8, 6, 2)))


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
    x = jax.random.normal(getkey(), (2, *size, 2))
    assert dit(x, jnp.zeros(2)).shape == x.shape


def test_a_transformer_knows_where_a_patch_is(getkey):
    """Without positions, moving patches of the input would only move those of the output."""
    dit = small_dit()
    x = jax.random.normal(getkey(), (1, 4, 6, 2))
    for axis in (1, 2):
        moved = jnp.roll(dit(x, jnp.zeros(1)), 2, axis)
        assert float(jnp.abs(dit(jnp.roll(x, 2, axis), jnp.zeros(1)) - moved).max()) > 1e-2


def test_patches_that_do_not_tile_are_refused():
    with pytest.raises(ValueError, match=r"7x8 pixels .* 2x2"):
        small_dit()(jnp.zeros((1, 7, 8, 2)), jnp.zeros(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"dim": 18}, "that 4 divides"), ({"heads": 3}, "into 3 attention heads")],
)
def test_sizes_that_do_not_divide_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_dit(**changes)


def test_dropout_needs_a_key_and_ends_with_inference(getkey):
    dit = small_dit(dropout=0.5)
    x, t = jax.random.normal(getkey(), (1, 8, 6, 2)), jnp.zeros(1)
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


def lowered_lines(depth: int, *, train: bool) -> int:
    """Lines of the program of the forward pass, or of loss and gradient, as the compiler is given it."""
    dit = small_dit(dim=64, depth=depth, heads=4, mlp_ratio=4.0)
    x, t = jnp.zeros((2, 16, 16, 2)), jnp.zeros(2)

    def forward(dit, x, t):
        return dit(x, t)

    def gradient(dit, x, t):
        return eqx.filter_value_and_grad(lambda d: jnp.mean(d(x, t) ** 2))(dit)

    lowered = eqx.filter_jit(gradient if train else forward).lower(dit, x, t)
    return lowered.as_text().count("\n")


@pytest.mark.parametrize("train", [False, True], ids=["forward", "gradient"])
def test_the_program_does_not_grow_with_depth(train):
    """So that a deep transformer takes no longer to compile: its blocks are one scanned loop."""
    lines = {depth: lowered_lines(depth, train=train) for depth in (4, 12, 28)}
    assert len(set(lines.values())) == 1, lines
    assert lines[4] > 100
