"""The folder of a run: what it holds, and whether a run may go on in it."""

import json
import shutil
from pathlib import Path
from typing import Any

# What a run writes into its folder. Nothing else there is ever touched.
SETTINGS = "run.json"
CHECKPOINTS = "checkpoints"
LOG = "log.jsonl"
TIMINGS = "timings.jsonl"
AVERAGES = "averages"
HELD_OUT = "held_out.jsonl"
STREAM = "stream.json"
PREVIEW = "preview.png"
MODEL = "model.safetensors"
BEST = "best.safetensors"
TENSORBOARD = "tensorboard"
# Written before a run is opened, so it is none of what a run leaves behind.
PROCESSES = "processes"
CURVES = "curves.png"
# Not of one run: what is in it is known by what made it, and outlives an `overwrite`.
LATENTS = "latents"

_WRITTEN = (
    *(CHECKPOINTS, AVERAGES, LOG, TIMINGS, HELD_OUT, STREAM, PREVIEW, CURVES, TENSORBOARD),
    *(BEST, MODEL),
)
# Among the settings: by what the run was computed each time it was started. It may differ.
LAUNCHES = "launches"


class ResumeError(ValueError):
    """A folder holds a run that cannot be continued with the settings given."""


def open_folder(folder: Path, settings: dict[str, Any], *, overwrite: bool) -> list[str]:
    """Make the folder of a run, or check that the run in it is the same. Returns what was deleted.

    - `settings`: JSON that says what run it is.
    - `overwrite`: delete the files of a run that is there, and start anew.

    **Raises:** `ResumeError` if the folder holds a run of other settings, a model without the checkpoint to
    go on from, or files of a run without its settings; `NotADirectoryError` if it is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            f"{folder} is a file; the run needs a folder, into which it writes {MODEL} and its checkpoints"
        )
    there = [name for name in _WRITTEN if (folder / name).exists()]
    record = folder / SETTINGS
    if overwrite:
        for name in there:
            _delete(folder / name)
    elif record.exists():
        _check_same(folder, json.loads(record.read_text()), settings)
        if MODEL in there and not _has_checkpoint(folder):
            raise ResumeError(
                f"{folder} holds the model of a run, but no checkpoint to go on from; choose another "
                "folder, or start anew with overwrite=True, which deletes the model"
            )
        return []
    elif there:
        raise ResumeError(
            f"{folder} holds {', '.join(there)}, but not the {SETTINGS} that says of which run; choose "
            "another folder, or start anew with overwrite=True, which deletes these files"
        )
    _write(record, settings)
    return there


def add_launch(folder: Path, launch: dict[str, Any]) -> dict[str, Any] | None:
    """Note a start of the run in its settings. Returns the start before, or None.

    **Raises:** `OSError` if the folder cannot be written into.
    """
    record = folder / SETTINGS
    settings = json.loads(record.read_text())
    launches = settings.get(LAUNCHES, [])
    _write(record, {**settings, LAUNCHES: [*launches, launch]})
    return launches[-1] if launches else None


def add_end(folder: Path, end: str) -> None:
    """Note in the settings how the run ended that was started last.

    **Raises:** `OSError` if the folder cannot be written into.
    """
    record = folder / SETTINGS
    settings = json.loads(record.read_text())
    *before, last = settings[LAUNCHES]
    _write(record, {**settings, LAUNCHES: [*before, {**last, "end": end}]})


def _write(record: Path, settings: dict[str, Any]) -> None:
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_whole(record, json.dumps(settings, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise OSError(
            f"the run cannot write into its folder {record.parent} ({error.strerror}): choose another one, "
            "or make it writable and make room"
        ) from error


def write_whole(path: Path, text: str) -> None:
    """Write a text file, which appears whole or not at all.

    **Raises:** `OSError`.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _has_checkpoint(folder: Path) -> bool:
    checkpoints = folder / CHECKPOINTS
    return checkpoints.is_dir() and any(path.name.isdigit() for path in checkpoints.iterdir())


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    old, new = _flat(before), _flat(now)
    old.pop(LAUNCHES, None)
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if changed:
        raise ResumeError(
            f"{folder} holds a run of other settings: "
            + "; ".join(f"{name} was {_text(old, name)}, is {_text(new, name)}" for name in changed)
            + ". Give the same settings to continue it; choose another folder, where init_from may begin "
            "with what this run has learnt; or start anew with overwrite=True, which deletes it"
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under names joined by dots. A list is one value."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _text(flat: dict[str, Any], name: str) -> str:
    return json.dumps(flat[name]) if name in flat else "absent"
