"""Where a model runs and how precisely, whatever this machine has."""

import pytest
import torch

from detkit.devices import choose_precision, place
from detkit.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(params=[True, False], ids=["with a GPU", "without"])
def gpu(request, monkeypatch) -> bool:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    return request.param


def test_the_gpu_where_there_is_one(gpu):
    assert place("auto", "fp32").device == (CUDA if gpu else CPU)
    assert place("cpu", "fp32").device == CPU


def test_a_gpu_that_is_not_there_is_refused(gpu):
    if gpu:
        assert place("cuda", "fp32").device == CUDA
    else:
        with pytest.raises(ConfigError, match="torch sees no GPU; use device=cpu"):
            place("cuda", "fp32")


@pytest.mark.parametrize(
    ("capability", "instructions", "dtype"),
    [
        ("AVX512", True, torch.bfloat16),
        ("AVX512", False, torch.float32),
        ("AVX2", True, torch.float32),
        ("DEFAULT", False, torch.float32),
    ],
)
def test_bfloat16_where_the_processor_computes_in_it(monkeypatch, capability, instructions, dtype):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    assert choose_precision("auto", CPU) == dtype
    assert choose_precision("fp32", CPU) == torch.float32
    assert choose_precision("bf16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_where_the_gpu_computes_in_it(monkeypatch, supported, dtype):
    # Emulated where it is asked about with its default.
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported or including_emulation
    )
    assert choose_precision("auto", CUDA) == dtype


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_convolutions_run_in_the_dtype_that_was_chosen(precision):
    placement = place("cpu", precision)
    with placement.autocast():
        outputs = torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))
    assert outputs.dtype == placement.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
