"""Training, mining and detection keep every tensor where the model is: their own tests, on a GPU that is pretended."""

import json
import os
import subprocess
import sys

import pytest
from scripts import ROOT
from torch.utils import backend_registration

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices that are written in Python",
)
LOOP, BOOTSTRAPPING = "tests/training/test_loop.py", "tests/bootstrap/test_bootstrapping.py"
TESTS = (
    "tests/training/test_every_selection.py",
    f"{LOOP}::test_a_run_stopped_by_a_signal_and_resumed_ends_the_same[5]",
    f"{LOOP}::test_accumulation_takes_one_step_for_its_batches",
    f"{BOOTSTRAPPING}::test_canvases_show_the_crops_of_all_rounds_so_far",
    f"{BOOTSTRAPPING}::test_later_images_of_an_unverified_pool_ignore_it_and_are_not_tracked",
    f"{BOOTSTRAPPING}::test_nothing_is_mined_in_a_round_that_is_undone",
    f"{BOOTSTRAPPING}::test_a_new_detector_keeps_what_was_mined",
    "tests/tools/test_mine.py::test_from_a_checkpoint_and_training_images",
    "tests/tools/test_train_and_predict.py::test_evaluate_and_predict_from_the_checkpoint",
    "tests/tools/test_train_and_predict.py::test_loss_shares_from_the_checkpoint",
)
REFUSED = {
    "here + there": "is on the CPU",
    "there.add_(here)": "is on the CPU",
    "here[0].add_(there[0])": "is on the CPU",
    "torch.cat([there, here])": "is on the CPU",
    "torch.stack([there[0], here[0]])": "is on the CPU",
    "there.index_put_([torch.arange(2)], here[:2])": "is on the CPU",
    "here[torch.arange(2, device=GPU)]": "is on the CPU",
    "there.numpy()": "numpy() is not supported",
    "torch.rand(3, generator=torch.Generator(), device=GPU)": "the generator is on cpu",
}
TAKEN = {
    "there + here[0]": "pretended_gpu",
    "there[torch.arange(2)]": "pretended_gpu",
    "there.copy_(here)": "pretended_gpu",
    "here.to(GPU) + there": "pretended_gpu",
    "there.cpu() + here": "cpu",
}
PROBE = """
import json, sys, torch
from pretended_gpu import GPU, PretendedGpu

def outcome(line):
    here, there = torch.ones(3), torch.ones(3, device=GPU)
    try:
        return eval(line).device.type
    except (RuntimeError, TypeError) as error:
        return str(error)

with PretendedGpu():
    print(json.dumps({line: outcome(line) for line in sys.argv[1:]}))
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess:
    """In a process of its own, which a device that is written in Python never leaves."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    environment = {**inherited, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    return subprocess.run(
        [sys.executable, *arguments], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_what_the_pretended_gpu_takes_and_refuses():
    ended = run_python("-c", PROBE, *REFUSED, *TAKEN)
    assert ended.returncode == 0, ended.stderr
    outcomes = json.loads(ended.stdout)
    for line, why in REFUSED.items():
        assert why in outcomes[line], line
    assert {line: outcomes[line] for line in TAKEN} == TAKEN


def test_training_mining_and_detection_on_the_pretended_gpu():
    ended = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pretended_gpu", *TESTS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # None where nothing was placed on it.
    assert int(ended.stdout.split("operations on the pretended GPU: ")[1].split()[0]) > 0
