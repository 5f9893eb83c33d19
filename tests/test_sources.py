"""Data sets of Hugging Face, grain and TensorFlow: the laws of a data set, and of a run that goes on."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest
from PIL import Image

from diffusion_eqx.config import DDIMConfig, UNetBackboneConfig
from diffusion_eqx.data import PartialBatches, ResumableBatches, as_dataset
from diffusion_eqx.models import DDIMModel
from diffusion_eqx.testing import check_dataset
from diffusion_eqx.training import Callback, DataMismatch, check_data
from tests.image_fit import fit_images
from tests.source_sets import COUNT, IMAGES, LABELS, NAMES, grain_map, hugging_face

ROOT = Path(__file__).parents[1]

BY_NUMBER = {
    "Hugging Face": hugging_face,
    "Hugging Face as arrays": lambda: hugging_face().with_format("numpy"),
    "grain": grain_map,
    "pairs": lambda: list(zip(IMAGES, LABELS.tolist(), strict=True)),
}
STREAMS = {
    "Hugging Face": lambda: hugging_face().to_iterable_dataset(num_shards=2),
    "grain": lambda: grain_map().shuffle(seed=1).to_iter_dataset(),
}


def stream(name: str):
    return as_dataset(STREAMS[name](), length=COUNT, num_classes=3)


class StopAt(Callback):
    def __init__(self, number):
        self.number = number

    def step(self, run):
        run.stopping = run.step == self.number


# Sources read by number.


@pytest.mark.parametrize("name", BY_NUMBER)
def test_what_is_read_by_number_keeps_the_laws_of_a_data_set(name):
    data = as_dataset(BY_NUMBER[name]())
    check_dataset(data)
    assert (len(data), data.shape, data.num_classes) == (COUNT, (6, 5, 1), 3)
    assert data.class_names == (NAMES if "Hugging" in name else ())
    np.testing.assert_array_equal(data.labels, LABELS)
    batch = data.batches(COUNT, seed=0)[0]
    # Each image is there, with its own label.
    order = [int(np.flatnonzero((one == IMAGES).all((1, 2, 3)))[0]) for one in batch["images"]]
    assert sorted(order) == list(range(COUNT))
    np.testing.assert_array_equal(batch["labels"], LABELS[order])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_process_reads_its_own_rows_and_no_other(processes):
    class Counting(list):
        read: list = []  # noqa: RUF012

        def __getitem__(self, number):
            self.read.append(number)
            return super().__getitem__(number)

    source = Counting(zip(IMAGES, LABELS.tolist(), strict=True))
    data = as_dataset(source)
    whole = data.batches(8, seed=3)[5]
    parts = data.batches(8, seed=3)
    assert isinstance(parts, PartialBatches)
    each = 8 // processes
    source.read.clear()
    read = [parts.part(5, slice(p * each, (p + 1) * each)) for p in range(processes)]
    assert len(source.read) == 8
    for key, rows in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[key] for part in read]), rows)


def test_labels_may_be_given_or_left_out():
    source = hugging_face()
    others = (LABELS + 1) % 3
    data = as_dataset(source, labels=others)
    np.testing.assert_array_equal(data.labels, others)
    check_dataset(data)
    bare = as_dataset(source, label=None)
    assert (bare.labels, bare.num_classes, bare.class_names) == (None, None, ())
    check_dataset(bare)
    assert as_dataset(grain_map(), num_classes=5).num_classes == 5
    assert as_dataset(list(IMAGES)).labels is None


def encoded(pixels, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def test_pictures_are_decoded_as_those_of_a_folder():
    """Turned by EXIF, composed on white, scaled and cut; grey among colours."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.zeros((8, 4, 3), np.uint8)
    upright[:4] = 250
    rgba = np.zeros((16, 8, 4), np.uint8)
    rgba[:8, :, 3] = 255
    records = [
        {"image": encoded(np.ascontiguousarray(np.rot90(upright)), exif=exif)},
        {"image": {"bytes": encoded(rgba), "path": None}},
        {"image": Image.fromarray(upright)},
        {"image": encoded(upright[..., 0], "JPEG", quality=98)},
        {"image": np.repeat(upright, 2, axis=0).repeat(2, axis=1)},
    ]
    data = as_dataset(records, size=(8, 4), channels=3)
    found = {one.tobytes(): one for one in data.batches(5, seed=0)[0]["images"]}
    exact = [one for one in found.values() if np.array_equal(one, upright)]
    assert len(exact) >= 1
    assert all(one.shape == (8, 4, 3) for one in found.values())
    dark_above = [one for one in found.values() if one[0].max() < 5 and one[-1].min() > 250]
    assert len(dark_above) == 1
    for one in found.values():
        if one is not dark_above[0]:
            np.testing.assert_allclose(one[0], 250, atol=4)
            np.testing.assert_allclose(one[-1], 0, atol=4)


