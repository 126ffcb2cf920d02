"""A small writer of ONNX graphs: operators that return the name of their output, constants by content."""

from __future__ import annotations

from typing import Any

import numpy as np

from protloc_jax.convert.refusal import optional

OPSET = 17  # the first with LayerNormalization; read by ONNX Runtime from 1.12 (2022) on
IR_VERSION = 8  # that of the same release


class Graph:
    """Nodes and constants in the order they are made. Tensors are names; names made here begin with "/"."""

    def __init__(self) -> None:
        self.onnx = optional("onnx", why="export to ONNX", extra="onnx")
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._scalars: dict[tuple, str] = {}

    def constant(self, name: str, value: Any) -> str:
        """A named constant tensor (float32 or int64)."""
        name = f"/{name}"
        if name in self.constants:
            raise ValueError(f"two constants are called '{name}'.")
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def number(self, value: float) -> str:
        """A float32 scalar; equal ones are one tensor."""
        return self._shared(("f", float(value)), np.asarray(value, np.float32))

    def whole(self, *values: int) -> str:
        """A vector of int64; equal ones are one tensor."""
        return self._shared(("i", *values), np.asarray(values, np.int64))

    def op(self, kind: str, *inputs: str, outputs: int = 1, called: str = "", **attributes: Any) -> Any:
        """Add an operator; the name of its output, or a tuple of names. `called`: the output's own name."""
        stem = f"/{kind}_{len(self.nodes)}"
        names = [called] if called else [f"{stem}/{i}" if outputs > 1 else stem for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), names, name=stem, **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def model(self, inputs: dict[str, tuple], outputs: dict[str, tuple], *, name: str, facts: dict[str, str]) -> Any:
        """The ModelProto; inputs and outputs: name -> (NumPy type, shape of whole numbers and dimension names)."""
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper

        def described(tensors: dict[str, tuple]) -> list:
            kinds = {k: helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for k, (dtype, _) in tensors.items()}
            return [helper.make_tensor_value_info(k, kinds[k], shape) for k, (_, shape) in tensors.items()]

        stored = [numpy_helper.from_array(value, key) for key, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, name, described(inputs), described(outputs), stored)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="protloc_jax", ir_version=IR_VERSION
        )
        helper.set_model_props(model, facts)
        return model

    def _shared(self, key: tuple, value: np.ndarray) -> str:
        if key not in self._scalars:
            self._scalars[key] = self.constant(f"shared_{len(self._scalars)}", value)
        return self._scalars[key]
