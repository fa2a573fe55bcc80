"""The formulas that the pictures show are those of the op, and the text about them holds what is computed."""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from detkit.labels import BACKGROUND
from detkit.ops import sigmoid_focal_loss
from detkit.report.loss_pictures import focal_loss, focal_slope, loss_chart
from detkit.report.svg import chart_style, standing_svg

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize(("label", "sign"), [(0, 1), (BACKGROUND, -1)])
def test_same_as_the_op(gamma, label, sign):
    logits = torch.linspace(-12, 12, 97, dtype=torch.float64).view(1, -1, 1).requires_grad_()
    labels = torch.full((1, 97), label, dtype=torch.int32)
    losses = sigmoid_focal_loss(logits, labels, alpha=0.25, gamma=gamma)
    losses.sum().backward()
    truth = torch.sigmoid(sign * logits.detach()).numpy().ravel()
    alpha = 0.25 if sign == 1 else 0.75
    np.testing.assert_allclose(
        losses.detach().numpy()[0], focal_loss(truth, gamma=gamma, alpha=alpha), rtol=1e-9
    )
    slope = sign * focal_slope(truth, gamma=gamma, alpha=alpha)
    np.testing.assert_allclose(logits.grad.numpy().ravel(), slope, rtol=1e-7, atol=1e-15)


def test_a_line_for_each_gamma_in_colours_of_its_own():
    with chart_style():
        figure = loss_chart([0.0, 3.0], alpha=0.25)
        text = standing_svg(figure)
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2, 2]
    loss = figure.axes[1].lines[1]
    np.testing.assert_allclose(loss.get_ydata(), focal_loss(loss.get_xdata(), gamma=3.0, alpha=0.25))
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "#1c66e0" in text
    assert "#0a0a" not in text  # no stand-in is left


def test_the_text_holds_what_is_computed():
    command = [sys.executable, str(DOCS / "focal_loss.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stderr}\npython docs/focal_loss.py writes the tables anew"


@pytest.mark.parametrize(
    ("right", "wrong"), [("| 0.9 | 0.11 |", "| 0.9 | 0.12 |"), ("| demo | 2 | 7", "| demo | 2 | 6")]
)
def test_a_number_that_was_changed_is_found(tmp_path, right, wrong):
    shutil.copytree(DOCS, tmp_path, dirs_exist_ok=True)
    text = tmp_path / "focal_loss.md"
    text.write_text(text.read_text().replace(right, wrong))
    command = [sys.executable, str(tmp_path / "focal_loss.py"), "--check"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
