"""The pictures: what is in them, and that drawing them touches nothing else."""

import builtins
import errno
import subprocess
import sys

import numpy as np
import pytest

import xpconv as xc
from xpconv import visualize
from xpconv.scratch import apply_filter, visualize_filter

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
        (np.ones((1, 1, 3, 3)), {"scale": 0}, ValueError, r"scale must be above 0 and finite, got 0"),
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


@pytest.mark.parametrize(
    ("maps", "image", "text"),
    [
        (np.ones((2, 3, 4, 4)), None, r"maps must be those of one image, got 2 \(maps.shape=\(2, 3, 4, 4\)\)"),
        (np.ones(3), None, r"maps must have 3 or 4 axes, none of them empty"),
        (np.ones((3, 4, 4)), np.ones((3, 4, 4)), r"image must have one channel, got image.shape=\(3, 4, 4\)"),
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
        ({"epoch": [1], "loss": [1.0]}, r"history lacks 'train_accuracy'; it has \['epoch', 'loss'\]"),
        ({**HISTORY, "loss": [1.0]}, r"the lists of history must have one length, got \{.*'loss': 1"),
        ({name: [] for name in HISTORY}, r"history has no epoch yet"),
    ],
)
def test_what_training_curves_refuses(history, text):
    with pytest.raises(ValueError, match=rf"^training_curves: {text}"):
        visualize.training_curves(history)


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
