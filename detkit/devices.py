"""Where and how precisely a model runs."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from detkit.errors import ConfigError


def choose_device(name: Literal["auto", "cpu", "cuda"] | str) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for and torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("device: cuda is asked for, but torch sees no GPU; use device=cpu")
    return torch.device(name)


def choose_precision(name: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
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


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """torch's autocast for that dtype; it does nothing for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
