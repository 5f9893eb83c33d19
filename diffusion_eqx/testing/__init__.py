"""The laws of our own tests, for a part of yours: one function for each kind of part."""

from diffusion_eqx.testing.any_schedule import AnySchedule as AnySchedule
from diffusion_eqx.testing.compiles import count_compiles as count_compiles
from diffusion_eqx.testing.law import LawBroken as LawBroken
from diffusion_eqx.testing.schedule import check_schedule as check_schedule
