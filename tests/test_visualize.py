"""The pictures: what is in them, and that drawing them touches nothing else."""

import builtins
import errno
import itertools
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest

import xpconv as xc
from xpconv import visualize
from xpconv.callbacks import History
from xpconv.scratch import apply_filter, visualize_filter
from xpconv.visualize.figures import TEXT_COLOR, check_suffix
from xpconv.visualize.layout import layered
from xpconv.visualize.pictures import MARK_COLOR

matplotlib = pytest.importorskip("matplotlib")


def pictures(figure):
    """The images of a figure, in the order they were drawn."""
    return figure.axes[0].get_images()


def labels(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def corners(figure):
    """Left and upper edge of every image, in inches."""
    return [(image.get_extent()[0], image.get_extent()[3]) for image in pictures(figure)]


def rendered(figure, dpi=50):
    """The figure as pixels, (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


@pytest.fixture
def weights(rng):
    return rng.normal(size=(10, 1, 5, 4)).astype(np.float32)


# ----------------------------------------------------------------------------------------------------------------------
# filters
# ----------------------------------------------------------------------------------------------------------------------


def test_filters_are_drawn_in_order_and_in_rows(weights):
    figure = visualize.filters(weights, columns=4, title="Ten filters")
    assert figure.texts[0].get_text() == "Ten filters"
    assert labels(figure) == [str(index) for index in range(10)]
    for image, filter_ in zip(pictures(figure), weights, strict=True):
        np.testing.assert_array_equal(image.get_array(), filter_[0])
    lefts, tops = (sorted(set(np.round(edge, 6))) for edge in zip(*corners(figure), strict=True))
    assert (len(lefts), len(tops)) == (4, 3)
    assert corners(figure)[5] == pytest.approx((lefts[1], tops[1]))
    left, right, bottom, top = pictures(figure)[0].get_extent()
    assert (bottom - top) / (right - left) == pytest.approx(5 / 4)


def test_one_scale_for_all_filters_has_zero_in_its_middle(weights):
    figure = visualize.filters(weights)
    limit = np.abs(weights).max()
    assert {image.get_clim() for image in pictures(figure)} == {(-limit, limit)}
    assert len(figure.axes) == 2, "the pictures and a bar with the scale"


def test_a_scale_for_each_filter(weights):
    figure = visualize.filters(weights, shared_scale=False)
    for image, filter_ in zip(pictures(figure), weights, strict=True):
        assert image.get_clim() == pytest.approx((-np.abs(filter_).max(), np.abs(filter_).max()))
    assert len(figure.axes) == 1


def test_several_channels_are_columns(rng):
    weights = rng.normal(size=(4, 3, 2, 2))
    figure = visualize.filters(weights)
    assert labels(figure) == [f"{index}, {channel}" for index in range(4) for channel in range(3)]
    np.testing.assert_array_equal(pictures(figure)[5].get_array(), weights[1, 2])
    assert len({left for left, _ in corners(figure)}) == 3
    chosen = visualize.filters(weights, channel=2, columns=2)
    np.testing.assert_array_equal(pictures(chosen)[1].get_array(), weights[1, 2])
    assert len(pictures(chosen)) == 4


def test_channels_last(rng):
    weights = rng.normal(size=(2, 5, 3, 4))  # KH, KW, C, F
    figure = visualize.filters(weights, data_format="channels_last")
    np.testing.assert_array_equal(pictures(figure)[4].get_array(), weights[:, :, 1, 1])
    assert len(pictures(figure)) == 12


def test_scale_and_margin_are_pixels(weights):
    figure = visualize.filters(weights, columns=5, scale=20, margin=7)
    left, right, bottom, top = pictures(figure)[0].get_extent()
    assert (right - left, bottom - top) == pytest.approx((0.8, 1.0))
    edges = corners(figure)
    assert edges[1][0] - edges[0][0] == pytest.approx(0.87)
    assert edges[5][1] - edges[0][1] == pytest.approx(1.07)
    assert labels(figure) == []


def test_figures_stay_of_a_size_that_fits_a_screen(rng):
    for shape in [(1, 1, 3, 3), (30, 1, 5, 5), (64, 1, 3, 3), (16, 16, 3, 3), (6, 3, 9, 2), (20, 3, 5, 5)]:
        width, height = visualize.filters(rng.normal(size=shape)).get_size_inches()
        assert 1 < width < 9
        assert 1 < height < 13


def test_weights_that_are_not_finite_are_grey(weights):
    weights[3, 0, 1, 2], weights[4, 0, 0, 0] = np.nan, np.inf
    figure = visualize.filters(weights)
    assert pictures(figure)[3].get_array().mask.sum() == 1
    assert pictures(figure)[4].get_array().mask[0, 0]
    limit = np.abs(weights[np.isfinite(weights)]).max()
    assert pictures(figure)[3].get_clim() == (-limit, limit)
    assert rendered(figure).std() > 0
    rendered(visualize.filters(np.full((2, 1, 3, 3), np.nan)))


def test_filters_that_are_all_the_same_can_be_drawn():
    for value in (0.0, 2.0):
        rendered(visualize.filters(np.full((2, 1, 3, 3), value)))


def test_positive_is_red_and_negative_is_blue():
    weights = np.array([1.0, -1.0]).reshape(2, 1, 1, 1)
    figure = visualize.filters(weights)
    red, blue = (image.to_rgba(image.get_array())[0, 0] for image in pictures(figure))
    assert red[0] > red[2]
    assert blue[0] < blue[2]


@pytest.mark.parametrize(
    ("w", "options", "error", "text"),
    [
        (np.ones((3, 3)), {}, ValueError, r"w must have 4 axes, none of them empty, got w.shape=\(3, 3\)"),
        (np.ones((0, 1, 3, 3)), {}, ValueError, r"w must have 4 axes, none of them empty, got w.shape=\(0, 1, 3, 3\)"),
        (np.ones((1, 1, 3, 3)), {"channel": 1}, ValueError, r"channel must be below 1, the number of channels, got 1"),
        (np.ones((1, 1, 3, 3)), {"channel": -1}, ValueError, r"channel must be at least 0, got -1"),
        (np.ones((1, 1, 3, 3)), {"columns": 0}, ValueError, r"columns must be at least 1, got 0"),
        (np.ones((1, 1, 3, 3)), {"scale": 0}, ValueError, r"scale must be a positive number, got 0"),
        (np.ones((1, 1, 3, 3)), {"margin": -1}, ValueError, r"margin must be at least 0 and finite, got -1"),
        (np.ones((1, 1, 3, 3)), {"data_format": "nchw"}, ValueError, r"data_format must be"),
        (np.ones((1, 1, 3, 3), complex), {}, TypeError, r"w must hold real numbers, got dtype complex128"),
        ("weights", {}, TypeError, r"w must be an array"),
    ],
)
def test_what_filters_refuses(w, options, error, text):
    with pytest.raises(error, match=rf"^filters: {text}"):
        visualize.filters(w, **options)


# ----------------------------------------------------------------------------------------------------------------------
# feature_maps
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_feature_maps(rng, batched, data_format):
    maps = rng.normal(size=(3, 4, 6))
    given = maps if data_format == "channels_first" else maps.transpose(1, 2, 0)
    figure = visualize.feature_maps(given[None] if batched else given, data_format=data_format)
    for image, plane in zip(pictures(figure), maps, strict=True):
        np.testing.assert_array_equal(image.get_array(), plane)
        assert image.get_clim() == (-np.abs(maps).max(), np.abs(maps).max())
    assert labels(figure) == ["0", "1", "2"]


def test_maps_without_negative_values_have_another_scale(rng):
    maps = rng.uniform(1, 3, size=(3, 4, 6))
    figure = visualize.feature_maps(maps)
    assert {image.get_clim() for image in pictures(figure)} == {(maps.min(), maps.max())}
    assert pictures(figure)[0].get_cmap().name == "viridis"
    figure = visualize.feature_maps(maps, shared_scale=False)
    assert [image.get_clim() for image in pictures(figure)] == [(plane.min(), plane.max()) for plane in maps]


@pytest.mark.parametrize("shape", [(8, 9), (1, 8, 9), (8, 9, 1)])
def test_the_image_comes_first_on_a_scale_of_its_own(rng, shape):
    image, maps = rng.uniform(0, 255, size=shape), rng.normal(size=(2, 4, 5))
    figure = visualize.feature_maps(maps, image=image)
    np.testing.assert_array_equal(pictures(figure)[0].get_array(), image.reshape(8, 9))
    assert pictures(figure)[0].get_clim() == (image.min(), image.max())
    assert pictures(figure)[1].get_clim() == (-np.abs(maps).max(), np.abs(maps).max())
    assert labels(figure) == ["image", "0", "1"]


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_an_image_of_three_channels_is_drawn_in_its_colours(rng, data_format):
    image, maps = rng.integers(0, 256, size=(8, 3, 3)), rng.normal(size=(4, 5, 5))  # H, W, C, as wide as it has channels
    given = image if data_format == "channels_last" else image.transpose(2, 0, 1)
    figure = visualize.feature_maps(maps, image=given, data_format=data_format)
    np.testing.assert_allclose(pictures(figure)[0].get_array(), image / 255, rtol=1e-12)
    if data_format == "channels_first":
        np.testing.assert_allclose(
            pictures(visualize.feature_maps(maps, image=rng.uniform(size=(9, 7, 3))))[0].get_array().shape, (9, 7, 3)
        )


@pytest.mark.parametrize(
    ("maps", "image", "text"),
    [
        (np.ones((2, 3, 4, 4)), None, r"maps must be those of one image, got 2 \(maps.shape=\(2, 3, 4, 4\)\)"),
        (np.ones(3), None, r"maps must have 3 or 4 axes, none of them empty"),
        (np.ones((3, 4, 4)), np.ones((2, 4, 4)), r"image must have one channel or three, got image.shape=\(2, 4, 4\)"),
        (np.ones((3, 4, 4)), np.ones(4), r"image must have 2 or 3 axes"),
    ],
)
def test_what_feature_maps_refuses(maps, image, text):
    with pytest.raises(ValueError, match=rf"^feature_maps: {text}"):
        visualize.feature_maps(maps, image=image)


# ----------------------------------------------------------------------------------------------------------------------
# training_curves
# ----------------------------------------------------------------------------------------------------------------------

HISTORY = {
    "epoch": [1, 2, 3],
    "loss": [1.5, 0.5, 0.25],
    "train_accuracy": [0.5, 0.8, 0.9],
    "test_loss": [1.4, 0.6, 0.3],
    "test_accuracy": [0.55, 0.75, 0.85],
    "seconds": [1.0, 1.0, 1.0],
}


def curves(axes):
    return {line.get_label().split()[0]: line.get_xydata().tolist() for line in axes.get_lines()}


def test_training_curves():
    figure = visualize.training_curves(HISTORY, title="A run")
    loss, accuracy = figure.axes
    assert figure.get_suptitle() == "A run"
    assert curves(loss) == {"training": [[1, 1.5], [2, 0.5], [3, 0.25]], "test": [[1, 1.4], [2, 0.6], [3, 0.3]]}
    assert curves(accuracy) == {"training": [[1, 0.5], [2, 0.8], [3, 0.9]], "test": [[1, 0.55], [2, 0.75], [3, 0.85]]}
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch", "epoch"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["training  90.0%", "test  85.0%"]
    assert loss.get_ylim()[0] == 0


def test_a_training_without_a_test_set():
    history = {**HISTORY, "test_loss": [None] * 3, "test_accuracy": [None] * 3}
    short = {name: HISTORY[name] for name in ("epoch", "loss", "train_accuracy")}
    for figure in (visualize.training_curves(history), visualize.training_curves(short)):
        assert [list(curves(axes)) for axes in figure.axes] == [["training"], ["training"]]


def test_points_that_are_not_finite_are_left_out():
    figure = visualize.training_curves({**HISTORY, "loss": [1.5, float("nan"), 0.25], "test_loss": [None, 0.6, float("inf")]})
    assert curves(figure.axes[0]) == {"training": [[1, 1.5], [3, 0.25]], "test": [[2, 0.6]]}


@pytest.mark.parametrize("epochs", [1, 2, 1000])
def test_trainings_of_any_length_can_be_drawn(epochs):
    history = {"epoch": range(1, epochs + 1), "loss": [0.5] * epochs, "train_accuracy": [0.9] * epochs}
    assert rendered(visualize.training_curves(history)).std() > 0


@pytest.mark.parametrize(
    ("history", "text"),
    [
        (
            {"epoch": [1], "loss": [1.0], "test_loss": [1.0]},
            r"history lacks 'train_accuracy'; it has \['epoch', 'loss', 'test_loss'\]",
        ),
        ({**HISTORY, "loss": [1.0]}, r"the lists of history must have one length, got \{.*'loss': 1"),
        ({name: [] for name in HISTORY}, r"history has no epoch yet"),
    ],
)
def test_what_training_curves_refuses(history, text):
    with pytest.raises(ValueError, match=rf"^training_curves: {text}"):
        visualize.training_curves(history)


FITTED = {
    "accuracy": [0.5, 0.8, 0.9],
    "loss": [1.5, 0.5, 0.25],
    "val_accuracy": [0.55, 0.75, 0.85],
    "val_loss": [1.4, 0.6, 0.3],
    "learning_rate": [0.1, 0.1, 0.01],
}


def history_of(rows, first=0):
    history = History()
    for epoch, row in enumerate(rows, first):
        history.on_epoch_end(epoch, row)
    return history


@pytest.mark.parametrize("kind", ["dictionary", "History", "with epoch"])
def test_curves_of_a_model(kind):
    rows = [{name: column[index] for name, column in FITTED.items()} for index in range(3)]
    history = {"dictionary": FITTED, "History": history_of(rows), "with epoch": {**FITTED, "epoch": [1, 2, 3]}}[kind]
    figure = visualize.training_curves(history)
    loss, accuracy = figure.axes
    assert curves(loss) == {"training": [[1, 1.5], [2, 0.5], [3, 0.25]], "validation": [[1, 1.4], [2, 0.6], [3, 0.3]]}
    assert curves(accuracy) == {"training": [[1, 0.5], [2, 0.8], [3, 0.9]], "validation": [[1, 0.55], [2, 0.75], [3, 0.85]]}
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy"]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training  0.250", "validation  0.300"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["training  90.0%", "validation  85.0%"]


def test_a_history_knows_which_epochs_were_validated_and_where_it_began():
    rows = [{"loss": 3.0}, {"loss": 2.0, "val_loss": 2.5}, {"loss": 1.0}]
    figure = visualize.training_curves(history_of(rows, first=4))
    assert curves(figure.axes[0]) == {"training": [[5, 3], [6, 2], [7, 1]], "validation": [[6, 2.5]]}
    with pytest.raises(ValueError, match=r"the lists of history must have one length, got \{'loss': 3, 'val_loss': 1\}"):
        visualize.training_curves(history_of(rows).history)


@pytest.mark.parametrize(
    ("names", "second"),
    [
        (["loss", "learning_rate"], None),
        (["loss", "mae", "mse"], "mae"),
        (["loss", "mae", "acc"], "acc"),
        (["auc", "loss", "sparse_categorical_accuracy"], "sparse_categorical_accuracy"),
        (["top_k_categorical_accuracy", "accuracy", "loss"], "accuracy"),
    ],
)
def test_the_accuracy_is_drawn_or_else_the_first_metric(names, second):
    figure = visualize.training_curves({name: [0.5, 0.25] for name in names})
    assert [axes.get_title(loc="left") for axes in figure.axes] == (["loss"] if second is None else ["loss", second])
    assert figure.get_size_inches()[0] == 4 * len(figure.axes)


def test_losses_of_any_size_can_be_drawn():
    for values in ([1e-7, 1e-9], [-3.0, -5.0], [3.0, -5.0], [1e12, 1e11], [float("nan")] * 2, [0.0, 0.0]):
        figure = visualize.training_curves({"loss": values})
        (line,) = figure.axes[0].get_lines() or [None]
        if line is not None:
            bottom, top = figure.axes[0].get_ylim()
            assert bottom <= min(values) <= max(values) <= top
        rendered(figure)
    assert "1e-09" in visualize.training_curves({"loss": [1e-7, 1e-9]}).axes[0].get_legend().get_texts()[0].get_text()


@pytest.mark.parametrize(
    ("history", "error", "text"),
    [
        ({"accuracy": [0.5]}, ValueError, r"history lacks 'loss'; it has \['accuracy'\]"),
        ({"loss": []}, ValueError, "history has no epoch yet"),
        (History(), ValueError, "history has no epoch yet"),
        (
            {"loss": [1.0], "epoch": [1, 2]},
            ValueError,
            r"the lists of history must have one length, got \{'epoch': 2, 'loss': 1\}",
        ),
        ([1.0], TypeError, "history must be what a training returns, got list"),
    ],
)
def test_what_training_curves_of_a_model_refuses(history, error, text):
    with pytest.raises(error, match=rf"^training_curves: {text}"):
        visualize.training_curves(history)


# ----------------------------------------------------------------------------------------------------------------------
# images
# ----------------------------------------------------------------------------------------------------------------------


def test_images_with_their_classes():
    x = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    figure = visualize.images(x, [1, 0, 1], [[0.1, 0.9], [0.2, 0.8], [0, 1]], classes=["cat", "dog"], columns=2, title="Pets")
    assert figure.texts[0].get_text() == "Pets: 2 of 3 right"
    assert labels(figure) == ["dog", "dog\nis cat", "dog"]
    for image, picture in zip(pictures(figure), x, strict=True):
        np.testing.assert_allclose(image.get_array(), picture / 255, rtol=1e-12)
        assert image.get_clim() == (0, 1)
    assert len({left for left, _ in corners(figure)}) == 2
    colors = [text.get_color() for text in figure.axes[0].texts]
    assert colors == [TEXT_COLOR, MARK_COLOR, TEXT_COLOR]
    assert [len(frames.get_paths()) for frames in figure.axes[0].collections] == [2, 1]
    rendered(figure)


def test_labels_stand_on_one_line_whatever_hangs_below_it():
    figure = visualize.images(np.ones((4, 4, 4)), [0, 1, 2, 0], [0, 1, 2, 1], classes=["EE", "E/", "Eg"])
    assert labels(figure) == ["EE", "E/", "Eg", "E/\nis EE"]
    dark = rendered(figure, dpi=400).min(axis=2) < 128
    feet = []
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        top, bottom = len(dark) - int(box.y1), len(dark) - int(box.y0)
        stem = slice(int(box.x0), int(box.x0) + 10)  # of the first letter of the last line, an E or an i
        feet.append(top + np.flatnonzero(dark[top:bottom, stem].any(axis=1))[-1])
    assert max(feet) - min(feet) <= 1


def test_class_names_are_no_formulas():
    figure = visualize.confusion_matrix([0, 1], [0, 1], classes=["$x_$", r"$\\"])
    rendered(figure)
    rendered(visualize.images(np.zeros((2, 3, 3)), [0, 1], classes=["$x_$", r"$\\"]))


def test_images_without_classes():
    x = np.zeros((3, 4, 5))
    assert labels(visualize.images(x)) == []
    assert labels(visualize.images(x, labels=[2, 0, 1])) == ["2", "0", "1"]
    assert labels(visualize.images(x, predictions=np.eye(3))) == ["0", "1", "2"]
    assert visualize.images(x, labels=[2, 0, 1]).texts[0].get_text() == "Images"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("told", [False, True])
def test_images_of_either_order(rng, channels, data_format, told):
    x = rng.uniform(size=(2, 5, 6, channels))
    given = x if data_format == "channels_last" else x.transpose(0, 3, 1, 2)
    figure = visualize.images(given, data_format=data_format if told else None)
    for image, picture in zip(pictures(figure), x, strict=True):
        np.testing.assert_array_equal(image.get_array(), picture if channels == 3 else picture[..., 0])


def test_images_of_any_scale_and_what_is_not_finite():
    x = np.array([-2.0, 0.0, np.nan, 2.0]).reshape(1, 2, 2)
    (image,) = pictures(visualize.images(x))
    np.testing.assert_array_equal(image.get_array().filled(9), [[0, 0.5], [9, 1]])
    rendered(visualize.images(np.full((2, 4, 4, 3), np.nan)))


@pytest.mark.parametrize(
    ("x", "options", "text"),
    [
        (np.ones((2, 3)), {}, "x must have 3 or 4 axes"),
        (np.ones((2, 4, 4, 2)), {}, r"x must have one channel or three, got x.shape=\(2, 4, 4, 2\)"),
        (np.ones((2, 3, 4, 3)), {}, r"x.shape=\(2, 3, 4, 3\) could have its channels first or last; pass data_format"),
        (np.ones((2, 4, 4, 3)), {"data_format": "channels_first"}, "x must have one channel or three"),
        (np.ones((2, 4, 4)), {"labels": [1]}, "there are 2 images but 1 labels"),
        (np.ones((2, 4, 4)), {"labels": [1, 2], "classes": ["a", "b"]}, "there are 2 classes, got class number 2"),
        (
            np.ones((2, 4, 4)),
            {"predictions": [0.2, 0.7]},
            "predictions must be whole numbers from 0 on, got 0.2 at sample 0; of a",
        ),
        (np.ones((2, 4, 4)), {"columns": 0}, "columns must be at least 1"),
    ],
)
def test_what_images_refuses(x, options, text):
    with pytest.raises(ValueError, match=rf"^images: {text}"):
        visualize.images(x, **options)


# ----------------------------------------------------------------------------------------------------------------------
# Confusion
# ----------------------------------------------------------------------------------------------------------------------


def test_confusion_counts(rng):
    true, taken = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    expected = [[sum((true == row) & (taken == column)) for column in range(4)] for row in range(4)]
    scores = rng.uniform(size=(200, 4))
    scores[np.arange(200), taken] += 1
    for labels_, predictions in [(true, taken), (np.eye(4)[true], scores), (true[:, None], taken[:, None].astype(float))]:
        counts = visualize.confusion_counts(labels_, predictions)
        assert counts.dtype == np.int64
        np.testing.assert_array_equal(counts, expected)
    wider = visualize.confusion_counts(true, taken, classes=6)
    assert wider.shape == (6, 6)
    np.testing.assert_array_equal(wider[:4, :4], expected)
    assert wider.sum() == 200
    assert visualize.confusion_counts([0], [[0.9, 0.05, 0.05]]).shape == (3, 3)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (([0, 1], [0]), "there are 2 labels but 1 predictions"),
        (([0, 3], [0, 1], 3), "there are 3 classes, but class number 3 among labels and predictions"),
        (([0, 1], np.ones((2, 4)), 3), "there are 3 classes, but 4 columns among"),
        (([0, -1], [0, 1]), "labels must be whole numbers from 0 on, got -1 at sample 1$"),
        (([0, 1], [0.5, 1]), "predictions must be whole numbers from 0 on, got 0.5 at sample 0; of a single score"),
        (([0, 1], [[0.5, np.nan]] * 2), "predictions hold NaN"),
        (([], []), r"labels must be class numbers, \(N,\), or rows of scores, \(N, classes\), got shape \(0,\)"),
        (([0], [[[1]]]), r"predictions must be class numbers.* got shape \(1, 1, 1\)"),
        (([0], [0], 0), "classes must be at least 1, got 0"),
    ],
)
def test_what_confusion_counts_refuses(given, text):
    with pytest.raises(ValueError, match=f"^confusion_counts: {text}"):
        visualize.confusion_counts(*given)


def cells(figure, size):
    return np.array(labels(figure)).reshape(size, size).tolist()


def test_confusion_matrix():
    figure = visualize.confusion_matrix([0, 0, 0, 1, 2], [0, 0, 1, 1, 1], classes=["cat", "dog", "a fish"], title="Pets")
    assert cells(figure, 3) == [["2", "1", "0"], ["0", "1", "0"], ["0", "1", "0"]]
    assert [text.get_text() for text in figure.texts] == ["Pets", "accuracy 60.0%, 3 of 5", "true", "predicted"]
    axes = figure.axes[0]
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == ["cat", "dog", "a fish"]
    np.testing.assert_allclose(pictures(figure)[0].get_array(), [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 1, 0]], rtol=1e-12)
    assert axes.get_ylim() == (2.5, -0.5), "the first class is at the top"


def test_confusion_matrix_in_per_cent():
    figure = visualize.confusion_matrix([0, 0, 0, 1], [0, 0, 1, 1], classes=3, normalize=True)
    assert cells(figure, 3) == [["66.7", "33.3", "0.0"], ["0.0", "100.0", "0.0"], ["0.0", "0.0", "0.0"]]
    assert figure.texts[1].get_text() == "accuracy 75.0%, 3 of 4; per cent of the row"


def inside_and_apart(figure, texts):
    """Whether texts lie within the figure, and none over another."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    width, height = figure.bbox.size
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    flat = np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes])
    apart = (flat[:, None, 2] <= flat[None, :, 0]) | (flat[:, None, 3] <= flat[None, :, 1])
    return bool((apart | apart.T | np.eye(len(flat), dtype=bool)).all())


