"""The three programs of a sampler, as functions of flat arrays with a role each (FORMAT.md, 3.5)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.random_keys import is_key, to_numbers
from diffusion_eqx.samplers import AbstractSampler, State
from diffusion_eqx_export.container import dtype_name
from diffusion_eqx_export.lowering import Lowered, lower
from diffusion_eqx_export.settings import seed_key, wrap_keys

# Builds the sampler from the model's arrays and the run-time parameters, both possibly traced.
MakeSampler = Callable[[list[jax.Array], dict[str, jax.Array]], AbstractSampler]


class Argument(NamedTuple):
    """One array that a program takes or returns."""

    role: str
    name: str
    spec: jax.ShapeDtypeStruct
    donated: bool = False

    def manifest(self) -> dict[str, object]:
        """The argument as the manifest writes it."""
        return {
            "role": self.role,
            "name": self.name,
            "dtype": dtype_name(np.dtype(self.spec.dtype)),
            "shape": list(self.spec.shape),
        }


class Program(NamedTuple):
    """A lowered program with the roles of what it takes and returns."""

    lowered: Lowered
    inputs: list[Argument]
    outputs: list[Argument]


class SamplerPrograms:
    """Lowers `init`, `step` and `finish` of a sampler for any platform and batch size.

    `weights`: the model's arrays by name; `parameters`: the dtype of each run-time parameter (`steps`
    among them); `conditional`: whether `step` takes labels; `sample_shape`: of one example of the state
    `x`; `image_shape`: of what `finish` gives, another one if the sampler decodes latents.
    """

    def __init__(
        self,
        make_sampler: MakeSampler,
        *,
        weights: dict[str, jax.Array],
        parameters: dict[str, np.dtype],
        conditional: bool,
        sample_shape: tuple[int, ...],
        image_shape: tuple[int, ...],
    ):
        self._make_sampler = make_sampler
        self._weights = [
            Argument("weight", name, jax.ShapeDtypeStruct(a.shape, a.dtype))
            for name, a in weights.items()
        ]
        self._parameters = [
            Argument("parameter", name, jax.ShapeDtypeStruct((), dtype))
            for name, dtype in parameters.items()
        ]
        self._conditional = conditional
        self._sample_shape = sample_shape
        self._image_shape = image_shape

    def state(self, batch: int) -> list[Argument]:
        """The arrays of the loop's state for a batch."""
        leaves = jax.tree_util.tree_leaves_with_path(
            jax.eval_shape(to_numbers, self._typed_state(batch))
        )
        return [
            Argument("state", jax.tree_util.keystr(path, simple=True, separator="."), leaf, True)
            for path, leaf in leaves
        ]

    def init(self, batch: int, platform: str) -> Program:
        """(seed, first) to the state of pure noise."""
        seed = Argument("seed", "seed", jax.ShapeDtypeStruct((2,), jnp.uint32))
        first = Argument("first", "first", jax.ShapeDtypeStruct((), jnp.int32))

        def function(sampler: AbstractSampler, parameters, seed, first) -> list[jax.Array]:
            key = wrap_keys(seed)
            steps = parameters["steps"]
            state = sampler.init(self._sample_shape, steps, key=key, count=batch, first=first)
            return jax.tree.leaves(to_numbers(state))

        return self._lower(function, [seed, first], self.state(batch), platform)

    def step(self, batch: int, platform: str) -> Program:
        """(state, index[, label]) to the next state, in the same memory."""
        state = self.state(batch)
        index = Argument("index", "index", jax.ShapeDtypeStruct((), jnp.int32))
        label = Argument("label", "label", jax.ShapeDtypeStruct((batch,), jnp.int32))

        def function(sampler: AbstractSampler, parameters, *arguments) -> list[jax.Array]:
            typed = self._to_state(batch, arguments[: len(state)])
            index, *labels = arguments[len(state) :]
            cond = labels[0] if labels else None
            following = sampler.step(typed, index, parameters["steps"], cond)
            return jax.tree.leaves(to_numbers(following))

        arguments = [*state, index] + ([label] if self._conditional else [])
        return self._lower(function, arguments, state, platform)

    def finish(self, batch: int, platform: str) -> Program:
        """The state to images. The state may be used again, so that this can show a preview."""
        state = [argument._replace(donated=False) for argument in self.state(batch)]

        def function(sampler: AbstractSampler, parameters, *arguments) -> list[jax.Array]:
            return [sampler.finish(self._to_state(batch, arguments))]

        shape = (batch, *self._image_shape)
        image = Argument("image", "image", jax.ShapeDtypeStruct(shape, jnp.float32))
        return self._lower(function, state, [image], platform)

    def _typed_state(self, batch: int) -> State:
        """Shapes and dtypes of the state, keys as keys."""

        def init(weights: list[jax.Array], parameters: dict[str, jax.Array]) -> State:
            sampler = self._make_sampler(weights, parameters)
            key = seed_key(0)
            return sampler.init(self._sample_shape, parameters["steps"], key=key, count=batch)

        weights = [argument.spec for argument in self._weights]
        return jax.eval_shape(init, weights, {a.name: a.spec for a in self._parameters})

    def _to_state(self, batch: int, arrays: tuple[jax.Array, ...]) -> State:
        typed = self._typed_state(batch)
        state = jax.tree.unflatten(jax.tree.structure(typed), arrays)
        return jax.tree.map(lambda a, kind: wrap_keys(a) if is_key(kind) else a, state, typed)

    def _lower(
        self,
        function: Callable[..., list[jax.Array]],
        own: list[Argument],
        outputs: list[Argument],
        platform: str,
    ) -> Program:
        shared = [*self._weights, *self._parameters]

        def flat(*arrays: jax.Array) -> list[jax.Array]:
            weights = list(arrays[: len(self._weights)])
            values = arrays[len(self._weights) : len(shared)]
            parameters = {a.name: v for a, v in zip(self._parameters, values, strict=True)}
            sampler = self._make_sampler(weights, parameters)
            return function(sampler, parameters, *arrays[len(shared) :])

        arguments = [*shared, *own]
        donated = [i for i, argument in enumerate(arguments) if argument.donated]
        specs = [argument.spec for argument in arguments]
        lowered = lower(flat, specs, donated=donated, platform=platform)
        found = [(o.shape, o.dtype) for o in lowered.outputs]
        expected = [(o.spec.shape, o.spec.dtype) for o in outputs]
        if found != expected:
            raise ValueError(f"the sampler changes its state from {expected} to {found}")
        return Program(lowered, [arguments[i] for i in lowered.kept], outputs)
