"""benchmarks/ops.py on tiny cases: what it measures is what it says, and all implementations agree; no timings."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import op_measurement
import pytest
import torch
from memory import bytes_moved, peak_extra_bytes
from op_cases import (
    LossCase,
    LossInputs,
    MatchingCase,
    MatchingInputs,
    count_anchors,
    level_views,
    make_boxes,
)
from op_measurement import Job, measure
from op_peers import (
    BOTH,
    COPY,
    DETKIT,
    FORWARD,
    LOSSES,
    MATCHINGS,
    TORCHVISION,
    Implementation,
    UnavailableError,
    integer_label_loss,
    needed_bytes,
)
from op_report import goals, table
from ops import all_groups, parse_arguments
from timing import Call, time_by_turns

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_OTHERS = """
import runpy, sys
sys.modules["torchvision"] = sys.modules["rich"] = None
sys.argv[0] = "benchmarks/ops.py"
sys.path.insert(0, "benchmarks")
runpy.run_path(sys.argv[0], run_name="__main__")
"""
CPU = torch.device("cpu")
TINY = (72, 104)
KEYS = {"op", "implementation", "device", "dtype", "case", "pass", "median_ms", "extra_bytes"}
MEGABYTE = 1_000_000


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
    """The interpreter in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def torchvision_or_skip(build, inputs) -> Implementation:
    try:
        return build(inputs)
    except UnavailableError as error:
        pytest.skip(str(error))


def test_writes_a_record_of_every_implementation_and_pass(tmp_path):
    pytest.importorskip("matplotlib")
    # A compiler that is not there: its implementation is skipped, and says why.
    broken = {"CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    cases = ("--sizes", "72x104", "--images", "2", "--classes", "3", "--boxes", "0", "5", "--dtypes", "fp32")
    files = ("--json", tmp_path / "ops.json", "--picture", tmp_path / "ops.png")
    done = run("benchmarks/ops.py", *cases, *files, "--seconds", "0.01", "--threads", "1", **broken)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "ops.json").read_text())
    assert all(record.keys() >= KEYS for record in records)
    cells = [tuple(record[key] for key in ("op", "case", "pass", "implementation")) for record in records]
    anchors = count_anchors(TINY)
    loss = ("sigmoid_focal_loss", f"N=2 A={anchors} K=3")
    assert set(cells) == {
        *((*loss, passes, name) for passes in ("forward", "backward", BOTH) for name in LOSSES),
        *(("match_anchors", f"N=2 A={anchors} G={g}", FORWARD, name) for g in (0, 5) for name in MATCHINGS),
    }
    assert len(cells) == len(set(cells))
    for record in records:
        assert ("skipped" in record) == (record["median_ms"] is None)
        if record["implementation"] == "torch.compile":
            assert "torch.compile failed" in record["skipped"]
        elif record["implementation"] in (DETKIT, COPY):
            assert record["median_ms"] > 0
            assert record["quartiles_ms"][0] <= record["median_ms"] <= record["quartiles_ms"][1]
    assert (tmp_path / "ops.png").read_bytes().startswith(b"\x89PNG")
    assert "match_anchors" in done.stdout
    assert "skipped: torch.compile failed" in done.stdout


def test_passes_and_cases_are_those_asked_for():
    words = ["--passes", BOTH, "--images", "8", "--sizes", "64x64", "--classes", "7", "--boxes", "3"]
    jobs = [job for group in all_groups(parse_arguments(words)) for job in group]
    assert [job.passes for job in jobs] == [(BOTH,), (BOTH,), (FORWARD,)]
    assert [str(job.case) for job in jobs] == ["N=8 A=774 K=7", "N=8 A=774 K=7", "N=8 A=774 G=3"]


