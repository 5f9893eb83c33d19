"""The picture of a run's reports."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from diffusion_eqx.training import Run, draw_curves, summarize
from tests.test_fit import StopAt, run_fit

ROWS = [
    {"step": 10, "loss": 2.0, "grad_norm": 100.0},
    {"step": 20, "loss": 1.5, "grad_norm": 1.0, "held_out": 3.0, "mine": -1.0},
    {"step": 30, "loss": 1.0, "grad_norm": 0.1, "held_out": 2.5, "mine": 1.0},
]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    found = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: found.append(figure))
    return found


def test_every_number_has_a_panel_with_its_values_at_their_steps(figures):
    draw_curves(ROWS, "curves.png", best={"name": "held_out", "value": 2.5, "step": 30})
    panels = [panel for panel in figures[0].axes if panel.get_visible()]
    titles = ["training loss", "held-out loss", "gradient norm", "mine"]
    assert [panel.get_title() for panel in panels] == titles
    for panel, name in zip(panels, ("loss", "held_out", "grad_norm", "mine"), strict=True):
        expected = [(row["step"], row[name]) for row in ROWS if name in row]
        np.testing.assert_array_equal(panel.lines[0].get_xydata(), expected)
    # Wide ranges are logarithmic, numbers below zero never.
    assert [panel.get_yscale() for panel in panels] == ["linear", "linear", "log", "linear"]
    np.testing.assert_array_equal(panels[1].lines[1].get_xydata(), [(30, 2.5)])
    assert [len(panel.lines) for panel in panels] == [1, 2, 1, 1]
    assert panels[1].texts[0].get_text() == "best: 2.5 at step 30"


def test_the_picture_is_a_file_of_its_rows(tmp_path):
    draw_curves(ROWS, tmp_path / "one.png")
    draw_curves(ROWS[:2], tmp_path / "two.png")
    one, two = (np.asarray(Image.open(tmp_path / name)) for name in ("one.png", "two.png"))
    assert one.shape == two.shape
    assert (one != two).any()
    with pytest.raises(ValueError, match="no report yet"):
        draw_curves([], tmp_path / "none.png")


def test_a_run_is_summed_up_while_it_goes_on(tmp_path):
    run_fit(run=Run(tmp_path), callbacks=[StopAt(12)])
    # As while a line is written.
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 15, "lo')
    found = summarize(tmp_path)
    assert (found.step, found.steps, found.checkpoints) == (12, 20, [5, 10, 12])
    assert [row["step"] for row in found.rows] == [5, 10]
    speeds = [json.loads(s) for s in (tmp_path / "timings.jsonl").read_text().splitlines()]
    for row, speed in zip(found.rows, speeds, strict=True):
        assert row["images_per_second"] == speed["images_per_second"]
        assert row["loss"] > 0.0
    assert found.best is None
    assert len(found.launches) == 1
    with pytest.raises(FileNotFoundError, match=r"has no run\.json"):
        summarize(tmp_path / "nothing")
