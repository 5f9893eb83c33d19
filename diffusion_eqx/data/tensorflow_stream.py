"""tf.data as a stream. TensorFlow is imported by whoever made the data set, never here."""

import base64
import copy
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusion_eqx.data.foreign import is_of

_CHECKPOINT = "iterator"
_opened = itertools.count()


def is_tf_data(source: Any) -> bool:
    """Whether it is a `tf.data.Dataset`."""
    return is_of(source, "tensorflow", "data.Dataset")


def tf_length(source: Any) -> int | None:
    """The number of examples of one pass; None if tf.data does not know it, or there is no end."""
    count = int(source.cardinality())
    return count if count >= 0 else None


class TensorFlowStream:
    """The examples of a `tf.data.Dataset`, again and again.

    - `graph`: of the data set, as `checked_graph` gives it. A data set made of it begins with the same
      orders of shuffling, however often another one was read. None: the data set itself is read on.
    """

    def __init__(self, source: Any, graph: Any | None):
        self._tf: Any = sys.modules["tensorflow"]
        if graph is not None:
            variant = self._tf.raw_ops.DatasetFromGraph(graph_def=_with_new_seeds(graph))
            source = self._tf.data.experimental.from_variant(variant, source.element_spec)
        self._iterator: Iterator[Any] = iter(source.repeat())

    def __next__(self) -> Any:
        element = next(self._iterator)
        return self._tf.nest.map_structure(lambda tensor: tensor.numpy(), element)

    def state(self) -> dict[str, Any] | None:
        """The files of TensorFlow's own checkpoint of the iterator; None if it has none."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                self._checkpoint().write(str(Path(folder) / _CHECKPOINT))
            except self._tf.errors.OpError:
                return None
            return {
                path.name: base64.b64encode(path.read_bytes()).decode()
                for path in sorted(Path(folder).iterdir())
            }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in state.items():
                (Path(folder) / Path(name).name).write_bytes(base64.b64decode(content))
            self._checkpoint().read(str(Path(folder) / _CHECKPOINT)).assert_consumed()

    def _checkpoint(self) -> Any:
        return self._tf.train.Checkpoint(iterator=self._iterator)


def _with_new_seeds(graph: Any) -> bytes:
    """The graph under other names of what draws the seeds of shuffling, one for each pass.

    Data sets share it by its name, and the second one would go on where the first one is.
    """
    graph = copy.deepcopy(graph)
    for node in graph.node:
        if node.op == "Const":
            for handle in node.attr["value"].tensor.resource_handle_val:
                if "SeedGenerator" in handle.maybe_type_name:
                    handle.name += f"/{next(_opened)}"
    return graph.SerializeToString()


def checked_graph(source: Any) -> Any:
    """The graph of a data set that gives the same examples in each process.

    **Raises:** `ValueError`, saying why, if it does not: if it calls Python, draws random numbers from a
    state, shuffles without a seed, or takes what is ready first.
    """
    tf: Any = sys.modules["tensorflow"]
    fail = tf.data.experimental.ExternalStatePolicy.FAIL.value
    try:
        graph = tf.raw_ops.DatasetToGraphV2(
            input_dataset=tf.data.experimental.to_variant(source), external_state_policy=fail
        )
    except tf.errors.OpError as error:
        reason = error.message.split("}} ")[-1].split(". [")[0].splitlines()[0]
        raise _refused(f"it depends on what no checkpoint holds ({reason})") from error
    if source.options().deterministic is False:
        raise _refused("its option deterministic=False lets it take what is ready first")
    definition = tf.compat.v1.GraphDef.FromString(graph.numpy())
    for nodes in (
        definition.node,
        *(function.node_def for function in definition.library.function),
    ):
        _check_nodes(nodes, tf)
    return definition


def _check_nodes(nodes: Any, tf: Any) -> None:
    constants = {node.name: node for node in nodes if node.op == "Const"}

    def seed(name: str) -> int | None:
        node = constants.get(name.split(":")[0])
        return None if node is None else int(tf.make_ndarray(node.attr["value"].tensor))

    for node in nodes:
        if "deterministic" in node.attr and node.attr["deterministic"].s == b"false":
            raise _refused(f"{node.op} with deterministic=False takes what is ready first")
        # The seeds are inputs 2 and 3; both are 0 where none was given.
        if node.op.startswith("Shuffle") and {seed(name) for name in node.input[2:4]} == {0}:
            raise _refused("it shuffles without a seed")


def _refused(reason: str) -> ValueError:
    return ValueError(
        f"this tf.data.Dataset would give other examples after a resumption: {reason}. Give it seeds and "
        'stateless operations, or accept that by resume="approximate"'
    )