@pytest.mark.parametrize("size", [2, 10, 30])
@pytest.mark.parametrize("name", ["", "a class of things "])
def test_matrices_of_2_to_30_classes_can_be_read(rng, size, name):
    true = rng.integers(0, size, 60_000)
    taken = np.where(rng.random(60_000) < 0.9, true, rng.integers(0, size, 60_000))
    figure = visualize.confusion_matrix(true, taken, classes=[f"{name}{number}" for number in range(size)])
    axes = figure.axes[0]
    assert len(axes.texts) == size**2
    assert min(text.get_fontsize() for text in [*axes.texts, *axes.get_xticklabels()]) >= 5
    straight = [*figure.texts, *axes.texts, *axes.get_yticklabels()]
    if not name:
        straight += axes.get_xticklabels()
    assert inside_and_apart(figure, straight)
    # Texts that lie aslant are apart though the boxes around them are not.
    inside_and_apart(figure, axes.get_xticklabels())
    assert max(figure.get_size_inches()) < 14


def test_a_matrix_of_many_classes_has_a_scale_instead_of_numbers(rng):
    true = rng.integers(0, 150, 1000)
    figure = visualize.confusion_matrix(true, true)
    assert labels(figure) == []
    assert len(figure.axes) == 2
    rendered(figure)


