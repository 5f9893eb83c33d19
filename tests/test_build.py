"""From configurations to networks."""

import pytest

from diffusion_eqx.config import UNetBackboneConfig
from diffusion_eqx.models import attention_levels


@pytest.mark.parametrize(
    ("resolutions", "size", "levels"),
    [
        ((16, 8), 28, (1, 2)),
        ((14,), 28, (1,)),
        ((16, 8), 32, (1, 2)),
        ((), 32, ()),
        ((32,), 28, (0,)),
    ],
)
def test_attention_resolutions_pick_levels(resolutions, size, levels):
    config = UNetBackboneConfig(hidden_dims=(8, 16, 32), attention_resolutions=resolutions)
    assert attention_levels(config, (size, size)) == levels


def test_an_attention_resolution_of_no_level_is_refused():
    config = UNetBackboneConfig(hidden_dims=(8, 16), attention_resolutions=(4,))
    with pytest.raises(ValueError, match=r"sizes \[28, 14\]"):
        attention_levels(config, (28, 28))
