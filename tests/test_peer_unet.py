"""Our U-Net and diffusers' `UNet2DModel` of the same weights give the same output."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.nn import UNet
from tests.peer_unet import with_weights_of
from tests.peer_weights import fill_randomly

pytestmark = pytest.mark.peer
torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

WIDTH, CLASSES, HEAD_DIM, GROUPS = 32, 5, 16, 8


def theirs(attention: tuple[bool, ...], layers: int):
    module = diffusers.UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=tuple(WIDTH * (i + 1) for i in range(len(attention))),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attention[::-1]),
        layers_per_block=layers,
        # Where ours has one width for features and embedding, theirs has two.
        time_embedding_dim=WIDTH,
        num_class_embeds=CLASSES + 1,
        attention_head_dim=HEAD_DIM,
        norm_num_groups=GROUPS,
        # Without it the middle's attention would have no normalisation.
        attn_norm_num_groups=GROUPS,
        resnet_time_scale_shift="scale_shift",
    ).eval()
    fill_randomly(module)
    return module


def ours(attention: tuple[bool, ...], layers: int) -> UNet:
    # Only its shapes: every array is replaced.
    empty = eqx.filter_eval_shape(
        UNet,
        in_channels=3,
        out_channels=3,
        channels=tuple(WIDTH * (i + 1) for i in range(len(attention))),
        num_res_blocks=layers,
        attention_levels=tuple(i for i, attends in enumerate(attention) if attends),
        embedding_dim=WIDTH,
        num_classes=CLASSES,
        activation=jax.nn.silu,
        dropout=0.0,
        head_dim=HEAD_DIM,
        norm_groups=GROUPS,
        key=jax.random.key(0),
    )
    return eqx.nn.inference_mode(empty)


@pytest.mark.parametrize(
    ("attention", "layers", "size"),
    [((False, True), 1, 8), ((False, True, False), 2, 16), ((True,), 1, 8)],
)
def test_the_same_weights_give_the_same_output(attention, layers, size, getkey):
    peer = theirs(attention, layers)
    unet = with_weights_of(ours(attention, layers), peer)
    x = jax.random.normal(getkey(), (3, size, size, 3))
    timesteps, labels = np.array([0, 17, 250]), np.array([0, 2, CLASSES])
    with torch.no_grad():
        expected = peer(
            torch.tensor(np.asarray(x.transpose(0, 3, 1, 2))),
            torch.tensor(timesteps),
            torch.tensor(labels),
        ).sample.numpy()
    found = eqx.filter_jit(unet)(x, jnp.asarray(timesteps, jnp.float32), jnp.asarray(labels))
    expected = expected.transpose(0, 2, 3, 1)
    assert 0.1 < expected.std() < 10
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)
