"""Students that sample in few steps what their teacher samples in many."""

from diffusion_eqx._face import face as _face
from diffusion_eqx.distillation.consistency import ConsistencyLoss as ConsistencyLoss
from diffusion_eqx.distillation.consistency import train_consistency as train_consistency
from diffusion_eqx.distillation.progressive import ProgressiveLoss as ProgressiveLoss
from diffusion_eqx.distillation.progressive import distill_progressively as distill_progressively
from diffusion_eqx.distillation.students import METHODS as METHODS
from diffusion_eqx.distillation.students import distill as distill

__dir__ = _face(globals())
