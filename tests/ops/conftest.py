"""What the tests of the CUDA kernels share. It needs torch and pytest alone, as they do."""

import os
import random

import pytest
import torch
from host_kernels import build, kernels_in_use
from kernel_inputs import DEVICE, ON_GPU


@pytest.fixture(scope="session")
def host_library(tmp_path_factory):
    """The kernels compiled for the host."""
    return build(tmp_path_factory.mktemp("host_kernels"))


@pytest.fixture
def kernels(request):
    """Has the ops run the CUDA kernels: on a GPU if there is one, else on the host, whose functions it is then."""
    if ON_GPU:
        yield None
        return
    with kernels_in_use(request.getfixturevalue("host_library")) as functions:
        yield functions


@pytest.fixture
def generator(kernels):
    """Draws the input; a failure shows the seed that repeats it."""
    seed = int(os.environ.get("DETKIT_TEST_SEED") or random.SystemRandom().randrange(10**9))
    print(f"DETKIT_TEST_SEED={seed} draws the same input")
    if kernels:
        kernels.seed_order(seed)
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def poisoned_memory():
    """Fills what is allocated with NaN, so that a result that is not written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
