import dataclasses
import subprocess
import sys

import pydantic
import pytest

from diffusion_eqx.config import (
    DDIMConfig,
    DDPMConfig,
    DiffusionTrainingConfig,
    NoiseScheduleConfig,
    NoisyClassifierConfig,
    UNetBackboneConfig,
    from_json,
    to_json,
)

CONFIGS = [
    UNetBackboneConfig(hidden_dims=(8, 16), attention_resolutions=(14,), num_classes=3),
    UNetBackboneConfig(hidden_dims=(64,), channel_mult=(1, 2, 4)),
    NoiseScheduleConfig(schedule_type="cosine", num_timesteps=10),
    DDPMConfig(prediction_type="sample", loss_type="huber"),
    DDIMConfig(input_shape=(32, 24, 1), num_inference_steps=7, eta=0.5),
    DiffusionTrainingConfig(steps=3, warmup_steps=0),
    NoisyClassifierConfig(hidden_dims=(8,), num_classes=3),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_json_round_trip(config):
    assert from_json(type(config), to_json(config)) == config


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_configs_are_frozen_and_hashable(config):
    assert hash(config) == hash(dataclasses.replace(config))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.name = "other"


@pytest.mark.parametrize(
    ("kind", "wrong", "names"),
    [
        (UNetBackboneConfig, {"hidden_dims": (8, -1)}, ["hidden_dims", "-1", "greater"]),
        (UNetBackboneConfig, {"activation": "sulu"}, ["activation", "sulu", "silu"]),
        (UNetBackboneConfig, {"dropout": 1.0}, ["dropout", "less than 1"]),
        (UNetBackboneConfig, {"hidden_dim": (8,)}, ["hidden_dim", "nexpected"]),
        (
            UNetBackboneConfig,
            {"hidden_dims": (64, 128), "channel_mult": (1, 3)},
            ["hidden_dims", "channel_mult", "(64, 192)"],
        ),
        (NoiseScheduleConfig, {"schedule_type": "quadratic"}, ["schedule_type", "cosine"]),
        (NoiseScheduleConfig, {"beta_start": 0.5, "beta_end": 0.1}, ["beta_start", "beta_end"]),
        (NoiseScheduleConfig, {"beta_end": float("nan")}, ["beta_end", "nan"]),
        (DDPMConfig, {"input_shape": (28, 28, 3)}, ["in_channels", "3 channels"]),
        (DDIMConfig, {"num_inference_steps": 2000}, ["num_inference_steps", "1000"]),
        (DDIMConfig, {"eta": 2.0}, ["eta", "2.0"]),
        (DDIMConfig, {"guidance_interval": (0.9, 0.1)}, ["guidance_interval", "0.9"]),
        (DiffusionTrainingConfig, {"steps": 5, "warmup_steps": 5}, ["warmup_steps", "steps=5"]),
    ],
)
def test_wrong_values_say_field_value_and_remedy(kind, wrong, names):
    with pytest.raises(pydantic.ValidationError) as error:
        kind(**wrong)
    assert isinstance(error.value, ValueError)
    for name in names:
        assert name in str(error.value)


def test_configurations_do_not_import_jax():
    code = "import sys; import diffusion_eqx.config; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
