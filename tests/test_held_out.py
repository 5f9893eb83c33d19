"""The loss on examples that are not trained on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.config import DDIMConfig, TrainingConfig, UNetBackboneConfig
from diffusion_eqx.data import ArrayDataset, ImageDataset, digits
from diffusion_eqx.exact import GaussianDenoiser
from diffusion_eqx.models import DDIMModel
from diffusion_eqx.training import CENTRES, Callback, held_out_loss, split_held_out, train
from tests.catalogue import SCHEDULES

STD = 0.5


@pytest.mark.parametrize("name", ["vp", "flow", "linear", "edm"])
def test_the_loss_of_the_exact_denoiser_is_known(name):
    """The variance of x0 given x is 1/(1/std² + snr), whatever the schedule."""
    schedule = SCHEDULES[name]
    examples = STD * np.random.default_rng(0).normal(size=(4000, 4)).astype(np.float32)
    denoiser = GaussianDenoiser(jnp.zeros(4), jnp.full(4, STD), schedule)
    found = held_out_loss(denoiser, examples, key=jax.random.key(0))
    snr = np.exp(np.asarray(CENTRES))
    variance = 1.0 / (STD**-2 + snr)
    cleanest, noisiest = np.asarray(
        schedule.at(jnp.asarray([1.0 / schedule.num_timesteps, 1.0])).log_snr
    )
    for centre, bin, expected in zip(CENTRES, found["bins"], (1 + snr) * variance, strict=True):
        if noisiest <= centre <= cleanest:
            assert bin == pytest.approx(expected, rel=0.05)
        else:
            assert bin is None
    inside = [bin is not None for bin in found["bins"]]
    assert sum(inside) >= 10
    expected = 0.5 * 1.25 * np.sum(np.where(inside, snr * variance, 0.0))
    assert found["total"] == pytest.approx(expected, rel=0.02)


def test_the_noise_of_an_example_does_not_depend_on_the_batch():
    examples = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    denoiser = GaussianDenoiser(jnp.zeros(2), jnp.ones(2), SCHEDULES["vp"])
    one, other = (
        held_out_loss(denoiser, examples, key=jax.random.key(0), batch_size=size)["bins"]
        for size in (30, 7)
    )
    np.testing.assert_allclose(
        [b for b in one if b is not None], [b for b in other if b is not None], rtol=1e-5
    )


def test_equal_examples_are_on_one_side_and_all_are_somewhere():
    images = digits().images
    twice = ImageDataset(np.concatenate([images, images[:100]]), None)
    kept, held = split_held_out(twice, 0.2)
    assert len(kept) + len(held) == len(twice)
    assert 0.15 < len(held) / len(twice) < 0.25
    sides = [{image.tobytes() for image in part.images} for part in (kept, held)]
    assert not sides[0] & sides[1]
    fewer, _ = split_held_out(ImageDataset(images[:500]), 0.2)
    assert {image.tobytes() for image in fewer.images} <= sides[0]


def test_labels_stay_with_their_examples():
    data = ArrayDataset(np.arange(200, dtype=np.float32)[:, None], np.arange(200) % 7)
    for part in split_held_out(data, 0.3):
        np.testing.assert_array_equal(part.labels, part.examples[:, 0].astype(int) % 7)
    with pytest.raises(ValueError, match="both parts must have some"):
        split_held_out(data, 1e-9)
    with pytest.raises(TypeError, match="only data in memory"):
        split_held_out(object(), 0.5)


def test_a_run_reports_it_and_a_resumed_one_the_same(tmp_path):
    data = digits()
    network = UNetBackboneConfig(
        hidden_dims=(8,), time_embedding_dim=8, num_classes=10, attention_resolutions=()
    )
    config = DDIMConfig.for_data(data, backbone=network)
    model = DDIMModel(config, key=jax.random.key(0))
    config = TrainingConfig(
        steps=6, batch_size=16, log_every=1, checkpoint_every=2, held_out=0.1, held_out_every=2
    )

    class Stop(Callback):
        def step(self, run):
            run.stopping = run.step == 3

    train(model, data, config, out=tmp_path / "whole")
    train(model, data, config, out=tmp_path / "run", callbacks=[Stop()])
    train(model, data, config, out=tmp_path / "run")
    texts = [(tmp_path / name / "held_out.jsonl").read_text() for name in ("whole", "run")]
    assert texts[0] == texts[1]
    lines = [json.loads(line) for line in texts[0].splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[-1]["total"] < lines[0]["total"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "held_out" in row] == [2, 4, 6]
    assert rows[-1]["held_out"] == lines[-1]["total"]