def test_torchvision_and_rich_may_be_missing():
    cases = ("--op", "matching", "--sizes", "64x64", "--images", "1", "--boxes", "2", "--seconds", "0.01")
    done = run("-c", WITHOUT_OTHERS, *cases)
    assert done.returncode == 0, done.stderr
    assert "torchvision  skipped: torchvision cannot be imported" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", "0"), "argument --images"),
        (("--sizes", "640"), "argument --sizes"),
        (("--quick", "--images", "8"), "leave out --images"),
        (("--passes", "both"), "argument --passes"),
        (("--json", "/dev/null/ops.json"), "/dev/null"),
    ],
)
def test_a_mistake_ends_with_one_message(arguments, message):
    done = run("benchmarks/ops.py", *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches():
    done = run("benchmarks/ops.py", "--help")
    assert done.returncode == 0
    assert "python benchmarks/ops.py --quick" in done.stdout
    assert all(key in done.stdout for key in KEYS)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_losses_and_their_gradients_agree(dtype):
    inputs = LossInputs(LossCase(3, TINY, 7, dtype), CPU)
    ours = LOSSES[DETKIT](inputs)
    gradient = torch.cat(level_views(ours.call(BOTH).run(), 7), dim=1)
    expected = ours.forward()
    # The formulation without its compiler, which takes long.
    logits = inputs.concatenated
    integer = Implementation(lambda: integer_label_loss(logits, inputs.labels), (logits,))
    theirs = torchvision_or_skip(LOSSES[TORCHVISION], inputs)
    # torchvision computes in the type of the logits, the other two in float32.
    coarse = {"rtol": 0.02, "atol": 0.02} if dtype == "bf16" else {"rtol": 1e-4, "atol": 1e-6}
    for peer, tolerance in (
        (integer, {"rtol": 1e-2 if dtype == "bf16" else 1e-5, "atol": 1e-6}),
        (theirs, coarse),
    ):
        torch.testing.assert_close(peer.forward().float(), expected, rtol=tolerance["rtol"], atol=1e-4)
        torch.testing.assert_close(peer.call(BOTH).run()[0], gradient, **tolerance)
    assert gradient.abs().max() > 0.1
    assert (gradient[inputs.labels == -2] == 0).all()


@pytest.mark.parametrize("boxes", [0, 1, 60])
def test_matchings_agree(boxes):
    inputs = MatchingInputs(MatchingCase(2, (320, 352), boxes), CPU)
    ours = MATCHINGS[DETKIT](inputs).forward()
    assert boxes == 0 or (ours >= 0).any()
    theirs = torchvision_or_skip(MATCHINGS[TORCHVISION], inputs).forward()
    assert torch.equal(ours, torch.stack(theirs).int())


@pytest.mark.parametrize(
    ("size", "anchors"), [((640, 640), 76_725), ((800, 1088), 163_206), ((800, 1344), 201_600)]
)
def test_anchors_are_those_of_the_model(size, anchors):
    assert count_anchors(size) == anchors
    pytest.importorskip("torchvision")
    from detkit.models.anchors import AnchorGenerator

    sizes = [[4 * stride * 2 ** (octave / 3) for octave in range(3)] for stride in (8, 16, 32, 64, 128)]
    generator = AnchorGenerator(sizes, [0.5, 1.0, 2.0], [8, 16, 32, 64, 128])
    made = MatchingInputs(MatchingCase(1, size, 0), CPU).anchors
    assert torch.equal(made, torch.cat(generator.anchors_for(size)))


def test_boxes_are_of_cocos_sizes():
    boxes = make_boxes(20_000, (480, 640), torch.Generator().manual_seed(1))
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    side = (width * height).sqrt()
    assert (side < 32).float().mean().item() == pytest.approx(0.41, abs=0.02)
    assert (side > 96).float().mean().item() == pytest.approx(0.24, abs=0.02)
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 640
    assert boxes[:, 3].max() <= 480
    assert min(width.min(), height.min()) > 7.99


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_logits_lie_in_one_memory_and_look_like_training(dtype):
    case = LossCase(2, (320, 320), 5, dtype)
    inputs = LossInputs(case, CPU)
    for output in inputs.outputs:
        assert output.is_contiguous(memory_format=torch.channels_last)
        assert output.untyped_storage().data_ptr() == inputs.memory.untyped_storage().data_ptr()
        assert output.data_ptr() % 64 == inputs.memory.data_ptr() % 64
    levels = level_views(inputs.outputs, case.classes)
    assert all(
        view.data_ptr() == output.data_ptr() for view, output in zip(levels, inputs.outputs, strict=True)
    )
    assert inputs.concatenated.shape == (2, count_anchors((320, 320)), 5)
    assert inputs.concatenated.nbytes == case.logit_bytes
    foreground = inputs.labels >= 0
    assert foreground.float().mean().item() == pytest.approx(0.0015, abs=0.0005)
    assert (inputs.labels == -2).any()
    assert inputs.labels.max() == 4
    logits = inputs.concatenated.detach().float()
    assert logits.mean().item() == pytest.approx(-5, abs=0.05)
    of_class = logits[foreground].gather(1, inputs.labels[foreground].long()[:, None])
    assert of_class.mean().item() == pytest.approx(0, abs=0.8)
    again = LossInputs(case, CPU)
    assert torch.equal(again.memory, inputs.memory)
    assert torch.equal(again.labels, inputs.labels)


def test_memory_is_seen_whoever_takes_it():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p

    def by_malloc() -> None:
        block = ctypes.c_void_p(libc.malloc(3 * MEGABYTE))
        ctypes.memset(block, 1, 3 * MEGABYTE)
        libc.free(block)

    def by_torch() -> torch.Tensor:
        held = [torch.ones(MEGABYTE, dtype=torch.uint8) for _ in range(2)]
        return held[0] + held[1]

    for function, expected in ((by_malloc, 3), (by_torch, 2), (lambda: torch.ones(MEGABYTE), 0)):
        call = Call(function)
        call.run()
        found = peak_extra_bytes(call, CPU)
        if found is None:
            pytest.skip("the system does not say how much memory a process has had at most")
        assert found == pytest.approx(expected * MEGABYTE, abs=0.2 * MEGABYTE)
    prepared = Call(lambda held: held.sum(), prepare=lambda: torch.ones(MEGABYTE))
    assert peak_extra_bytes(prepared, CPU) < 0.2 * MEGABYTE


def test_bytes_moved_counts_each_tensor_of_an_op_once():
    a, b = torch.rand(10, 10), torch.rand(10, 10)
    counts = {
        "a copy": (lambda: b.copy_(a), 800),
        "a sum of two": (lambda: a + b, 1200),
        "in place": (lambda: a.mul_(b), 1200),
        "views": (lambda: a.t().reshape(10, 10)[2:].expand(8, 10), 0),
        "a new tensor": (lambda: torch.zeros_like(a), 400),
        "an expanded tensor": (lambda: a + torch.ones(1).expand(10, 10), 4 + 400 + 4 + 400),
    }
    for what, (function, expected) in counts.items():
        assert bytes_moved(Call(function)) == expected, what
    assert bytes_moved(Call(lambda: a + b), watch=False) is None


def test_calls_take_turns_and_only_what_is_prepared_is_run():
    said = []
    calls = {
        "a": Call(lambda: said.append("a")),
        "b": Call(said.append, prepare=lambda: said.append("ready") or "b"),
    }
    times = time_by_turns(calls, CPU, seconds=0, rounds=(3, 9), cold=False)
    assert said == ["a", "ready", "b"] * 4
    assert [len(times[name]) for name in "ab"] == [3, 3]
    times = time_by_turns(calls, CPU, seconds=60, rounds=(1, 5), cold=False)
    assert len(times["a"]) == 5


def test_what_does_not_fit_is_skipped_with_its_reason(monkeypatch):
    job = Job(LossCase(1, TINY, 2, "fp32"), (FORWARD,), (DETKIT, TORCHVISION, COPY))
    shared = job.case.logit_bytes + needed_bytes(job.case, COPY)
    enough_for_ours = (shared + needed_bytes(job.case, DETKIT)) / op_measurement.SHARE_OF_MEMORY
    monkeypatch.setattr(op_measurement, "available_bytes", lambda device: enough_for_ours + 1)
    (records,) = measure([job], CPU, seconds=0)
    assert [record["median_ms"] is None for record in records] == [False, True, False]
    assert "are free" in records[1]["skipped"]
    monkeypatch.setattr(op_measurement, "available_bytes", lambda device: 0)
    monkeypatch.setattr(Job, "inputs", lambda *_: pytest.fail("the inputs do not fit either"))
    (records,) = measure([job], CPU, seconds=0)
    assert all(record["median_ms"] is None for record in records)
    assert table(records).count("skipped: needs about") == 3


def test_goals_say_what_was_reached():
    def record(case, passes, name, milliseconds, extra=0):
        job = Job(case, (passes,), (name,))
        return {**job.record(name, passes, CPU), "median_ms": milliseconds, "extra_bytes": extra}

    fp32, bf16 = (LossCase(1, (640, 640), 80, dtype) for dtype in ("fp32", "bf16"))
    hundred, thousands = (MatchingCase(1, (800, 1088), boxes) for boxes in (100, 2000))
    records = [
        record(fp32, BOTH, DETKIT, 5.0),
        record(fp32, BOTH, TORCHVISION, 110.0),
        record(fp32, BOTH, COPY, 0.5),
        record(bf16, BOTH, DETKIT, 4.0),
        record(hundred, FORWARD, DETKIT, 2.0, extra=400_000),
        record(hundred, FORWARD, TORCHVISION, 150.0),
        record(thousands, FORWARD, DETKIT, 30.0),
    ]
    lines = [str(goal) for goal in goals(records, "cpu")]
    assert [line.split()[0] for line in lines] == ["met", "missed", "met", "missed", "missed", "met"]
    assert "22.00 times faster than torchvision (goal: at least 20)" in lines[0]
    assert "10.00 times a copy (goal: at most 6)" in lines[1]
    assert all(str(goal).startswith("not measured") for goal in goals([], "cpu"))
    on_gpu = [
        record(LossCase(8, (800, 1088), 80, "bf16"), BOTH, DETKIT, 0.18),
        record(LossCase(8, (800, 1088), 80, "bf16"), BOTH, COPY, 0.1),
        record(MatchingCase(8, (800, 1088), 100), FORWARD, DETKIT, 0.05),
    ]
    lines = [str(goal) for goal in goals(on_gpu, "cuda")]
    assert [line.split()[0] for line in lines] == ["met", "not", "met"]
    assert "1.20 times three passes" in lines[0]
    assert "50.00 microseconds" in lines[2]
