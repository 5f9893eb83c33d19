"""Configuration of training."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.base import STRICT

PredictionType = Literal["epsilon", "sample", "v_prediction", "score", "velocity", "edm"]
LossWeighting = Literal[
    "uniform", "snr", "min_snr", "soft_min_snr", "edm", "sigmoid", "p2", "debiased"
]
TimestepSampling = Literal["uniform", "logit_normal", "mode", "log_normal", "cosine"]

# The weighting of each prediction where `loss_weighting` is None. Hang et al. (2023) proposed min-SNR for
# the first three; it would hardly train the clean end of the others. Those count every error of the
# network's output alike: for a score, sigma² times the error of the score (Song et al. 2021, eq. 7); for
# `edm`, the weight of Karras et al. (2022, table 1); for a velocity, that of Lipman et al. (2023, eq. 9).
DEFAULT_WEIGHTING: Mapping[str, LossWeighting] = MappingProxyType(
    {
        "epsilon": "min_snr",
        "sample": "min_snr",
        "v_prediction": "min_snr",
        "score": "uniform",
        "velocity": "uniform",
        "edm": "uniform",
    }
)

Optimizer = Literal["adamw", "muon", "lion", "sgd", "schedule_free"]
OPTIMIZERS: tuple[Optimizer, ...] = ("adamw", "muon", "lion", "sgd", "schedule_free")
LearningRateSchedule = Literal["cosine", "constant", "inverse_sqrt"]
Precision = Literal["float32", "bfloat16", "float16"]
OnDivergence = Literal["stop", "return"]

Cadence = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """How a network is trained: the one place of a run's length, batch, seed and reports."""

    steps: Annotated[int, Field(ge=1)] = 1000
    """Updates of the weights."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Examples of one step."""
    accumulation: Annotated[int, Field(ge=1)] = 1
    """Parts into which a batch is cut to save memory; the gradient is that of the whole."""
    sharded: bool = False
    """On several devices, let each hold a part of the weights, their averages and the optimiser instead of
    all: less memory, more messages."""
    rematerialize: bool = False
    """Compute anew in the backward pass what the network's layers gave, which takes more time and less
    memory."""
    precision: Precision = "float32"
    """The number format in which the network computes. Its weights, their averages, the optimiser, the
    noise and the loss are float32 anyway. `float16` has a loss scale, and skips steps that overflow."""
    loss_scale_growth: Annotated[int, Field(ge=1)] = 2000
    """Good steps after which the loss scale of float16 is doubled."""
    optimizer: Optimizer = "adamw"
    """What updates the weights: `adamw` (Loshchilov & Hutter 2019), `muon` for matrices and kernels with
    Adam for the rest (Jordan et al. 2024), `lion` (Chen et al. 2023), `sgd` with Nesterov's momentum, or
    `schedule_free`, an AdamW that averages its weights instead of lowering its rate (Defazio et al.
    2024)."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-3
    """The peak of the learning rate, which is reached linearly."""
    learning_rate_schedule: LearningRateSchedule | None = None
    """How the learning rate goes on from its peak. `cosine`: falls to zero until the last step;
    `constant`; `inverse_sqrt`: constant until `decay_start`, then as 1/sqrt(step) (Karras et al. 2024).
    None: `constant` for `schedule_free`, else `cosine`."""
    decay_start: Annotated[int, Field(ge=1)] = 1000
    """The step from which `inverse_sqrt` lowers the learning rate."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps until the peak of the learning rate; None: a tenth of `steps`, at most 100."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight decay, of matrices and convolution kernels only."""
    b1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of Adam's average of the gradient (Kingma & Ba 2015)."""
    b2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """Decay of Adam's average of the gradient's square (Kingma & Ba 2015). The usual 0.999 remembers a
    thousand steps; 0.99 remembers a hundred and suits runs of a few thousand."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    """Gradients of a larger global norm are scaled down to it; None: none are."""
    loss_weighting: LossWeighting | None = None
    """What the error at each noise level weighs. `uniform`: errors in the `loss_space` count alike. The
    others are weights of the clean image's squared error, whatever is predicted: `snr`, the
    signal-to-noise ratio (Salimans & Ho 2022); `min_snr`, at most `snr_gamma` of it (Hang et al. 2023),
    and `soft_min_snr`, the same without a kink; `edm` (Karras et al. 2022); `sigmoid`, with `sigmoid_bias`
    (Hoogeboom et al. 2024); `p2`, with `p2_gamma` and `p2_k` (Choi et al. 2022); `debiased` (Yu et al.
    2023). None: the default of the model's prediction, see `DEFAULT_WEIGHTING`."""
    snr_gamma: Annotated[float, Field(gt=0.0)] = 5.0
    """The greatest weight of `min_snr` and `soft_min_snr`."""
    sigmoid_bias: float = -1.0
    """The log-SNR at which the weight of `sigmoid` on eps is a half."""
    p2_gamma: Annotated[float, Field(ge=0.0)] = 1.0
    """The exponent of `p2`, whose weight on eps is 1/(k + snr)^gamma."""
    p2_k: Annotated[float, Field(gt=0.0)] = 1.0
    """The k of `p2`, whose weight on eps is 1/(k + snr)^gamma."""
    learned_uncertainty: bool = False
    """Learn how large the loss at each level is, and make all levels count alike (Karras et al. 2024,
    section 2.2)."""
    loss_space: PredictionType | None = None
    """The prediction whose errors are compared; None: that of the network. With `sample` as the prediction
    and `v_prediction` here, the network gives the clean image and has the loss of v (Li & He 2025)."""
    timestep_sampling: TimestepSampling = "uniform"
    """Which times are trained more often. `uniform`: none; `logit_normal` and `mode`, for the schedule
    `flow` (Esser et al. 2024); `log_normal`: sigma/alpha is log-normal (Karras et al. 2022); `cosine`: the
    levels of the cosine schedule."""
    timestep_mean: float | None = None
    """Mean of `logit_normal` (None: 0) and `log_normal` (None: −1.2)."""
    timestep_std: Annotated[float, Field(gt=0.0)] | None = None
    """Standard deviation of `logit_normal` (None: 1) and `log_normal` (None: 1.2)."""
    mode_scale: Annotated[float, Field(ge=-1.0, le=1.75)] = 1.29
    """Height of the mode in the middle, of `mode`; 0: uniform times."""
    timestep_shift: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor by which sigma/alpha of the times trained is raised; for images of n pixels sqrt(n/n₀), if n₀
    pixels need none."""
    loss_aware_times: bool = False
    """Train levels of a large loss more often, and divide the loss by how often (Nichol & Dhariwal 2021,
    section 3.3): less varied gradients of the same objective."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2, see `Augmentation`."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Move each image by up to so many pixels each way, see `Augmentation`."""
    jitter: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Change brightness, contrast and, of colour images, saturation by up to this share each, see
    `Augmentation`."""
    label_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Probability that an example is trained without its label, which classifier-free guidance needs (Ho &
    Salimans 2022)."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Decay of the moving average of the weights. Samples are drawn with the average, and it is what is
    saved."""
    ema_halflife: Annotated[float, Field(gt=0.0)] | None = None
    """In place of `ema_decay`: the number of images after which weights count half. It means the same with
    any batch size. None: `ema_decay` holds."""
    ema_update_every: Annotated[int, Field(ge=1)] = 1
    """Updates of the weights between two of the average."""
    ema_lengths: tuple[Annotated[float, Field(gt=0.0, lt=0.28)], ...] = ()
    """Lengths of further averages, relative to the run; weights count as a power of the step (Karras et
    al. 2024, section 3). With two of them and a folder, the run keeps `ema_snapshots`, of which
    `reconstruct_average` makes the average of any length after the training."""
    ema_snapshots: Annotated[int, Field(ge=1)] = 32
    """Number of snapshots of the averages of `ema_lengths` over the run."""
    on_divergence: OnDivergence = "stop"
    """What follows a loss or a gradient that is not finite. `stop`: the run ends; `return`: it goes back
    to the newest checkpoint and on with half the learning rate, at most three times."""
    held_out: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The share of the examples that are not trained on, but measured (see `HeldOut`). Their content
    decides which they are."""
    held_out_every: Annotated[int, Field(ge=1)] = 5
    """Reports between two measurements of the held-out examples."""
    log_every: Cadence = 20
    """Steps between two reports; 0: never. The last step has one anyway."""
    checkpoint_every: Cadence = 200
    """Steps between two checkpoints, if the run has a folder; 0: never. The last step has one anyway."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """So many of the newest checkpoints are kept; and always the last two of those that are saved every
    `checkpoint_every` steps."""
    best_by: str | None = None
    """A number in the reports, such as `held_out` or `frechet_distance`. The averaged model of the report
    where it is best is kept in the run's folder as `best.safetensors`. None: none is."""
    best_is: Literal["least", "greatest"] = "least"
    """Whether the `least` or the `greatest` number of `best_by` is best."""
    preview_every: Cadence = 0
    """Steps between two pictures of what the model draws, in the run's folder; 0: never."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the order of the data, the noise and the dropout."""

    @model_validator(mode="after")
    def _warmup_fits(self) -> "TrainingConfig":
        if self.warmup >= self.steps and self.warmup > 0:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} must be fewer than steps={self.steps}; leave "
                "warmup_steps out to have a tenth of the steps"
            )
        return self

    @model_validator(mode="after")
    def _options_act(self) -> "TrainingConfig":
        """An option that another one leaves without effect is a mistake."""
        normal = self.timestep_sampling in ("logit_normal", "log_normal")
        for name in ("timestep_mean", "timestep_std"):
            if getattr(self, name) is not None and not normal:
                raise ValueError(
                    f"{name} is of timestep_sampling='logit_normal' or 'log_normal'; with "
                    f"{self.timestep_sampling!r} leave it out"
                )
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be cut into accumulation={self.accumulation} equal "
                "parts"
            )
        if self.optimizer == "schedule_free" and self.rate_schedule != "constant":
            raise ValueError(
                "optimizer='schedule_free' takes the place of a falling learning rate; leave "
                "learning_rate_schedule out"
            )
        if len(set(self.ema_lengths)) < len(self.ema_lengths):
            raise ValueError(f"ema_lengths must differ from each other; got {self.ema_lengths}")
        return self

    @property
    def rate_schedule(self) -> LearningRateSchedule:
        """How the learning rate goes on from its peak: `learning_rate_schedule`, or its default."""
        if self.learning_rate_schedule is not None:
            return self.learning_rate_schedule
        return "constant" if self.optimizer == "schedule_free" else "cosine"

    @property
    def warmup(self) -> int:
        """Steps until the peak of the learning rate: `warmup_steps`, or its default."""
        return min(100, self.steps // 10) if self.warmup_steps is None else self.warmup_steps

    def weighting_of(self, prediction_type: str) -> LossWeighting:
        """The loss weighting for a model of this prediction: `loss_weighting`, or the prediction's default.

        **Raises:** `ValueError` if the prediction is unknown and `loss_weighting` is None.
        """
        if self.loss_weighting is not None:
            return self.loss_weighting
        if prediction_type not in DEFAULT_WEIGHTING:
            raise ValueError(
                f"no default loss weighting is known for the prediction {prediction_type!r}; set "
                f"loss_weighting, or choose a prediction among {', '.join(DEFAULT_WEIGHTING)}"
            )
        return DEFAULT_WEIGHTING[prediction_type]


# The name that readers of other libraries know.
DiffusionTrainingConfig = TrainingConfig
