"""The classifier of noisy images: it learns, is saved, and guides from the command line."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.cli import main
from diffusion_eqx.config import DDIMConfig, NoiseScheduleConfig, NoisyClassifierConfig
from diffusion_eqx.data import ImageDataset, digits
from diffusion_eqx.evaluation import noisy_accuracy
from diffusion_eqx.models import (
    DDIMModel,
    ModelFileError,
    NoisyClassifier,
    load_classifier,
    save_classifier,
    save_model,
)
from diffusion_eqx.training import train_noisy_classifier
from tests.perturbed import perturbed

# Many programs are compiled here.
pytestmark = pytest.mark.long

NOISE = NoiseScheduleConfig(schedule_type="cosine")
CONFIG = NoisyClassifierConfig(
    input_shape=(8, 8, 1), noise_schedule=NOISE, hidden_dims=(8, 16), time_embedding_dim=16
)


@pytest.fixture(scope="module")
def trained():
    data = digits()
    seen = ImageDataset(data.images[:1500], data.labels[:1500])
    return train_noisy_classifier(
        seen, CONFIG, epochs=15, learning_rate=5e-3, key=jax.random.key(0)
    )


def test_it_knows_unseen_digits_the_better_the_cleaner_they_are(trained, getkey):
    images, labels = digits().images[1500:], digits().labels[1500:]
    found = [noisy_accuracy(trained, images, labels, t, key=getkey()) for t in (0.05, 0.4, 0.7)]
    assert found[0] > 0.85, found
    assert found[0] > found[1] > found[2] > 0.2, found
    pure_noise = noisy_accuracy(trained, images, labels, 1.0, key=getkey())
    assert pure_noise < 0.2


def test_it_knows_what_it_does_not_know(trained, getkey):
    """The probability that it claims is that of being right, at every noise level."""
    images, labels = jnp.asarray(digits().images[1500:]), digits().labels[1500:]
    for t in (0.5, 0.7, 0.95):
        level = trained.schedule.at(t)
        x = level.noised(images, jax.random.normal(getkey(), images.shape))
        probability = np.asarray(jax.nn.softmax(trained(x, level)))
        right = probability.argmax(1) == labels
        assert abs(probability.max(1).mean() - right.mean()) < 0.12


def test_a_level_may_be_one_for_all_or_one_for_each(trained, getkey):
    x = jax.random.normal(getkey(), (3, 8, 8, 1))
    times = jnp.array([0.2, 0.5, 0.9])
    each = trained(x, trained.schedule.at(times))
    for number, time in enumerate(times):
        one = trained(x, trained.schedule.at(time))
        np.testing.assert_allclose(each[number], one[number], rtol=1e-4, atol=1e-5)
    # Inside a sampler's step, levels have the axes of x.
    wide = trained(x, trained.schedule.at(times).over(x))
    np.testing.assert_allclose(wide, each, rtol=1e-5, atol=1e-6)


def test_a_fresh_one_knows_nothing(getkey):
    fresh = eqx.nn.inference_mode(NoisyClassifier(CONFIG, key=getkey()))
    x = jax.random.normal(getkey(), (2, 8, 8, 1))
    np.testing.assert_array_equal(fresh(x, fresh.schedule.at(0.5)), 0.0)


def test_images_and_labels_that_do_not_fit_are_refused(trained, getkey):
    images, labels = digits().images[:4], digits().labels[:4]
    with pytest.raises(ValueError, match=r"\(8, 8, 1\); got \(8, 6, 1\)"):
        noisy_accuracy(trained, images[:, :, :6], labels, 0.1, key=getkey())
    with pytest.raises(ValueError, match="labels must be 4"):
        noisy_accuracy(trained, images, labels[:1], 0.1, key=getkey())


def test_a_saved_classifier_is_the_same_one(trained, tmp_path):
    path = tmp_path / "deep" / "classifier.safetensors"
    save_classifier(path, trained, training={"epochs": 15})
    saved = load_classifier(path)
    assert eqx.tree_equal(saved.classifier, trained)
    assert saved.training == {"epochs": 15}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_other_files_are_refused(small_config, tmp_path, getkey):
    path = tmp_path / "model.safetensors"
    save_model(path, DDIMModel(small_config, key=getkey()))
    with pytest.raises(ModelFileError, match="not a diffusion_eqx classifier"):
        load_classifier(path)
    with pytest.raises(FileNotFoundError):
        load_classifier(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("data", "config", "message"),
    [
        (ImageDataset(digits().images), CONFIG, "needs labels"),
        (digits(), NoisyClassifierConfig(input_shape=(9, 8, 1)), r"\(9, 8, 1\)"),
        (digits(), NoisyClassifierConfig(input_shape=(8, 8, 1), num_classes=3), "3 classes"),
        (ImageDataset(digits().images[:50], digits().labels[:50]), CONFIG, "batch_size"),
    ],
    ids=["labels", "shape", "classes", "batch"],
)
def test_data_that_do_not_fit_are_refused(data, config, message):
    with pytest.raises(ValueError, match=message):
        train_noisy_classifier(data, config, key=jax.random.key(0))


def test_training_needs_an_epoch():
    with pytest.raises(ValueError, match="epochs"):
        train_noisy_classifier(digits(), CONFIG, epochs=0, key=jax.random.key(0))


@pytest.fixture
def files(small_config, trained, tmp_path, getkey):
    """A folder with an unconditional and a conditional model, of weights that mean nothing, and the
    classifier.
    """
    for name, classes in (("plain", None), ("conditional", 10)):
        config = dataclasses.replace(
            small_config, backbone=dataclasses.replace(small_config.backbone, num_classes=classes)
        )
        model = DDIMModel(config, key=getkey())
        noisy = perturbed(model.denoiser.backbone, key=getkey(), scale=0.05)
        model = eqx.tree_at(lambda m: m.denoiser.backbone, model, noisy)
        save_model(tmp_path / f"{name}.safetensors", model)
    save_classifier(tmp_path / "classifier.safetensors", trained)
    return tmp_path


def command(files, model, *options):
    out = files / "images.npy"
    common = ["-n", "20", "--steps", "20", "--seed", "1", "-o", str(out)]
    main(["sample", str(files / f"{model}.safetensors"), *common, *map(str, options)])
    return np.load(out)


def guided_by(files, *options):
    return ("--guidance", "classifier", "--classifier", files / "classifier.safetensors", *options)


@pytest.mark.parametrize("model", ["plain", "conditional"])
def test_the_command_line_guides_every_image_to_its_own_label(model, files, trained):
    labels = [3, 8, 0, 6]
    options = ("--guidance-scale", 6, "--labels", *labels)
    images = command(files, model, *guided_by(files, *options))
    wanted = np.array(labels * 5)
    assert noisy_accuracy(trained, images, wanted, 0.001, key=jax.random.key(0)) > 0.7
    unguided = command(files, model, *guided_by(files, "--guidance-scale", 0, "--labels", *labels))
    assert noisy_accuracy(trained, unguided, wanted, 0.001, key=jax.random.key(0)) < 0.5


def test_without_labels_it_takes_all_classes_in_turn(files):
    every = command(files, "plain", *guided_by(files, "--labels", *range(10)))
    np.testing.assert_array_equal(command(files, "plain", *guided_by(files)), every)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("plain", lambda f: ["--guidance", "classifier"], "need each other"),
        ("plain", lambda f: ["--classifier", f / "classifier.safetensors"], "need each other"),
        ("plain", lambda f: guided_by(f, "--labels", 10), "0 … 9"),
        ("plain", lambda f: guided_by(f, "--rescale", 0.5), "rescale"),
        ("plain", lambda f: guided_by(f, "--weak-model", f / "plain.safetensors"), "auto"),
        ("plain", lambda f: ["--labels", 3], "unconditional"),
        ("plain", lambda f: ["--guidance-scale", 2], "unconditional"),
    ],
    ids=["no file", "no guidance", "label", "rescale", "weak", "labels", "scale"],
)
def test_wrong_combinations_are_refused(model, options, message, files, capsys):
    with pytest.raises(SystemExit) as exit:
        command(files, model, *options(files))
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_schedule": NoiseScheduleConfig(schedule_type="linear")}, "another noise"),
        ({"input_shape": (8, 6, 1)}, "(8, 6, 1)"),
        ({"num_classes": 4}, "knows 4 classes"),
    ],
    ids=["noise", "shape", "classes"],
)
def test_classifiers_of_something_else_are_refused(change, message, files, capsys, getkey):
    other = NoisyClassifier(dataclasses.replace(CONFIG, **change), key=getkey())
    save_classifier(files / "classifier.safetensors", other)
    with pytest.raises(SystemExit):
        command(files, "conditional", *guided_by(files))
    assert message in capsys.readouterr().err


def test_the_command_line_trains_one(tmp_path):
    path = tmp_path / "c.safetensors"
    options = ["--data", "digits", "--epochs", "3", "--hidden-dims", "8", "16"]
    main(["train-classifier", "-o", str(path), *options])
    saved = load_classifier(path)
    assert saved.training["epochs"] == 3
    assert saved.classifier.config.noise_schedule == DDIMConfig(noise_schedule=NOISE).noise_schedule
    data = digits()
    assert (
        noisy_accuracy(saved.classifier, data.images, data.labels, 0.05, key=jax.random.key(0))
        > 0.3
    )