def test_floats_keep_their_values():
    pixels = np.linspace(-1.0, 1.0, 4 * 9, dtype=np.float32).reshape(4, 3, 3)
    found = as_dataset(list(pixels)).batches(4, seed=0)[0]["images"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.sort(found.ravel()), pixels.ravel())


# Streams.


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_gives_its_own_order_again_and_again(name):
    data = stream(name)
    expected = [np.asarray(record["image"]).reshape(6, 5, 1) for record in STREAMS[name]()]
    batches = data.batches(6, seed=0)
    assert isinstance(batches, ResumableBatches)
    first = [batches[number] for number in range(6)]
    np.testing.assert_array_equal(np.concatenate([b["images"] for b in first[:4]]), expected)
    # The second pass begins after the last batch of the first.
    assert first[4]["images"].shape == (6, 6, 5, 1)
    for number in (5, 0, 3):
        for key, rows in data.batches(6, seed=7)[number].items():
            np.testing.assert_array_equal(rows, first[number][key])
            np.testing.assert_array_equal(batches[number][key], rows)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_goes_on_from_its_state(name, caplog):
    data = stream(name)
    batches = data.batches(5, seed=0)
    all_of_them = [batches[number] for number in range(12)]
    for stop in (1, 4, 5, 9):
        before = data.batches(5, seed=0)
        for number in range(stop):
            before[number]
        after = data.batches(5, seed=0)
        after.restore(json.loads(json.dumps(before.state())))
        for number in range(stop, 12):
            np.testing.assert_array_equal(after[number]["images"], all_of_them[number]["images"])
    assert "again" not in caplog.text


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_a_run_on_a_stream_goes_on_as_if_it_had_not_been_stopped(name, damaged, tmp_path, caplog):
    whole = fit_images(stream(name))
    folder = tmp_path / "run"
    fit_images(stream(name), folder, callbacks=[StopAt(13)])
    assert [state["batch"] for state in json.loads((folder / "stream.json").read_text())] == [5, 10]
    if damaged:
        (folder / "stream.json").write_text('[{"batch": 10')
    with caplog.at_level(logging.WARNING):
        resumed = fit_images(stream(name), folder)
    np.testing.assert_array_equal(resumed, whole)
    assert ("read again from its start" in caplog.text) == damaged
    skipped = re.findall(r"reading (\d+) batches of the stream again", caplog.text)
    assert skipped == (["13"] if damaged else ["3"])


def test_streams_that_would_give_other_examples_are_refused():
    import grain

    shuffled = hugging_face().to_iterable_dataset().shuffle(seed=1, buffer_size=4)
    random = np.random.default_rng(0)

    def noisy(record):
        return {**record, "image": random.integers(0, 256, (6, 5, 1), np.uint8)}

    unsteady = grain_map().to_iter_dataset().map(noisy)
    assert isinstance(unsteady, grain.IterDataset)
    cases = ((shuffled, "loses the examples in its buffer"), (unsteady, "read a second time"))
    for source, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            as_dataset(source, length=COUNT, num_classes=3)
        assert 'resume="approximate"' in str(caught.value)
        data = as_dataset(source, length=COUNT, num_classes=3, resume="approximate")
        assert "resumed approximately" in repr(data)
        batches = data.batches(4, seed=0)
        # What was given is not given again: a stream that cannot be read again is read on.
        given = [batches[number]["images"] for number in (0, 1, 0)]
        assert not np.array_equal(given[0], given[2])


def test_a_run_on_an_unsteady_stream_goes_on_with_other_examples(tmp_path):
    random = np.random.default_rng(0)

    def noisy(record):
        return {**record, "image": random.integers(0, 256, (6, 5, 1), np.uint8)}

    def unsteady():
        source = grain_map().to_iter_dataset().map(noisy)
        return as_dataset(source, length=COUNT, num_classes=3, resume="approximate")

    steps = []

    class Count(Callback):
        def step(self, run):
            steps.append(run.step)

    fit_images(unsteady(), tmp_path / "run", callbacks=[StopAt(13)])
    fit_images(unsteady(), tmp_path / "run", callbacks=[Count()])
    assert steps == list(range(14, 21))


