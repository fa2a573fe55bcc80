"""What a call needs beside its result, what its ops read and write, and what the machine has left."""

import ctypes
import os
from pathlib import Path
from typing import Any

import torch
from timing import Call
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PR_SET_THP_DISABLE = 41
OWN_STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
READ_NOT_FIRST = {"copy_", "zero_", "fill_", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones"}
"""Ops whose first argument is only the place to write to, or the model of its shape."""
CONTROL_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def peak_extra_bytes(call: Call, device: torch.device) -> int | None:
    """The most memory that one call holds at a time beyond what was held before it and what it returns.

    On a GPU that is what PyTorch's allocator says. On a CPU it is the growth of the process's resident memory,
    which the kernel keeps at its peak (VmHWM), so that memory which a library takes for itself counts too, by
    pages of 4 KiB and as far as it is touched. Free memory is given back before, so that no call lives off what
    another left behind. The kernel's count lags by some hundred kilobytes where tens of megabytes come or go at
    once. None where this cannot be had: outside Linux with glibc. Warm the call up first.
    """
    run = call.ready()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = run()
        torch.cuda.synchronize(device)
        growth = torch.cuda.max_memory_allocated(device) - before
    else:
        libc = ctypes.CDLL(None)
        if not OWN_STATUS.exists() or not hasattr(libc, "malloc_trim"):
            return None
        # Huge pages would count two megabytes for the first byte.
        libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        before = _resident("VmRSS")
        result = run()
        growth = _resident("VmHWM") - before
        libc.prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0)
    return max(0, growth - tensor_bytes(result))


def _resident(field: str) -> int:
    """A line of the process's status, in bytes."""
    lines = OWN_STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def tensor_bytes(tree: Any) -> int:
    """The memory of the tensors in a tree of lists, tuples and dicts; an expanded tensor counts what it holds."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


class BytesMoved(TorchDispatchMode):
    """Counts in ``total`` the bytes that the ops run under it read and write, each tensor of an op once.

    What caches save or an op reads twice inside itself is not seen; views move nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        views = [alias for alias in (each.alias_info for each in func._schema.returns) if alias is not None]
        if any(not alias.is_write for alias in views) or "empty" in name:
            return result
        if name.endswith("index_put_"):
            # It writes as much as it is given, however large the tensor is.
            self.total += tensor_bytes(args[1:]) + tensor_bytes(args[2])
            return result
        read = args[1:] if name in READ_NOT_FIRST else args
        self.total += tensor_bytes((read, kwargs, result))
        return result


def bytes_moved(call: Call, *, watch: bool = True) -> int | None:
    """Bytes that the ops of one call read and write; see :class:`BytesMoved`. Without ``watch`` it only runs."""
    run = call.ready()
    if not watch:
        run()
        return None
    with BytesMoved() as counter:
        run()
    return counter.total


def available_bytes(device: torch.device) -> int:
    """Memory that can be taken on the device without swapping or being killed."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    else:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    for limit, used in CONTROL_GROUPS:
        if Path(limit).exists() and (most := Path(limit).read_text().strip()).isdigit():
            available = min(available, int(most) - int(Path(used).read_text()))
    return available