# ----------------------------------------------------------------------------------------------------------------------
# Diagrams
# ----------------------------------------------------------------------------------------------------------------------


def test_a_chain_is_straight():
    places, passing = layered(4, [(0, 1), (1, 2), (2, 3)], 2.0, 0.5)
    assert places == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert passing == [[], [], []]


def test_what_skips_layers_runs_beside_them():
    edges = [(0, 1), (1, 2), (2, 3), (0, 3), (3, 4)]
    places, passing = layered(5, edges, 2.0, 0.5)
    assert [rank for rank, _ in places] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([x for _, x in places], 0, atol=1e-3)
    assert [len(line) for line in passing] == [0, 0, 0, 2, 0]
    assert [rank for rank, _ in passing[3]] == [1, 2]
    np.testing.assert_allclose([x for _, x in passing[3]], 1.5, atol=1e-3)


def test_a_shorter_branch_makes_room_for_the_longer():
    #  0 -> 1 -> 2 -> 4,  0 -> 3 -> 4
    places, passing = layered(5, [(0, 1), (1, 2), (0, 3), (2, 4), (3, 4)], 2.0, 0.5)
    np.testing.assert_allclose([places[node][1] for node in (0, 1, 2, 4)], 0, atol=1e-3)
    assert places[3] == (1, pytest.approx(2.5, abs=1e-3))
    assert len(passing[4]) == 1


