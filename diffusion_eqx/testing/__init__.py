"""The laws of our own tests, for a part of yours: one function for each kind of part.

Each raises `LawBroken`, which names the law, what was found and what is owed. Write one line in a test:

    def test_my_sampler():
        dx.testing.check_sampler(MySampler(), order=2)
"""

from diffusion_eqx._face import face as _face
from diffusion_eqx.testing.any_schedule import AnySchedule as AnySchedule
from diffusion_eqx.testing.backbone import check_backbone as check_backbone
from diffusion_eqx.testing.compiles import count_compiles as count_compiles
from diffusion_eqx.testing.dataset import check_dataset as check_dataset
from diffusion_eqx.testing.grid import check_grid as check_grid
from diffusion_eqx.testing.guidance import check_guidance as check_guidance
from diffusion_eqx.testing.law import LawBroken as LawBroken
from diffusion_eqx.testing.parameterization import check_parameterization as check_parameterization
from diffusion_eqx.testing.problems import exact_eps as exact_eps
from diffusion_eqx.testing.problems import exact_flow as exact_flow
from diffusion_eqx.testing.problems import three_gaussians as three_gaussians
from diffusion_eqx.testing.problems import true_samples as true_samples
from diffusion_eqx.testing.sampler import check_sampler as check_sampler
from diffusion_eqx.testing.schedule import check_schedule as check_schedule

__dir__ = _face(globals())
