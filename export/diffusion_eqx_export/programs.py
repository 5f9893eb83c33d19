"""The three programs of a sampler, as functions of flat arrays with a role each (FORMAT.md, 3.5)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.models import Plan
from diffusion_eqx.samplers import Bound, State, Walk, begin_from_noise, draw, image_keys
from diffusion_eqx_export.container import dtype_name
from diffusion_eqx_export.errors import NotExportable
from diffusion_eqx_export.lowering import Lowered, lower
from diffusion_eqx_export.settings import to_keys, to_words, wrap_keys

# Builds the plan of a sampling run from its arrays and its run-time numbers, both possibly traced.
MakePlan = Callable[[list[Any], dict[str, Any]], Plan]


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


class Carried(NamedTuple):
    """What the native loop carries from step to step: a `State` without what the loop itself counts."""

    x: Any
    keys: Any
    memory: Any


class SamplerPrograms:
    """Lowers `init`, `step` and `finish` of a sampler for any platform and batch size.

    - `make_plan`: builds the plan from arrays and run-time numbers.
    - `weights`: the arrays of the plan, by name, in the order in which `make_plan` takes them.
    - `parameters`: the dtype of each run-time number, `steps` among them.
    - `conditional`: whether `step` takes labels.
    - `shape`: of one example of the state `x`.
    - `image_shape`: of what `finish` gives, which is another one if the plan decodes latents.
    """

    def __init__(
        self,
        make_plan: MakePlan,
        *,
        weights: dict[str, jax.Array],
        parameters: dict[str, np.dtype],
        conditional: bool,
        shape: tuple[int, ...],
        image_shape: tuple[int, ...],
    ):
        self._make_plan = make_plan
        self._weights = [
            Argument("weight", name, jax.ShapeDtypeStruct(a.shape, a.dtype))
            for name, a in weights.items()
        ]
        self._parameters = [
            Argument("parameter", name, jax.ShapeDtypeStruct((), dtype))
            for name, dtype in parameters.items()
        ]
        self._conditional = conditional
        self._shape = shape
        self._image_shape = image_shape

    def state(self, batch: int) -> list[Argument]:
        """The arrays that the loop carries for a batch.

        **Raises:** `NotExportable` if what the sampler remembers has not the batch as its first axis.
        """
        words = jax.eval_shape(to_words, self._typed(batch))
        arguments = [
            Argument("state", jax.tree_util.keystr(path, simple=True, separator="."), leaf, True)
            for path, leaf in jax.tree_util.tree_leaves_with_path(words)
        ]
        for argument in arguments:
            if argument.spec.shape[:1] != (batch,):
                raise NotExportable(
                    f"{argument.name} of the sampler has shape {argument.spec.shape} for a batch of "
                    f"{batch}; every array that a sampler remembers must have the batch as its first axis"
                )
        return arguments

    def init(self, batch: int, platform: str) -> Program:
        """(seed, first) to the state of pure noise.

        **Raises:** `NotExportable` if the sampler looks at labels before its first step.
        """
        seed = Argument("seed", "seed", jax.ShapeDtypeStruct((2,), jnp.uint32))
        first = Argument("first", "first", jax.ShapeDtypeStruct((), jnp.int32))
        label = self._label(batch)

        def function(plan: Plan, steps: jax.Array, seed, first, *labels) -> list[jax.Array]:
            carried = self._begun(plan, steps, batch, wrap_keys(seed), first, *labels)
            return jax.tree.leaves(to_words(carried))

        program = self._lower(function, [seed, first, *label], self.state(batch), platform)
        if any(argument.role == "label" for argument in program.inputs):
            raise NotExportable(
                "the sampler asks the denoiser for a prediction before its first step, and programs of "
                "format 1 know labels in their steps only; let the sampler's `init` return zeros instead"
            )
        return program

    def step(self, batch: int, platform: str) -> Program:
        """(state, index[, label]) to the next state, in the same memory."""
        state = self.state(batch)
        index = Argument("index", "index", jax.ShapeDtypeStruct((), jnp.int32))

        def function(plan: Plan, steps: jax.Array, *arguments) -> list[jax.Array]:
            carried = self._to_typed(batch, arguments[: len(state)])
            index, *labels = arguments[len(state) :]
            x, keys, memory = carried
            denoise, walk = _bound(plan, *labels), _walk(plan, steps)
            following = plan.sampler.advance(denoise, walk, State(x, keys, index, steps, memory))
            return jax.tree.leaves(to_words(_carried(following)))

        return self._lower(function, [*state, index, *self._label(batch)], state, platform)

    def finish(self, batch: int, platform: str) -> Program:
        """The state to images. The state may be used again, so that this can show a preview."""
        state = [argument._replace(donated=False) for argument in self.state(batch)]

        def function(plan: Plan, steps: jax.Array, *arguments) -> list[jax.Array]:
            x = self._to_typed(batch, arguments).x
            return [plan.decode(x).astype(jnp.float32)]

        shape = (batch, *self._image_shape)
        image = Argument("image", "image", jax.ShapeDtypeStruct(shape, jnp.float32))
        return self._lower(function, state, [image], platform)

    def _label(self, batch: int) -> list[Argument]:
        """The argument of labels, if there is one."""
        spec = jax.ShapeDtypeStruct((batch,), jnp.int32)
        return [Argument("label", "label", spec)] if self._conditional else []

    def _begun(self, plan: Plan, steps: Any, batch: int, key: Any, first: Any, *labels) -> Carried:
        keys = image_keys(key, batch, first)
        noise = draw(keys, 0, self._shape)
        denoise, walk = _bound(plan, *labels), _walk(plan, steps)
        return _carried(begin_from_noise(plan.sampler, denoise, walk, noise, keys=keys))

    def _typed(self, batch: int) -> Carried:
        """Shapes and dtypes of what is carried, with keys as keys."""

        def begin(weights: list[Any], parameters: dict[str, Any], labels: list[Any]) -> Carried:
            plan = self._make_plan(weights, parameters)
            words = jnp.zeros(2, jnp.uint32)
            return self._begun(plan, parameters["steps"], batch, wrap_keys(words), 0, *labels)

        return jax.eval_shape(
            begin,
            [argument.spec for argument in self._weights],
            {argument.name: argument.spec for argument in self._parameters},
            [argument.spec for argument in self._label(batch)],
        )

    def _to_typed(self, batch: int, arrays: tuple[jax.Array, ...]) -> Carried:
        typed = self._typed(batch)
        return to_keys(jax.tree.unflatten(jax.tree.structure(typed), arrays), typed)

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
            plan = self._make_plan(weights, parameters)
            return function(plan, parameters["steps"], *arrays[len(shared) :])

        arguments = [*shared, *own]
        donated = [i for i, argument in enumerate(arguments) if argument.donated]
        specs = [argument.spec for argument in arguments]
        lowered = lower(flat, specs, donated=donated, platform=platform)
        _check_outputs(lowered, outputs)
        return Program(lowered, [arguments[i] for i in lowered.kept], outputs)


def _bound(plan: Plan, *labels: jax.Array) -> Bound:
    # A number that is an input is switched off by a branch: a step with eta = 0 draws no noise.
    return Bound(plan.denoiser, labels[0] if labels else None, skips=True)


def _walk(plan: Plan, steps: jax.Array) -> Walk:
    return Walk.of(plan.sampler.grid, plan.denoiser.schedule, steps)


def _carried(state: State) -> Carried:
    return Carried(state.x, state.keys, state.memory)


def _check_outputs(lowered: Lowered, outputs: list[Argument]) -> None:
    found = [(o.shape, np.dtype(o.dtype)) for o in lowered.outputs]
    expected = [(a.spec.shape, np.dtype(a.spec.dtype)) for a in outputs]
    if found == expected:
        return
    if len(found) != len(expected):
        raise NotExportable(
            f"a step of the sampler changes what it remembers from {len(expected)} arrays to {len(found)}; "
            "`init` and `step` must return the same"
        )
    name, was, now = next(
        (a.name, e, f) for a, e, f in zip(outputs, expected, found, strict=True) if e != f
    )
    raise NotExportable(
        f"a program of the sampler returns {name} as {now[1]} {now[0]}, where {was[1]} {was[0]} is expected"
    )
