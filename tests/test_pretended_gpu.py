"""Training, mining and detection keep every tensor where the model is: their own tests, on a GPU that is pretended."""

import json
import os
import subprocess
import sys

from scripts import ROOT

TESTS = (
    "tests/training/test_every_cure.py",
    "tests/training/test_loop.py::test_a_run_stopped_by_a_signal_and_resumed_ends_the_same[5]",
    "tests/bootstrap/test_bootstrapping.py::test_canvases_show_the_crops_of_all_rounds_so_far",
    "tests/bootstrap/test_bootstrapping.py::test_later_images_of_an_unverified_pool_ignore_it_and_are_not_tracked",
    "tests/bootstrap/test_bootstrapping.py::test_nothing_is_mined_in_a_round_that_is_undone",
    "tests/tools/test_mine.py::test_from_a_checkpoint_and_training_images",
    "tests/tools/test_train_and_predict.py::test_evaluate_and_predict_from_the_checkpoint",
    "tests/tools/test_train_and_predict.py::test_loss_shares_from_the_checkpoint",
)
REFUSED = {
    "here + there": "is on the CPU",
    "there.add_(here)": "is on the CPU",
    "torch.cat([there, here])": "is on the CPU",
    "there.index_put_([torch.arange(2)], here[:2])": "is on the CPU",
    "there.numpy()": "numpy() is not supported",
    "torch.rand(3, generator=torch.Generator(), device=GPU)": "the generator is on cpu",
}
TAKEN = (
    "there + here[0]",
    "there[torch.arange(2)]",
    "there.cpu() + here",
    "here.to(GPU) + there",
    "there.copy_(here)",
)
TRY = """
import json, sys, torch
from tests.pretended_gpu import GPU, PretendedGpu

def outcome(line):
    here, there = torch.ones(3), torch.ones(3, device=GPU)
    try:
        return f"taken, on {eval(line).device.type}"
    except (RuntimeError, TypeError) as error:
        return str(error)

with PretendedGpu():
    print(json.dumps({line: outcome(line) for line in sys.argv[1:]}))
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess:
    """In a process of its own, which a device that is written in Python never leaves."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_what_the_pretended_gpu_takes_and_refuses():
    ended = run_python("-c", TRY, *REFUSED, *TAKEN)
    assert ended.returncode == 0, ended.stderr
    outcomes = json.loads(ended.stdout)
    for line, why in REFUSED.items():
        assert why in outcomes[line], line
    on_cpu = {"there.cpu() + here"}
    assert all(
        outcomes[line] == f"taken, on {'cpu' if line in on_cpu else 'pretended_gpu'}" for line in TAKEN
    )


def test_training_mining_and_detection_on_the_pretended_gpu():
    ended = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.pretended_gpu", *TESTS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    operations = int(ended.stdout.split("operations on the pretended GPU: ")[1].split()[0])
    assert operations > 100_000