def test_branches_of_one_length_lie_around_the_middle():
    edges = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)]
    places, _ = layered(5, edges, 2.0, 0.5)
    np.testing.assert_allclose([x for _, x in places], [0, -2.5, 0, 2.5, 0], atol=1e-6)


def test_crossings_are_avoided():
    places, _ = layered(6, [(0, 1), (0, 2), (1, 4), (2, 3), (3, 5), (4, 5)], 2.0, 0.5)
    assert (places[1][1] < places[2][1]) == (places[4][1] < places[3][1])


def test_an_input_that_is_used_late_stands_right_above():
    places, _ = layered(5, [(0, 2), (2, 3), (3, 4), (1, 4)], 2.0, 0.5)
    assert [rank for rank, _ in places] == [0, 2, 1, 2, 3]
    assert abs(places[1][1] - places[3][1]) >= 2.5 - 1e-6


def test_nodes_never_lie_on_each_other(rng):
    for _ in range(30):
        count = int(rng.integers(2, 25))
        edges = [(int(rng.integers(0, end)), end) for end in range(1, count)]
        edges += [(int(start), int(end)) for start, end in rng.integers(0, count, (count, 2)) if start < end]
        edges = list(dict.fromkeys(edges))
        places, passing = layered(count, edges, 2.0, 0.5)
        assert all(places[start][0] < places[end][0] for start, end in edges)
        for rank in range(count):
            row = sorted(
                [(x, 2.0) for r, x in places if r == rank] + [(x, 0.0) for line in passing for r, x in line if r == rank]
            )
            for (left, left_width), (right, right_width) in itertools.pairwise(row):
                assert right - left >= 0.5 + (left_width + right_width) / 2 - 1e-6


