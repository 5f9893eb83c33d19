import dataclasses
import subprocess
import sys
import warnings

import pydantic
import pytest

from diffusion_eqx.config import (
    DEFAULT_WEIGHTING,
    DDIMConfig,
    DDPMConfig,
    DiffusionTrainingConfig,
    NoiseScheduleConfig,
    NoisyClassifierConfig,
    TrainingConfig,
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
    NoiseScheduleConfig(num_timesteps=100),
    NoiseScheduleConfig(beta_start=2e-4, beta_end=0.03),
    TrainingConfig(steps=3, warmup_steps=0),
    TrainingConfig(loss_weighting="snr", weight_decay=0.1, preview_every=7),
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
        (NoiseScheduleConfig, {"beta_end": 1.5}, ["beta_end=1.5", "less than 1"]),
        (DDPMConfig, {"input_shape": (28, 28, 3)}, ["in_channels", "3 channels"]),
        (DDIMConfig, {"num_inference_steps": 2000}, ["num_inference_steps", "1000"]),
        (DDIMConfig, {"eta": 2.0}, ["eta", "2.0"]),
        (DDIMConfig, {"guidance_interval": (0.9, 0.1)}, ["guidance_interval", "0.9"]),
        (TrainingConfig, {"steps": 5, "warmup_steps": 5}, ["warmup_steps", "steps=5"]),
        (TrainingConfig, {"loss_weighting": "min-snr"}, ["loss_weighting", "min_snr"]),
        (TrainingConfig, {"b2": 1.0}, ["b2", "less than 1"]),
        (TrainingConfig, {"log_every": -1}, ["log_every", "greater than or equal to 0"]),
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


def test_each_prediction_has_a_weighting_that_trains_all_noise_levels():
    """min-SNR is for those for which it was proposed; what is set is obeyed."""
    training = TrainingConfig()
    assert {name: training.weighting_of(name) for name in DEFAULT_WEIGHTING} == {
        **dict.fromkeys(("epsilon", "sample", "v_prediction"), "min_snr"),
        **dict.fromkeys(("score", "velocity", "edm"), "uniform"),
    }
    assert TrainingConfig(loss_weighting="snr").weighting_of("velocity") == "snr"
    with pytest.raises(ValueError, match=r"'noise'.*epsilon, sample"):
        training.weighting_of("noise")


def test_one_class_has_two_names():
    assert DiffusionTrainingConfig is TrainingConfig


def test_short_runs_have_a_short_warm_up():
    assert [TrainingConfig(steps=steps).warmup for steps in (1, 5, 200, 1000, 10**6)] == [
        *(0, 0, 20, 100, 100),
    ]
    assert TrainingConfig(steps=200, warmup_steps=7).warmup == 7


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "sigmoid", "vp"])
def test_default_betas_leave_as_little_signal_for_any_number_of_timesteps(kind):
    usual = NoiseScheduleConfig(schedule_type=kind)
    assert usual.betas == (1e-4, 2e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for total in (5, 10, 50, 100, 500, 4000):
            scaled = dataclasses.replace(usual, num_timesteps=total)
            assert scaled.signal_at_end < max(2.5 * usual.signal_at_end, 0.05), total


def test_what_is_left_of_the_signal_is_that_of_the_schedule():
    from diffusion_eqx.schedules import (
        DiscreteSchedule,
        VPSchedule,
        linear_betas,
        scaled_linear_betas,
        sigmoid_betas,
    )

    betas_of = {
        "linear": linear_betas,
        "scaled_linear": scaled_linear_betas,
        "sigmoid": sigmoid_betas,
    }
    for total in (40, 1000):
        for kind, function in betas_of.items():
            config = NoiseScheduleConfig(schedule_type=kind, num_timesteps=total)
            schedule = DiscreteSchedule(function(total, *config.betas))
            assert config.signal_at_end == pytest.approx(float(schedule.at(1.0).alpha), rel=1e-4)
        config = NoiseScheduleConfig(schedule_type="vp", num_timesteps=total)
        first, last = (total * beta for beta in config.betas)
        schedule = VPSchedule(first, last, num_timesteps=total)
        assert config.signal_at_end == pytest.approx(float(schedule.at(1.0).alpha), rel=1e-4)


def test_betas_that_leave_signal_at_the_end_are_said_with_the_remedy():
    for kind in ("linear", "scaled_linear", "sigmoid", "vp"):
        with pytest.warns(UserWarning, match=r"of the signal at t = 1 .*Leave out beta_start"):
            NoiseScheduleConfig(
                schedule_type=kind, num_timesteps=100, beta_start=1e-4, beta_end=2e-2
            )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NoiseScheduleConfig(schedule_type="cosine", num_timesteps=100, beta_end=2e-2)
        # What Stable Diffusion was trained with.
        NoiseScheduleConfig(schedule_type="scaled_linear", beta_start=0.00085, beta_end=0.012)
        NoiseScheduleConfig(beta_start=1e-5, beta_end=2e-3, rescale_zero_terminal_snr=True)


def test_files_with_explicit_betas_mean_what_they_meant():
    text = (
        '{"name": "schedule", "schedule_type": "linear", "num_timesteps": 500, "beta_start": 0.0001, '
        '"beta_end": 0.02, "sigma_min": 0.002, "sigma_max": 80.0, "rescale_zero_terminal_snr": false}'
    )
    assert from_json(NoiseScheduleConfig, text).betas == (1e-4, 2e-2)


def test_the_betas_of_vp_are_rates_and_may_exceed_one():
    config = NoiseScheduleConfig(schedule_type="vp", num_timesteps=10)
    assert config.betas == pytest.approx((0.01, 2.0))
    assert (
        from_json(NoiseScheduleConfig, to_json(dataclasses.replace(config, beta_end=2.0))).betas[1]
        == 2.0
    )
