"""The curves show what the log holds, gaps included."""

import math
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from detkit.report.curves import best_row, draw_curves, smooth, training_curves


def train_row(step: int, loss: float | None) -> dict:
    return {"event": "train", "step": step, "epoch": step / 10, "loss": loss, "learning_rate": 1e-3 * step}


def validate_row(epoch: float, ap: float | None, ap50: float | None, loss: float | None = 0.5) -> dict:
    return {"event": "validate", "step": epoch * 10, "epoch": epoch, "AP": ap, "AP50": ap50, "loss": loss}


TRAIN = [{"event": "start", "format_version": 1}, *(train_row(step, 2 / step) for step in range(1, 31))]


def lines(figure: Figure, panel: int) -> dict[str, np.ndarray]:
    return {str(line.get_label()): line.get_xydata() for line in figure.axes[panel].get_lines()}


def test_series_are_those_of_the_rows():
    rows = [*TRAIN, validate_row(1, 0.2, 0.5), validate_row(2, 0.4, 0.7, loss=0.3), validate_row(3, 0.3, 0.8)]
    figure = draw_curves(rows)
    raw = figure.axes[0].get_lines()[0].get_xydata()
    np.testing.assert_allclose(raw, [(step / 10, 2 / step) for step in range(1, 31)])
    np.testing.assert_allclose(lines(figure, 0)["validation"], [(1, 0.5), (2, 0.3), (3, 0.5)])
    np.testing.assert_allclose(lines(figure, 1)["AP"], [(1, 0.2), (2, 0.4), (3, 0.3)])
    np.testing.assert_allclose(lines(figure, 1)["AP50"], [(1, 0.5), (2, 0.7), (3, 0.8)])
    rates = figure.axes[2].get_lines()[0].get_ydata()
    np.testing.assert_allclose(rates, 1e-3 * np.arange(1, 31))


def test_the_best_epoch_is_marked_by_the_metric_chosen():
    rows = [*TRAIN, validate_row(1, 0.2, 0.5), validate_row(2, 0.4, 0.7), validate_row(3, 0.3, 0.8)]
    for metric, epoch in (("AP", 2), ("AP50", 3)):
        figure = draw_curves(rows, metric=metric)
        for axes in figure.axes:
            marks = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
            assert [list(mark.get_xdata()) for mark in marks] == [[epoch, epoch]]
        assert f"best {metric}" in figure.axes[1].get_title(loc="left")
        assert f"epoch {epoch}" in figure.axes[1].get_title(loc="left")


def test_a_verdict_stands_above_the_losses():
    def title(losses: list[float]) -> str:
        rows = [validate_row(epoch, 0.4, 0.7, loss) for epoch, loss in enumerate(losses, 1)]
        return draw_curves([*TRAIN, *rows]).axes[0].get_title(loc="left")

    assert title([0.5, 0.6, 0.7]).startswith("overfitting since epoch 1")
    assert not title([0.7, 0.6, 0.55])


def test_a_run_without_validation_says_so():
    figure = draw_curves(TRAIN)
    assert set(lines(figure, 1)) == set()
    assert [text.get_text() for text in figure.axes[1].texts] == ["nothing validated yet"]
    assert "validation" not in lines(figure, 0)
    assert len(lines(figure, 0)["training, smoothed"]) == 30


def test_values_that_are_missing_or_not_finite_leave_gaps():
    rows = [
        train_row(1, 1.0),
        train_row(2, math.nan),
        train_row(3, None),
        train_row(4, 3.0),
        validate_row(1, None, 0.5, loss=math.inf),
        validate_row(2, 0.3, math.nan, loss=None),
        {"event": "validate", "step": 30, "epoch": 3.0},
    ]
    figure = draw_curves(rows)
    np.testing.assert_array_equal(np.isfinite(lines(figure, 0)["training, smoothed"][:, 1]), [1, 0, 0, 1])
    np.testing.assert_array_equal(np.isfinite(lines(figure, 1)["AP"][:, 1]), [0, 1, 0])
    np.testing.assert_array_equal(np.isfinite(lines(figure, 1)["AP50"][:, 1]), [1, 0, 0])
    best = best_row(rows[4:], "AP")
    assert best is not None
    assert best["epoch"] == 2
    assert best_row(rows[6:], "AP") is None


def test_smoothing_keeps_constants_and_calms_noise():
    np.testing.assert_allclose(smooth(np.full(50, 0.7)), 0.7)
    noise = np.random.default_rng(0).normal(5, 1, 200)
    assert smooth(noise).std() < 0.4 * noise.std()
    assert smooth(noise).mean() == pytest.approx(noise.mean(), abs=0.2)
    assert len(smooth(np.zeros(0))) == 0
    assert smooth(np.array([2.0])) == pytest.approx(2.0)


def test_a_spike_does_not_set_the_scale():
    rows = [train_row(1, 500.0), *(train_row(step, 1.0) for step in range(2, 200))]
    assert draw_curves(rows).axes[0].get_ylim()[1] < 10


@pytest.mark.parametrize("rows", [[], TRAIN[:2], [*TRAIN, validate_row(1, 0.2, 0.5)]])
def test_a_png_is_written_whole_and_the_backend_left_alone(rows: list[dict], tmp_path: Path):
    backend = matplotlib.rcParams["backend"]
    training_curves(rows, tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert min(picture.shape[:2]) > 600
    assert len(np.unique(picture)) > 10
    assert matplotlib.rcParams["backend"] == backend