class Node(NamedTuple):
    name: str
    kind: str
    output_shape: tuple
    parameters: int


class Graph:
    """What a diagram asks of a model."""

    name, dtype, compute_dtype_name, layers_within = "residual", None, "float32", ()

    def __init__(self, nodes, edges):
        self.graph = lambda: (nodes, edges)
        self.count_params = lambda: sum(node.parameters for node in nodes)


RESIDUAL = Graph(
    [
        Node("input", "Input", (None, 8, 8, 4), 0),
        Node("conv2d", "Conv2D", (None, 8, 8, 4), 1480),
        Node("scale_$2$", "Scale", (None, 8, 8, 4), 1),
        Node("add", "Add", (None, 8, 8, 4), 0),
    ],
    [(0, 1), (1, 2), (2, 3), (0, 3), (0, 3)],
)


def test_model_diagram():
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    figure = visualize.model_diagram(RESIDUAL)
    assert figure.texts[0].get_text() == "residual: 1,481 parameters"
    assert labels(figure) == [
        *("input", "(None, 8, 8, 4)"),
        *("conv2d", "Conv2D", "(None, 8, 8, 4)   1,480 parameters"),
        *("scale_$2$", "Scale", "(None, 8, 8, 4)   1 parameter"),
        *("add", "Add", "(None, 8, 8, 4)"),
    ]
    axes = figure.axes[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert (len(boxes), len(arrows)) == (4, 4)
    assert inside_and_apart(figure, axes.texts + figure.texts)
    assert not any(text.get_parse_math() for text in axes.texts), "a dollar sign begins no formula"
    tops = [box.get_y() for box in boxes]
    assert tops == sorted(tops)
    colours = [box.get_facecolor() for box in boxes]
    assert colours[0] == colours[3] != colours[1] == colours[2]


def test_what_a_diagram_tells_can_be_chosen():
    assert "1,480 parameters" in labels(visualize.model_diagram(RESIDUAL, show_shapes=False))
    assert "(None, 8, 8, 4)   float32" in labels(visualize.model_diagram(RESIDUAL, show_dtype=True))
    assert visualize.model_diagram(RESIDUAL, title="Mine").texts[0].get_text() == "Mine"
    assert not visualize.model_diagram(RESIDUAL, title="").texts


def test_texts_lie_within_their_boxes():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.patches import FancyBboxPatch

    figure = visualize.model_diagram(
        Graph([Node("a_name_that_is_long_" * 3, "AClassThatIsLong", (None, 1), 0), Node("b", "B", (None,), 10**9)], [(0, 1)])
    )
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    axes = figure.axes[0]
    boxes = [patch.get_window_extent(renderer) for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    for text in axes.texts:
        extent = text.get_window_extent(renderer)
        assert any(
            box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1 for box in boxes
        ), text.get_text()


def test_a_diagram_of_very_many_layers_can_be_drawn(tmp_path):
    count = 600
    deep = Graph(
        [Node(f"relu_{index}", "ReLU", (None, 1), 0) for index in range(count)], [(i, i + 1) for i in range(count - 1)]
    )
    figure = visualize.model_diagram(deep)
    assert figure.get_size_inches()[1] * 150 < 2**16
    assert len({text.get_fontsize() for text in figure.axes[0].texts}) == 2


# ----------------------------------------------------------------------------------------------------------------------
# Saving and showing
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("PNG", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_save(weights, tmp_path, suffix, start):
    path = tmp_path / f"filters.{suffix}"
    visualize.save(visualize.filters(weights), path)
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_dpi_is_the_size_of_the_picture(weights, tmp_path):
    figure = visualize.filters(weights)
    visualize.save(figure, str(tmp_path / "filters.png"), dpi=50)
    height, width = matplotlib.image.imread(tmp_path / "filters.png").shape[:2]
    assert (width, height) == pytest.approx(figure.get_size_inches() * 50, abs=1)


@pytest.mark.parametrize("name", ["filters", "filters.doc", "filters.png.", ".png"])
def test_a_name_without_a_known_suffix_is_refused_before_anything_is_written(weights, tmp_path, name):
    with pytest.raises(ValueError, match=r"^save: the name of the file must end in one of .*\.pdf, .*\.png, .*got '"):
        visualize.save(visualize.filters(weights), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_the_old_one(weights, tmp_path, monkeypatch):
    path = tmp_path / "filters.png"
    path.write_bytes(b"old")
    figure = visualize.filters(weights)

    def write_a_part(file, **_):
        file.write_bytes(b"\x89PN")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(figure, "savefig", write_a_part)
    with pytest.raises(OSError, match="No space left"):
        visualize.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_imports_no_pyplot_and_importing_no_matplotlib(tmp_path):
    program = """
import sys
import numpy as np, xpconv as xc
from xpconv.scratch import apply_filter, visualize_filter
xc.visualize
assert not any(name.partition(".")[0] == "matplotlib" for name in sys.modules)
figure = xc.visualize.filters(np.ones((3, 1, 2, 2)))
xc.visualize.feature_maps(np.ones((3, 2, 2)), image=np.ones((4, 4)))
xc.visualize.training_curves({"epoch": [1], "loss": [1.0], "train_accuracy": [0.5]})
xc.visualize.confusion_matrix([0, 1], [1, 1])
xc.visualize.images(np.ones((3, 4, 4)))
xc.visualize.save(figure, sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path / "a.png")], check=True)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    import_module = builtins.__import__

    def without_matplotlib(name, *rest):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return import_module(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    for draw in (
        lambda: visualize.filters(np.ones((1, 1, 2, 2))),
        lambda: visualize.feature_maps(np.ones((1, 2, 2))),
        lambda: visualize.training_curves(HISTORY),
        lambda: visualize.confusion_matrix([0, 1], [1, 1]),
        lambda: visualize.images(np.ones((3, 4, 4))),
        lambda: visualize.model_diagram(RESIDUAL),
        lambda: check_suffix("save", "a.png"),
        lambda: visualize_filter.filter_show(np.ones((1, 1, 2, 2))),
    ):
        with pytest.raises(ImportError, match=r"pip install 'xpconv\[plot\]'"):
            draw()


@pytest.fixture
def shown(monkeypatch):
    """What pyplot was asked to show, as if it had a window."""
    import matplotlib.pyplot as plt

    figures = []
    monkeypatch.setattr(plt, "get_backend", lambda: "QtAgg")
    monkeypatch.setattr(plt, "show", lambda: figures.append(plt.gcf()))
    yield figures
    plt.close("all")


def test_show_hands_the_figure_to_pyplot(weights, shown):
    figure = visualize.filters(weights)
    visualize.show(figure)
    assert shown == [figure]


def test_where_there_is_no_window_nothing_is_shown(weights, shown, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "get_backend", lambda: "agg")
    visualize.show(visualize.filters(weights))
    assert shown == []
    assert plt.get_fignums() == []


# ----------------------------------------------------------------------------------------------------------------------
# The book's two functions
# ----------------------------------------------------------------------------------------------------------------------


def test_visualize_filter_draws_every_filter_and_shows_the_figure(shown):
    weights = xc.to_numpy(xc.SimpleConvNet(device="numpy").params["W1"])
    figure = visualize_filter.filter_show(weights)
    assert shown == [figure]
    assert len(pictures(figure)) == 30
    assert len({left for left, _ in corners(figure)}) == 8
    left, right, *_ = pictures(figure)[0].get_extent()
    assert right - left == pytest.approx(5 * 10 / 100)
    assert corners(figure)[1][0] - right == pytest.approx(3 / 100)
    wide = visualize_filter.filter_show(weights, nx=15, margin=1, scale=4)
    assert len({left for left, _ in corners(wide)}) == 15
    left, right, *_ = pictures(wide)[0].get_extent()
    assert right - left == pytest.approx(5 * 4 / 100)


def test_apply_filter_draws_the_first_filters(shown):
    weights = xc.to_numpy(xc.SimpleConvNet(device="numpy").params["W1"])
    figure = apply_filter.filter_show(weights)
    assert shown == [figure]
    assert len(pictures(figure)) == 16
    assert len({left for left, _ in corners(figure)}) == 4
    figure = apply_filter.filter_show(weights, 5, 100)
    assert len(pictures(figure)) == 30
    assert len({left for left, _ in corners(figure)}) == 5
    assert len(pictures(apply_filter.filter_show(weights, nx=3, show_num=7))) == 7


def test_of_several_channels_the_book_draws_the_first(rng, shown):
    weights = rng.normal(size=(3, 2, 4, 4))
    for module in (visualize_filter, apply_filter):
        figure = module.filter_show(weights)
        np.testing.assert_array_equal([image.get_array() for image in pictures(figure)], weights[:, 0])


def test_apply_filter_refuses_to_draw_nothing():
    with pytest.raises(ValueError, match=r"^filter_show: show_num must be at least 1, got 0"):
        apply_filter.filter_show(np.ones((3, 1, 4, 4)), show_num=0)


def test_diagrams_of_models(rng):
    class Residual(xc.models.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.conv = xc.layers.Conv2D(4, 3, padding="same", name="conv")
            self.add = xc.layers.Add(name="sum")

        def call(self, x):
            return self.add([x, self.conv(x)])

    model = Residual()
    model.build((None, 8, 8, 4))
    figure = visualize.model_diagram(model)
    assert figure.texts[0].get_text() == "mine: 148 parameters"
    assert labels(figure) == [
        *("input", "(None, 8, 8, 4)"),
        *("conv", "Conv2D", "(None, 8, 8, 4)   148 parameters"),
        *("sum", "Add", "(None, 8, 8, 4)"),
    ]
    assert len(figure.axes[0].patches) == 3 + 3
    double = xc.models.Sequential([xc.layers.Flatten(), xc.layers.Dense(2, name="double", dtype="float64")])
    double.build((None, 3))
    assert "(None, 2)   float64   8 parameters" in labels(visualize.model_diagram(double, show_dtype=True))
    with pytest.raises(ValueError, match="built"):
        visualize.model_diagram(Residual())
