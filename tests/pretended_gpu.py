"""A GPU that is not there, for tests of where tensors lie: a plugin of pytest (``-p pretended_gpu``).

Every detector is placed on it, whatever device is asked for, in float32. Its tensors wrap those of the CPU, where their
operations run, so that a test finds the numbers that it expects; but what a GPU would refuse is refused: an operation
on tensors of both devices, NumPy's view of one, and a generator of the CPU for numbers on the GPU.
``tests/test_pretended_gpu.py`` runs some of the tests of training, mining and detection so.

It shows nothing of CUDA itself: of kernels (see ``tests/ops/test_cuda.py``), of page-locked memory, of autocast.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

from detkit import devices

NAME = "pretended_gpu"


class DeviceModule(backend_registration._DummyBackendModule):
    """What autocast asks of a device; it then finds nothing to do, for no precision but float32 is chosen."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


# Torch's way to a device that is written in Python, once in a process.
backend_registration._setup_privateuseone_for_python_backend(NAME, DeviceModule())
AUTOCAST = torch.library.Library("_", "IMPL")
AUTOCAST.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
# So that torch.tensor(..., device=GPU) makes its tensor on the CPU and moves it, which can be intercepted.
torch._C._set_only_lift_cpu_tensors(True)

GPU = torch.device(NAME, 0)
aten = torch.ops.aten
MOVES = {aten._to_copy, aten.to, aten.copy_}
"""What takes tensors from one device to another."""
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
"""What takes indices from the CPU to a tensor of any device."""
JOINING = {aten.cat, aten.stack}
"""What takes nothing from the CPU, not even a single number."""


class OnGpu(Tensor):
    """A tensor on the pretended GPU; ``elements`` is on the CPU."""

    elements: Tensor

    @staticmethod
    def __new__(cls, elements: Tensor) -> "OnGpu":
        wrapper = Tensor._make_wrapper_subclass(
            cls,
            elements.size(),
            strides=elements.stride(),
            storage_offset=elements.storage_offset(),
            dtype=elements.dtype,
            device=GPU,
        )
        wrapper.elements = elements
        return wrapper

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({self.elements})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.elements.__reduce_ex__(protocol)  # checkpoints are read onto the CPU first

    def tolist(self) -> Any:
        return self.elements.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """While it is entered, tensors can be made on the pretended GPU or moved to it."""

    operations = 0
    """That took a tensor on it, by now."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU, and say of its results where they lie."""
    values = list(leaves([args, kwargs]))
    on_gpu = {id(value.elements): value for value in values if isinstance(value, OnGpu)}
    on_cpu = {id(value) for value in values if isinstance(value, Tensor)}
    PretendedGpu.operations += bool(on_gpu)
    asked = [value.type for value in values if isinstance(value, torch.device)]
    to_gpu = NAME in asked if asked else bool(on_gpu)
    if func.overloadpacket == aten.copy_:
        to_gpu = isinstance(args[0], OnGpu)
    elif to_gpu and func.overloadpacket not in MOVES:
        refuse_the_cpu(func, args, values)

    def placed(result: Any) -> Any:
        if not isinstance(result, Tensor):
            return result
        if id(result) in on_gpu:  # in place, or nothing to do
            return on_gpu[id(result)] if to_gpu else result.clone()
        if to_gpu:
            return OnGpu(result.clone() if id(result) in on_cpu else result)
        return result

    return each(placed, func(*each(to_cpu, args), **each(to_cpu, kwargs)))


def leaves(nested: Any) -> Iterator[Any]:
    """The values in lists, tuples and dicts."""
    if isinstance(nested, list | tuple | dict):
        for part in nested.values() if isinstance(nested, dict) else nested:
            yield from leaves(part)
    else:
        yield nested


def each(change: Callable[[Any], Any], nested: Any) -> Any:
    """The same lists, tuples and dicts with every value changed; torch's own tree_map takes several times as long."""
    if isinstance(nested, list | tuple):
        return type(nested)([each(change, part) for part in nested])
    if isinstance(nested, dict):
        return {name: each(change, part) for name, part in nested.items()}
    return change(nested)


def to_cpu(value: Any) -> Any:
    if isinstance(value, OnGpu):
        return value.elements
    return torch.device("cpu") if isinstance(value, torch.device) else value


def refuse_the_cpu(func: Any, args: Any, values: list[Any]) -> None:
    """As CUDA does, which takes of the CPU indices, and single numbers where they are not written or joined."""
    if func.overloadpacket in INDEXING:
        values = [args[0], *args[2:]]
    for value in values:
        if isinstance(value, Tensor) and not isinstance(value, OnGpu):
            written = func._schema.is_mutable and value is args[0]
            if value.dim() > 0 or written or func.overloadpacket in JOINING:
                raise RuntimeError(f"{func}: a tensor of shape {list(value.shape)} is on the CPU")
        if isinstance(value, torch.Generator) and value.device.type != NAME:
            raise RuntimeError(f"{func}: the generator is on {value.device}")


def pytest_configure() -> None:
    devices.choose_device = lambda name: GPU
    devices.choose_precision = lambda name, device: torch.float32


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Iterator[None]:
    with PretendedGpu():
        return (yield)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"operations on the pretended GPU: {PretendedGpu.operations}")
