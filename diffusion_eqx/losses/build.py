"""From configurations to the loss of a model."""

from diffusion_eqx.config import DEFAULT_WEIGHTING, ModelConfig, TrainingConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.losses.denoising import DenoisingLoss
from diffusion_eqx.losses.variational import HybridLoss
from diffusion_eqx.losses.weights import SNR, AbstractWeight, MinSNR, Uniform


def training_loss(
    denoiser: Denoiser, model: ModelConfig, training: TrainingConfig
) -> DenoisingLoss | HybridLoss:
    """The loss `(network, x0, cond, *, key) -> scalar` by which a model is trained.

    It is that of denoising; the variational bound is added if the variance is learnt (`learn_sigma`). Where
    `training.loss_weighting` is None, the prediction decides (`DEFAULT_WEIGHTING`).
    """
    weights: dict[str, AbstractWeight] = {
        "uniform": Uniform(),
        "snr": SNR(),
        "min_snr": MinSNR(training.snr_gamma),
    }
    name = training.loss_weighting or DEFAULT_WEIGHTING[model.prediction_type]
    simple = DenoisingLoss(
        denoiser,
        weight=weights[name],
        error=model.loss_type,
        label_dropout=0.0 if denoiser.null is None else training.label_dropout,
    )
    return HybridLoss(simple) if denoiser.learned_variance else simple
