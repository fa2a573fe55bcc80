"""What only a GPU can show of the CUDA library: streams, captured graphs, autocast, several devices."""

import pytest
import torch
from kernel_inputs import DEVICE, ON_GPU, random_boxes, random_labels, random_logits, random_weights, run

from detkit.ops import _library, match_anchors, sigmoid_focal_loss

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.skipif(
        not ON_GPU,
        reason=f"the CUDA library is not loaded: {_library.CUDA.reason}"
        if torch.cuda.is_available()
        else "there is no GPU",
    ),
]


def test_works_under_autocast_and_compiled(generator):
    logits = random_logits((2, 50, 20), torch.bfloat16, generator).requires_grad_()
    labels = random_labels(2, 50, 20, generator)

    def loss(logits):
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            return sigmoid_focal_loss([logits[:, :30], logits[:, 30:]], labels)

    expected = loss(logits)
    assert expected.dtype == torch.float32
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(logits)
    assert torch.equal(compiled, expected)
    (found,) = torch.autograd.grad(compiled.sum(), logits)
    assert torch.equal(found, torch.autograd.grad(expected.sum(), logits)[0])


def test_the_ops_keep_the_rules_of_torch_library(generator):
    levels = [random_logits((2, anchors, 5), torch.float32, generator).requires_grad_() for anchors in (4, 3)]
    labels, weights = random_labels(2, 7, 5, generator), random_weights(2, 7, torch.float32, generator)
    parameters = {"alpha": 0.25, "gamma": 2.0}
    torch.library.opcheck(torch.ops.detkit.sigmoid_focal_loss.default, (levels, labels, weights), parameters)
    boxes = [random_boxes(count, generator) for count in (3, 0)]
    thresholds = {"foreground_iou": 0.5, "background_iou": 0.4, "low_quality": True}
    torch.library.opcheck(
        torch.ops.detkit.match_anchors.default, (random_boxes(9, generator), boxes), thresholds
    )


def capture(function):
    """The graph of a call, and the results that its replays overwrite."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function()
    return graph, results


def test_loss_and_gradient_in_a_captured_graph(generator):
    levels = [
        random_logits((2, anchors, 80), torch.bfloat16, generator).requires_grad_() for anchors in (300, 7)
    ]
    labels, grad = random_labels(2, 307, 80, generator), torch.ones(2, 307, device=DEVICE)

    def call():
        loss = sigmoid_focal_loss(levels, labels)
        return [loss, *torch.autograd.grad(loss, levels, grad)]

    graph, results = capture(call)
    for _ in range(2):
        with torch.no_grad():
            for level in levels:
                level.copy_(random_logits(level.shape, level.dtype, generator))
            labels.copy_(random_labels(2, 307, 80, generator))
        graph.replay()
        assert all(torch.equal(*pair) for pair in zip(results, call(), strict=True))


def test_matching_in_a_captured_graph(generator):
    anchors, boxes = random_boxes(3001, generator), [random_boxes(count, generator) for count in (5, 0, 90)]
    graph, matches = capture(lambda: match_anchors(anchors, boxes))
    for _ in range(2):
        for image in boxes:
            image.copy_(random_boxes(len(image), generator))
        graph.replay()
        assert torch.equal(matches, match_anchors(anchors, boxes))


def test_runs_on_the_current_stream(generator):
    """The input is there only after a wait on the same stream; on another one, the ops would read what was before."""
    logits = random_logits((2, 400, 80), torch.float32, generator)
    labels = random_labels(2, 400, 80, generator)
    anchors, boxes = random_boxes(2000, generator), random_boxes(50, generator)
    grad = torch.ones(2, 400, device=DEVICE)
    expected = [*run([logits], labels, None, grad), match_anchors(anchors, [boxes])]
    late_logits, late_boxes = torch.zeros_like(logits), torch.zeros_like(boxes)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late_logits.copy_(logits)
        late_boxes.copy_(boxes)
        found = [*run([late_logits], labels, None, grad), match_anchors(anchors, [late_boxes])]
    stream.synchronize()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1][0], expected[1][0])
    assert torch.equal(found[2], expected[2])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second GPU")
def test_runs_on_the_device_of_its_input(generator):
    logits = random_logits((2, 40, 80), torch.float32, generator)
    labels = random_labels(2, 40, 80, generator)
    anchors, boxes = random_boxes(2000, generator), random_boxes(50, generator)
    second = torch.device(DEVICE, 1)
    loss = sigmoid_focal_loss(logits.to(second), labels.to(second))
    matches = match_anchors(anchors.to(second), [boxes.to(second)])
    assert (loss.device, matches.device) == (second, second)
    assert torch.equal(loss.cpu(), sigmoid_focal_loss(logits, labels).cpu())
    assert torch.equal(matches.cpu(), match_anchors(anchors, [boxes]).cpu())
