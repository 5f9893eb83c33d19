"""`verify`: do an artifact's programs draw the images that Python drew when it was exported?"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxlib import xla_client

from diffusion_eqx_export.artifact import Artifact
from diffusion_eqx_export.errors import ArtifactError
from diffusion_eqx_export.settings import cpu_device, pinned, seed_words


class Verdict(NamedTuple):
    """Largest absolute differences from the reference, and whether they are within tolerance."""

    noise: float
    image: float
    passed: bool


def verify(artifact: Artifact) -> Verdict:
    """Run the artifact's CPU programs, as stored, over its reference sample.

    **Raises:** `ArtifactError` if it has no programs for the CPU; `NoCPUBackend` if JAX has no CPU.
    """
    with pinned():
        return _verify(artifact)


def _verify(artifact: Artifact) -> Verdict:
    manifest, reference = artifact.manifest, artifact.manifest["reference"]
    entries = [e for e in manifest["programs"] if e["platform"] == "cpu"]
    fitting = [e for e in entries if e["batch"] >= reference["count"]] or entries
    if not fitting:
        raise ArtifactError("the artifact has no programs for the CPU, on which verify runs them")
    entry = min(fitting, key=lambda e: abs(e["batch"] - reference["count"]))
    run = {name: StoredProgram(artifact, entry[name]) for name in ("init", "step", "finish")}

    noises, images = [], []
    for first in range(0, reference["count"], entry["batch"]):
        labels = np.zeros(entry["batch"], np.int32)
        if reference["labels"] is not None:
            part = reference["labels"][first : first + entry["batch"]]
            labels[: len(part)] = part
        given: dict[str, Any] = {
            "seed": seed_words(reference["seed"]),
            "first": np.int32(first),
            "label": labels,
            "steps": np.int32(reference["steps"]),
            **{name: np.float32(value) for name, value in reference["parameters"].items()},
        }
        state = run["init"](given, {})
        noises.append(np.asarray(state["x"]))
        for index in range(reference["steps"]):
            state = run["step"]({**given, "index": np.int32(index)}, state)
        images.append(np.asarray(run["finish"](given, state)["image"]))
    count, tolerance = reference["count"], reference["tolerance"]["cpu"]
    noise = _difference(np.concatenate(noises)[:count], artifact.tensors["reference/noise"])
    image = _difference(np.concatenate(images)[:count], artifact.tensors["reference/image"])
    return Verdict(noise, image, noise <= tolerance["noise"] and image <= tolerance["image"])


class StoredProgram:
    """A stored program, compiled by jax's own CPU client."""

    def __init__(self, artifact: Artifact, described: dict[str, Any]):
        device = cpu_device()
        bytecode = artifact.tensors[described["tensor"]].tobytes()
        self._executable = device.client.compile_and_load(
            bytecode, xla_client.DeviceList((device,)), xla_client.CompileOptions()
        )
        self._device = device
        self._inputs = described["inputs"]
        self._outputs = [output["name"] for output in described["outputs"]]
        self._weights = {
            a["name"]: jax.device_put(artifact.tensors[f"weights/{a['name']}"], device)
            for a in self._inputs
            if a["role"] == "weight"
        }

    def __call__(self, given: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        """The arrays that it returns, by name, for arrays `given` and a `state`, by name.

        Arrays of the state that the program takes over must not be used again.
        """
        sources = {"weight": self._weights, "state": state}
        arguments = [
            jax.device_put(sources.get(a["role"], given)[a["name"]], self._device)
            for a in self._inputs
        ]
        results = self._executable.execute_sharded(arguments)
        arrays = results.disassemble_into_single_device_arrays()
        return {name: shards[0] for name, shards in zip(self._outputs, arrays, strict=True)}


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(found.astype(np.float64) - expected.astype(np.float64))))
