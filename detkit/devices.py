"""Where and how precisely a model runs."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from detkit.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]


def choose_device(name: Device) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for and torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda is asked for, but torch sees no GPU; use device=cpu")
    return torch.device(name)


def choose_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The dtype of convolutions: ``auto`` is bfloat16 where the processor or GPU computes in it.

    A processor without such instructions emulates bfloat16, slower than float32.
    """
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.backends.cpu.get_cpu_capability()
        fast = capabilities.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


@dataclass(frozen=True)
class Placement:
    """Where a model runs, and in which dtype its convolutions compute."""

    device: torch.device
    dtype: torch.dtype
    """bfloat16 (by autocast) or float32."""

    def autocast(self) -> AbstractContextManager:
        """torch's autocast for this dtype; it does nothing for float32."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def place(device: Device, precision: Precision) -> Placement:
    """The placement that a configuration asks for.

    Raises:
        ConfigError: a GPU is asked for and torch sees none.
    """
    chosen = choose_device(device)
    return Placement(chosen, choose_precision(precision, chosen))