@pytest.mark.parametrize(
    ("classes", "message"),
    [(3, None), (4, "the data have 3 classes, the model has 4"), (None, "the model has none")],
)
def test_a_stream_is_checked_against_a_model(classes, message, getkey):
    backbone = UNetBackboneConfig(hidden_dims=(8,), num_classes=classes, attention_resolutions=())
    config = DDIMConfig(input_shape=(6, 5, 1), backbone=backbone)
    model = eqx.filter_eval_shape(DDIMModel, config, key=getkey())
    if message is None:
        check_data(model, stream("grain"))
    else:
        with pytest.raises(DataMismatch, match=message):
            check_data(model, stream("grain"))


# What is wrong.


def labels_of(source, **options):
    """They are read when they are asked for."""
    return as_dataset(source, **options).labels


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ([], {}, "no examples"),
        ([{"picture": IMAGES[0]}], {}, "no field 'image', but 'picture': give the name"),
        (
            [(IMAGES[0], 0), (IMAGES[1][:5], 1)],
            {},
            r"example 1 is a uint8 image of shape \(5, 5, 1\)",
        ),
        ([IMAGES[0] / 255.0] * 2, {}, "no number below 0"),
        ([IMAGES[0] * 1.0], {}, r"must lie in \[-1, 1\]"),
        ([np.full((4, 4, 1), np.nan)], {}, "NaN"),
        ([np.zeros((2, 4, 4, 1), np.uint8)], {}, r"example 0: an image is an array"),
        ([b"no picture"], {}, "example 0: no picture format"),
        ([encoded(np.zeros((9, 9), np.uint8))[:-30]], {}, "example 0: "),
        ([(IMAGES[0], "cat")], {}, "a label is one whole number; got 'cat'"),
        ([(IMAGES[0], 0), (IMAGES[1], -1)], {}, "labels must be 0 or more"),
        ([(IMAGES[0], 0), (IMAGES[1], 7)], {"num_classes": 3}, "give num_classes=8"),
        ([(IMAGES[0], 0), (IMAGES[1], 7)], {"class_names": ("a", "b")}, "only 2 names"),
        ([None], {}, "there is no record; filter before"),
        (list(IMAGES), {"size": 0}, "size must be"),
        (list(IMAGES), {"length": 3}, "length= is for streams"),
        (list(IMAGES), {"resume": "approximate"}, "is for streams"),
        (list(IMAGES), {"labels": [1, 2]}, f"labels must be {COUNT} integers"),
    ],
)
def test_records_that_are_no_examples_are_named(source, options, message):
    with pytest.raises(ValueError, match=message):
        labels_of(source, **options)


def test_sources_that_are_none_are_refused():
    with pytest.raises(TypeError, match="a generator is no source"):
        as_dataset(image for image in IMAGES)
    with pytest.raises(ValueError, match="leave out repeat"):
        as_dataset(grain_map().repeat())
    with pytest.raises(ValueError, match="give the number as length="):
        as_dataset(grain_map().to_iter_dataset())
    with pytest.raises(ValueError, match="give class_names= or num_classes="):
        as_dataset(grain_map().to_iter_dataset(), length=COUNT)
    with pytest.raises(ValueError, match="those of a stream are in its records"):
        as_dataset(grain_map().to_iter_dataset(), length=COUNT, labels=LABELS)


def test_a_label_of_no_class_ends_the_run_with_its_place():
    records = [{"image": image, "label": 0} for image in IMAGES]
    records[20]["label"] = 5
    import grain

    data = as_dataset(grain.MapDataset.source(records).to_iter_dataset(), length=24, num_classes=3)
    with pytest.raises(ValueError, match=r"example 20 of the stream has the label 5, .* 0 to 2"):
        fit_images(data)


# TensorFlow.


def test_the_library_loads_none_of_these_packages():
    code = (
        "import sys, diffusion_eqx as dx; dx.data.as_dataset([[[0]]]); dx.training.fit; "
        "print({'tensorflow', 'tensorflow_datasets', 'datasets', 'grain'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_tensorflow_is_read():
    """In a process of its own: it takes threads, memory and signals that jax's tests need."""
    file = "tests/tensorflow_sources.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 12
    assert "skipped" not in done.stdout
