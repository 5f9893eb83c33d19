"""Students as models: by one call and by one command, stopped and continued, drawn as they recommend."""

import equinox as eqx
import jax
import numpy as np
import pytest

from diffusion_eqx.cli import main
from diffusion_eqx.config import (
    DDIMConfig,
    NoiseScheduleConfig,
    SamplerConfig,
    TrainingConfig,
    UNetBackboneConfig,
)
from diffusion_eqx.data import digits
from diffusion_eqx.distillation import METHODS, distill
from diffusion_eqx.models import DDIMModel, load_model, save_model, with_sampler
from diffusion_eqx.training import Callback, DataMismatch, TrainingInterrupted

# Of 8x8 digits, with 10 classes.
CONFIG = DDIMConfig(
    name="teacher",
    input_shape=(8, 8, 1),
    backbone=UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8, num_classes=10),
    noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
    prediction_type="v_prediction",
)
TRAINING = TrainingConfig(steps=3, batch_size=8, warmup_steps=1, log_every=1)


@pytest.fixture(scope="module")
def teacher() -> DDIMModel:
    return DDIMModel(CONFIG, key=jax.random.key(0))


def weights(model) -> list[np.ndarray]:
    return [
        np.asarray(a) for a in jax.tree.leaves(eqx.filter(model.denoiser.backbone, eqx.is_array))
    ]


class InterruptsAt(Callback):
    """As a signal at a step, if `fit` came to it so often."""

    def __init__(self, number: int):
        self.left = number

    def step(self, run):
        self.left -= 1
        if self.left == 0:
            run.interrupt()


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_a_student_is_a_model_and_continues_where_it_was_stopped(method, teacher, tmp_path):
    stages = (2, 1) if method == "progressive" else (2, 4)
    guidance = None if method == "consistency_training" else 1.5
    given = {"method": method, "stages": stages, "guidance": guidance}
    student = distill(teacher, digits(), TRAINING, out=tmp_path / "whole", **given)
    name, steps = ("ddim", 1) if method == "progressive" else ("consistency", 2)
    assert student.config.recommended == SamplerConfig(name=name, steps=steps)
    assert teacher.config == CONFIG
    assert any(
        np.abs(a - b).max() > 1e-5 for a, b in zip(weights(student), weights(teacher), strict=True)
    )
    loaded = load_model(tmp_path / "whole/model.safetensors")
    assert loaded.config == student.config
    images = loaded.sample(2, labels=[3, 4], key=jax.random.key(1))
    np.testing.assert_array_equal(images, student.sample(2, labels=[3, 4], key=jax.random.key(1)))

    # Stopped in its second stage, and in the first one of a second start.
    torn = tmp_path / "torn"
    for number in (1, TRAINING.steps):
        with pytest.raises(TrainingInterrupted):
            distill(
                teacher, digits(), TRAINING, out=torn, callbacks=[InterruptsAt(number)], **given
            )
    lines = (torn / f"stage-{stages[1]}/log.jsonl").read_text().splitlines()
    assert 0 < len(lines) < TRAINING.steps
    resumed = distill(teacher, digits(), TRAINING, out=torn, **given)
    for one, other in zip(weights(resumed), weights(student), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_students_are_trained_by_one_command(teacher, tmp_path, capsys):
    save_model(tmp_path / "teacher.safetensors", teacher)
    common = ["train", "--data", "digits", "--training.steps", "1", "--training.batch-size", "8"]
    common += ["--training.warmup-steps", "0"]
    begin = ["--init-from", str(tmp_path / "teacher.safetensors")]
    for kind, stages in (("progressive", "1"), ("consistency", "2")):
        out = tmp_path / kind
        main([*common, *begin, "--kind", kind, "--stages", stages, "-o", str(out)])
        assert "in 1 steps" in capsys.readouterr().err or kind == "consistency"
        assert (out / f"stage-{stages}/run.json").exists()
        main(["info", str(out / "model.safetensors")])
        assert f"'{'ddim' if kind == 'progressive' else kind}'" in capsys.readouterr().out


def test_a_command_for_a_student_says_what_it_needs(teacher, tmp_path, capsys):
    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit:
            main(["train", "-o", str(tmp_path / "run"), *arguments])
        assert exit.value.code == 2
        return capsys.readouterr().err

    assert "give --init-from" in said("--kind", "progressive")
    assert "unknown --kind 'halved'" in said("--kind", "halved")
    file = tmp_path / "teacher.safetensors"
    save_model(file, teacher)
    begin = ("--init-from", str(file), "--training.batch-size", "8")
    assert "does not fit emoji" in said("--kind", "consistency", "--data", "emoji", *begin)
    guided = ("--kind", "consistency-training", "--guidance-scale", "2")
    assert "no teacher" in said(*guided, "--data", "digits", *begin)
    assert "half the steps" in said(
        *("--kind", "progressive", "--stages", "4", "3", "--data", "digits"), *begin
    )
    (tmp_path / "options.yaml").write_text("kind: progressive\nmodel: {name: x}\n")
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path / "options.yaml"), "-o", str(tmp_path / "run")])
    assert "there are not: model" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_does_not_go_together_is_refused(teacher):
    with pytest.raises(ValueError, match="method must be one of"):
        distill(teacher, digits(), TRAINING, method="halved")
    unlabelled = type(digits())(digits().images)
    with pytest.raises(DataMismatch):
        distill(teacher, unlabelled, TRAINING)


def test_another_sampler_is_recommended_by_the_same_model(teacher):
    other = with_sampler(teacher, SamplerConfig(name="unipc", steps=7))
    assert other.config.recommended.steps == 7
    assert teacher.config.sampler is None
    assert jax.tree.leaves(other) == jax.tree.leaves(teacher)
