"""A folder as people have it, of 500 pictures of all sizes, is trained on by one command."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from diffusion_eqx.cli import main
from diffusion_eqx.models import load_model, read_record

NAMES = ("Żółw", "猫", "dog/young", "dog/old", "birds of prey")
COUNT = 500


def fill(folder) -> None:
    """PNG and JPEG files of many sizes, every tenth of them grey, and two broken ones."""
    random = np.random.default_rng(0)
    for number in range(COUNT):
        height, width = random.integers(5, 60, 2)
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        picture = Image.fromarray(pixels[..., 0] if number % 10 == 0 else pixels)
        place = folder / NAMES[number % len(NAMES)]
        place.mkdir(parents=True, exist_ok=True)
        name = f"é {number}" + (".JPG" if number % 2 else ".png")
        picture.save(place / name, "JPEG" if number % 2 else "PNG")
    for number in (7, 8):
        (path,) = folder.rglob(f"é {number}.*")
        path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.long
@pytest.mark.slow
def test_five_hundred_pictures_are_trained_on_by_one_command(tmp_path, caplog):
    fill(tmp_path / "pictures")
    model = [
        *("--kind", "dit", "--model.img-size", "8", "--model.channels", "3"),
        *("--model.num-classes", "4", "--model.hidden-size", "8", "--model.depth", "1"),
        *("--model.num-heads", "2", "--training.steps", "3"),
    ]
    command = ["train", "-o", str(tmp_path / "run"), "--data", str(tmp_path / "pictures"), *model]
    with pytest.raises(SystemExit):
        main(command)
    with caplog.at_level(logging.WARNING):
        main([*command, "--broken", "skip", "--training.log-every", "1"])
    assert "2 broken files left out" in caplog.text
    assert "enlarged" in caplog.text
    record = read_record(tmp_path / "run" / "model.safetensors")
    # Sorted by the bytes of their names; what lies deeper belongs to the class folder above it.
    assert record.class_names == ("birds of prey", "dog", "Żółw", "猫")
    assert load_model(tmp_path / "run" / "model.safetensors").config.input_shape == (8, 8, 3)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["examples"] == COUNT - 2
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in log]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
