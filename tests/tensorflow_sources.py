"""tf.data and tfds as sources. `test_sources.py` runs this file by pytest in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from diffusion_eqx.data import as_dataset
from diffusion_eqx.testing import check_dataset
from diffusion_eqx.training import Callback
from tests.image_fit import fit_images
from tests.source_sets import COUNT, IMAGES, LABELS, NAMES, tf_data, tfds_source


def same(record):
    return record


def stateless_noise(record):
    noise = tf.random.stateless_uniform((6, 5, 1), (1, record["label"]), 0, 255, tf.int32)
    return {**record, "image": tf.cast(noise, tf.uint8)}


def noise_of_a_state(record):
    return {**record, "image": tf.cast(tf.random.uniform((6, 5, 1), 0, 255, tf.int32), tf.uint8)}


def by_python(record):
    (image,) = tf.numpy_function(lambda image: [image], [record["image"]], [tf.uint8])
    return {**record, "image": tf.ensure_shape(image, (6, 5, 1))}


def one_by_one(record):
    return tf.data.Dataset.from_tensors(record)


def generated():
    def generator():
        for image, label in zip(IMAGES, LABELS, strict=True):
            yield {"image": image, "label": label}

    signature = {"image": tf.TensorSpec((6, 5, 1), tf.uint8), "label": tf.TensorSpec((), tf.int64)}
    return tf.data.Dataset.from_generator(generator, output_signature=signature)


EXACT = {
    "slices": tf_data,
    "shuffled": lambda: tf_data().shuffle(10, seed=3),
    "in parallel": lambda: (
        tf_data().cache().shuffle(4, seed=1).map(same, num_parallel_calls=2).prefetch(2)
    ),
    "stateless noise": lambda: tf_data().map(stateless_noise),
}
UNSTEADY = {
    "no seed": (lambda: tf_data().shuffle(5), "shuffles without a seed"),
    "generator": (generated, "PyFunc is stateful"),
    "python": (lambda: tf_data().map(by_python), "PyFunc is stateful"),
    "noise": (lambda: tf_data().map(noise_of_a_state), "RandomUniformInt is stateful"),
    "first come": (
        lambda: tf_data().map(same, num_parallel_calls=2, deterministic=False),
        "takes what is ready first",
    ),
    "interleaved": (
        lambda: tf_data().interleave(one_by_one, num_parallel_calls=2, deterministic=False),
        "takes what is ready first",
    ),
}


def stream(name: str):
    return as_dataset(EXACT[name](), class_names=NAMES)


class StopAt(Callback):
    def step(self, run):
        run.stopping = run.step == 13


def test_tfds_is_read_by_number(tmp_path):
    data = as_dataset(tfds_source(tmp_path))
    check_dataset(data)
    assert (len(data), data.shape, data.class_names) == (COUNT, (6, 5, 1), NAMES)
    images, labels = data.batches(COUNT, seed=0)[0].values()
    order = [int(np.flatnonzero((one == IMAGES).all((1, 2, 3)))[0]) for one in images]
    assert sorted(order) == list(range(COUNT))
    np.testing.assert_array_equal(labels, LABELS[order])


@pytest.mark.parametrize("name", EXACT)
def test_a_stream_is_the_same_whenever_it_is_read(name):
    source = EXACT[name]()
    expected = [record["image"] for record in EXACT[name]().as_numpy_iterator()]
    # Somebody has looked into it before.
    next(iter(source))
    data = as_dataset(source, class_names=NAMES)
    batches = data.batches(6, seed=0)
    first = [batches[number] for number in range(10)]
    np.testing.assert_array_equal(np.concatenate([b["images"] for b in first[:4]]), expected)
    again = data.batches(6, seed=1)
    for number in (9, 2):
        for key, rows in again[number].items():
            np.testing.assert_array_equal(rows, first[number][key])
    for stop in (1, 4, 7):
        before, after = data.batches(6, seed=0), data.batches(6, seed=0)
        for number in range(stop):
            before[number]
        after.restore(json.loads(json.dumps(before.state())))
        for number in range(stop, 10):
            np.testing.assert_array_equal(after[number]["images"], first[number]["images"])


@pytest.mark.parametrize("name", UNSTEADY)
def test_what_would_give_other_examples_is_refused(name):
    make, message = UNSTEADY[name]
    with pytest.raises(ValueError, match=message) as caught:
        as_dataset(make(), class_names=NAMES, length=COUNT)
    assert 'resume="approximate"' in str(caught.value)
    data = as_dataset(make(), class_names=NAMES, length=COUNT, resume="approximate")
    assert data.batches(4, seed=0)[3]["images"].shape == (4, 6, 5, 1)


def test_pairs_pictures_and_lengths():
    pictures = [tf.io.encode_jpeg(np.full((8, 8, 3), 10 * k, np.uint8)).numpy() for k in range(4)]
    data = as_dataset(
        tf.data.Dataset.from_tensor_slices((pictures, list(range(4)))), num_classes=4, size=4
    )
    batch = data.batches(4, seed=0)[0]
    np.testing.assert_allclose(batch["images"][:, 0, 0, 0], [0, 10, 20, 30], atol=2)
    np.testing.assert_array_equal(batch["labels"], range(4))
    with pytest.raises(ValueError, match="give the number as length="):
        as_dataset(tf_data().repeat(), num_classes=3)
    with pytest.raises(ValueError, match="an image is an array"):
        as_dataset(tf_data().batch(4), num_classes=3)


def test_runs_go_on_in_another_process(tmp_path):
    """From the state of the stream, and by reading it again where that is lost."""
    names = ("shuffled", "in parallel")
    whole = [fit_images(stream(name)) for name in names]
    for name in names:
        fit_images(stream(name), tmp_path / name, callbacks=[StopAt()])
    (tmp_path / "shuffled" / "stream.json").unlink()
    code = (
        "import sys; import numpy as np; from pathlib import Path\n"
        "from tests.tensorflow_sources import stream, fit_images\n"
        "folder = Path(sys.argv[1])\n"
        "np.save(folder / 'x.npy', [fit_images(stream(n), folder / n) for n in sys.argv[2:]])"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *names], cwd=root, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), whole, rtol=0, atol=1e-6)
