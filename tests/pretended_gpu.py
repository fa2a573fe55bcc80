"""A GPU that is not there, for tests of where tensors lie: a plugin of pytest (``-p tests.pretended_gpu``).

Every detector is placed on it, whatever device is asked for. Its tensors wrap those of the CPU, where their operations
run, so that a test finds the numbers that it expects; but what a GPU would refuse is refused: an operation on tensors
of both devices, NumPy's view of one, and a generator of the CPU for numbers on the GPU. ``tests/test_pretended_gpu.py``
runs the tests of training, mining and detection so.

It shows nothing of CUDA: of its kernels see ``tests/ops/test_cuda.py``.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

from detkit import devices

NAME = "pretended_gpu"


class Module(backend_registration._DummyBackendModule):
    """What autocast asks of a device; it then finds nothing to do, for no precision but float32 is chosen."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


# Torch's way to a device that is written in Python, once in a process.
backend_registration._setup_privateuseone_for_python_backend(NAME, Module())
AUTOCAST = torch.library.Library("_", "IMPL")
AUTOCAST.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")

GPU = torch.device(NAME, 0)
aten = torch.ops.aten
MOVES = {aten._to_copy, aten.to, aten.copy_}
"""What takes tensors from one device to another."""
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
"""What takes indices from the CPU to a tensor of any device."""


class OnGpu(Tensor):
    """A tensor on the pretended GPU; ``elements`` is on the CPU."""

    elements: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> "OnGpu":
        layout = {"strides": real.stride(), "storage_offset": real.storage_offset(), "layout": real.layout}
        wrapper = Tensor._make_wrapper_subclass(cls, real.size(), dtype=real.dtype, device=GPU, **layout)
        wrapper.elements = real
        return wrapper

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({self.elements})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.elements.__reduce_ex__(protocol)  # checkpoints are read onto the CPU first

    def tolist(self) -> Any:
        return self.elements.tolist()

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        return run(operation, arguments, keywords or {})


class PretendedGpu(TorchDispatchMode):
    """While it is entered, tensors can be made on the pretended GPU or moved to it."""

    operations = 0
    """That took a tensor on it, by now."""

    def __enter__(self) -> "PretendedGpu":
        # So that torch.tensor(..., device=GPU) makes its tensor on the CPU and moves it, which can be intercepted.
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        return run(operation, arguments, keywords or {})


def run(operation: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
    """Run an operation on the CPU, and say of its results where they lie."""
    values: list[Any] = []
    there, told = (each(given, on_cpu, values) for given in (arguments, keywords))
    on_gpu = {id(value.elements): value for value in values if isinstance(value, OnGpu)}
    PretendedGpu.operations += bool(on_gpu)
    asked = [value.type for value in values if isinstance(value, torch.device)]
    to_gpu = NAME in asked if asked else bool(on_gpu)
    if operation.overloadpacket == aten.copy_:
        to_gpu = isinstance(arguments[0], OnGpu)
    elif to_gpu and operation.overloadpacket not in MOVES:
        refuse_the_cpu(operation, arguments, values)

    def placed(result: Any) -> Any:
        if not isinstance(result, Tensor):
            return result
        same = on_gpu.get(id(result))  # in place, or nothing to do
        if to_gpu:
            return OnGpu(result) if same is None else same
        return result if same is None else result.clone()

    return each(operation(*there, **told), placed, [])


def each(nested: Any, change: Any, seen: list[Any]) -> Any:
    """Lists, tuples and dicts with every value changed; ``seen`` gets the values as they were."""
    if isinstance(nested, list | tuple):
        return type(nested)([each(value, change, seen) for value in nested])
    if isinstance(nested, dict):
        return {name: each(value, change, seen) for name, value in nested.items()}
    seen.append(nested)
    return change(nested)


def on_cpu(value: Any) -> Any:
    if isinstance(value, OnGpu):
        return value.elements
    return torch.device("cpu") if isinstance(value, torch.device) else value


def refuse_the_cpu(operation: Any, arguments: Any, values: list[Any]) -> None:
    """As CUDA does, which takes of the CPU no more than single numbers, and indices."""
    if operation.overloadpacket in INDEXING:
        values = [arguments[0], *arguments[2:]]
    for value in values:
        if isinstance(value, Tensor) and not isinstance(value, OnGpu) and value.dim() > 0:
            raise RuntimeError(f"{operation}: a tensor of shape {list(value.shape)} is on the CPU")
        if isinstance(value, torch.Generator) and value.device.type != NAME:
            raise RuntimeError(f"{operation}: the generator is on {value.device}")


def pytest_configure() -> None:
    devices.choose_device = lambda name: GPU
    devices.choose_precision = lambda name, device: torch.float32


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Iterator[None]:
    with PretendedGpu():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    with PretendedGpu():
        return (yield)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"operations on the pretended GPU: {PretendedGpu.operations}")
