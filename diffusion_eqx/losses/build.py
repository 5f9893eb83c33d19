"""From configurations to the loss of a model."""

from diffusion_eqx.config import DEFAULT_WEIGHTING, ModelConfig, TrainingConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.losses.denoising import DenoisingLoss
from diffusion_eqx.losses.times import (
    AbstractTimes,
    CosineTimes,
    LogitNormalTimes,
    LogNormalTimes,
    ModeTimes,
    ShiftedTimes,
    UniformTimes,
)
from diffusion_eqx.losses.variational import HybridLoss
from diffusion_eqx.losses.weights import (
    P2,
    SNR,
    AbstractWeight,
    Debiased,
    EDMWeight,
    MinSNR,
    SigmoidWeight,
    SoftMinSNR,
    Uniform,
)
from diffusion_eqx.parameterizations import AbstractParameterization, build_parameterization


def training_loss(
    denoiser: Denoiser, model: ModelConfig, training: TrainingConfig
) -> DenoisingLoss | HybridLoss:
    """The loss `(network, x0, cond, *, key) -> scalar` by which a model is trained.

    It is that of denoising; the variational bound is added if the variance is learnt (`learn_sigma`). Where
    `training.loss_weighting` is None, the prediction decides (`DEFAULT_WEIGHTING`).
    """
    simple = DenoisingLoss(
        denoiser,
        weight=build_weight(training, model),
        times=build_times(training),
        error=model.loss_type,
        space=_space(training, model),
        discrete=True if denoiser.learned_variance else None,
        label_dropout=0.0 if denoiser.null is None else training.label_dropout,
    )
    return HybridLoss(simple) if denoiser.learned_variance else simple


def build_weight(training: TrainingConfig, model: ModelConfig) -> AbstractWeight:
    """The weight that a training configuration names."""
    match training.loss_weighting or DEFAULT_WEIGHTING[model.prediction_type]:
        case "uniform":
            return Uniform()
        case "snr":
            return SNR()
        case "min_snr":
            return MinSNR(training.snr_gamma)
        case "soft_min_snr":
            return SoftMinSNR(training.snr_gamma)
        case "edm":
            return EDMWeight(model.data_std)
        case "sigmoid":
            return SigmoidWeight(training.sigmoid_bias)
        case "p2":
            return P2(training.p2_gamma, training.p2_k)
        case "debiased":
            return Debiased()


def build_times(training: TrainingConfig) -> AbstractTimes:
    """The distribution of training times that a training configuration names."""
    given = {"mean": training.timestep_mean, "std": training.timestep_std}
    numbers = {name: value for name, value in given.items() if value is not None}
    times: AbstractTimes
    match training.timestep_sampling:
        case "uniform":
            times = UniformTimes()
        case "logit_normal":
            times = LogitNormalTimes(**numbers)
        case "mode":
            times = ModeTimes(training.mode_scale)
        case "log_normal":
            times = LogNormalTimes(**numbers)
        case "cosine":
            times = CosineTimes()
    return times if training.timestep_shift == 1.0 else ShiftedTimes(times, training.timestep_shift)


def _space(training: TrainingConfig, model: ModelConfig) -> AbstractParameterization | None:
    name = training.loss_space
    if name is None:
        return None
    return build_parameterization(name, data_std=model.data_std)
