"""What the from-scratch book's own code does wrong, one number a bug: here it is done right.

Each test fails on the book's code. Where the two editions differ, "ja" is the Japanese original and "ko" the Korean one.
"""

import os
import pickle
import re
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import reference

import xpconv as xc
from xpconv.errors import ParameterFileError
from xpconv.scratch import functions
from xpconv.scratch.deep_convnet import DeepConvNet
from xpconv.scratch.gradient import numerical_gradient
from xpconv.scratch.layers import Affine, BatchNormalization, Convolution, Dropout, Pooling, Relu, SoftmaxWithLoss
from xpconv.scratch.mnist import load_mnist
from xpconv.scratch.multi_layer_net_extend import MultiLayerNetExtend
from xpconv.scratch.optimizer import Nesterov
from xpconv.scratch.simple_convnet import SimpleConvNet
from xpconv.scratch.trainer import Trainer
from xpconv.scratch.two_layer_net import TwoLayerNet
from xpconv.scratch.util import conv_output_size, shuffle_dataset, smooth_curve

# ----------------------------------------------------------------------------------------------------------------------
# 1  The size of what Pooling gives leaves out the padding, and the padding is zeros that win over negative values.
# ----------------------------------------------------------------------------------------------------------------------


def test_bug_01_pooling_size_counts_the_padding():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(Pooling(2, 2, stride=2, pad=1).forward(x), [[[[0, 2, 3], [8, 10, 11], [12, 14, 15]]]])


def test_bug_01_padding_wins_no_maximum():
    pool = Pooling(3, 3, stride=1, pad=1)
    np.testing.assert_array_equal(pool.forward(np.full((1, 1, 3, 3), -1.0)), np.full((1, 1, 3, 3), -1.0))
    assert pool.backward(np.ones((1, 1, 3, 3))).sum() == 9, "no gradient gets lost in the padding"


# ----------------------------------------------------------------------------------------------------------------------
# 2  float32 comes out as float64.
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bug_02_the_dtype_is_kept(dtype):
    x = np.ones((2, 1, 4, 4), dtype)
    convolution, pool = Convolution(np.ones((3, 1, 3, 3), dtype), np.zeros(3, dtype), pad=1), Pooling(2, 2)
    y = convolution.forward(x)
    pooled = pool.forward(y)
    dy = pool.backward(np.ones_like(pooled))
    dx = convolution.backward(dy)
    for array in (y, pooled, dy, dx, convolution.dW, convolution.db):
        assert array.dtype == dtype


# ----------------------------------------------------------------------------------------------------------------------
# 3  Convolution builds im2col's matrix of the whole batch, in float64, and keeps it until backward.
# ----------------------------------------------------------------------------------------------------------------------


def test_bug_03_no_matrix_of_columns_is_built_or_kept():
    x = np.ones((16, 16, 64, 64), np.float32)  # 4 MiB; the matrix takes 16 * 64 * 64 * 16 * 9 * 8 bytes, 72 MiB
    convolution = Convolution(np.ones((16, 16, 3, 3), np.float32), np.zeros(16, np.float32), pad=1)
    convolution.forward(x)  # buffers of the threads, which stay for the next call
    tracemalloc.start()
    y = convolution.forward(x)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < y.nbytes + 2**20
    assert peak < y.nbytes + 3 * x.nbytes


# ----------------------------------------------------------------------------------------------------------------------
# 4  No dilation and no groups; one stride and one padding for both axes; errors that speak of other arrays.
# ----------------------------------------------------------------------------------------------------------------------


def test_bug_04_stride_and_padding_of_each_axis(rng):
    x, w = rng.normal(size=(2, 3, 7, 9)), rng.normal(size=(4, 3, 3, 2))
    convolution = Convolution(w, np.zeros(4), stride=(2, 1), pad=(0, 3))
    expected = reference.conv2d(x, w, None, stride=(2, 1), padding=(0, 3))
    np.testing.assert_allclose(convolution.forward(x), expected, rtol=1e-12, atol=1e-12)
    pooled = Pooling(3, 2, stride=(2, 3), pad=(1, 0)).forward(x)
    np.testing.assert_array_equal(pooled, reference.max_pool2d(x, (3, 2), stride=(2, 3), padding=(1, 0))[0])


def test_bug_04_dilation_and_groups(rng):
    x, w = rng.normal(size=(2, 4, 7, 9)), rng.normal(size=(6, 2, 3, 2))
    expected = reference.conv2d(x, w, None, dilation=2, groups=2)
    np.testing.assert_allclose(xc.conv2d(x, w, dilation=2, groups=2), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("x_shape", "text"),
    [
        ((1, 1, 5, 5), r"x has 1 channels but w expects 3 per group \(x.shape=\(1, 1, 5, 5\), w.shape=\(4, 3, 3, 3\)"),
        ((1, 3, 2, 5), r"the window covers \(3, 3\) but the padded image is only \(2, 5\)"),
    ],
)
def test_bug_04_errors_name_what_does_not_fit(x_shape, text):
    with pytest.raises(ValueError, match=text):
        Convolution(np.ones((4, 3, 3, 3)), np.zeros(4)).forward(np.ones(x_shape))


# ----------------------------------------------------------------------------------------------------------------------
# 5  Relu.backward writes into the gradient that it is given.
# ----------------------------------------------------------------------------------------------------------------------


def test_bug_05_relu_leaves_the_gradient_of_its_caller_alone():
    relu, dout = Relu(), np.array([5.0, 6.0])
    relu.forward(np.array([-1.0, 1.0]))
    assert relu.backward(dout).tolist() == [0, 6]
    assert dout.tolist() == [5, 6]


# ----------------------------------------------------------------------------------------------------------------------
# 6  SoftmaxWithLoss ignores dout, and its loss ends at 16.1 where its gradient does not.
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [np.array([2, 0]), np.eye(3)[[2, 0]]])
def test_bug_06_softmax_with_loss_multiplies_with_dout(labels, rng):
    layer = SoftmaxWithLoss()
    layer.forward(rng.normal(size=(2, 3)), labels)
    once = layer.backward(1)
    assert np.abs(once).max() > 0.1
    np.testing.assert_allclose(layer.backward(-2.5), -2.5 * once, rtol=1e-14)


def test_bug_06_the_loss_has_no_upper_limit_and_agrees_with_its_gradient():
    layer, labels = SoftmaxWithLoss(), np.array([0, 1])
    scores = np.array([[-30.0, 70.0], [0.5, 0.2]])
    assert layer.forward(scores, labels) == pytest.approx((100 + np.log1p(np.exp(0.3))) / 2, rel=1e-14)
    gradient = layer.backward()
    np.testing.assert_allclose(numerical_gradient(lambda x: layer.forward(x, labels), scores), gradient, atol=1e-9)
    assert functions.softmax_loss(scores[:1], labels[:1]) == pytest.approx(100, rel=1e-14)


# ----------------------------------------------------------------------------------------------------------------------
# 7  A column of labels, (N, 1), is broadcast against the samples; with one class it is taken for one-hot.
# ----------------------------------------------------------------------------------------------------------------------


def test_bug_07_a_column_of_labels_means_what_a_row_means(rng):
    scores, labels = rng.normal(size=(3, 4)), np.array([3, 0, 2])
    row, column = SoftmaxWithLoss(), SoftmaxWithLoss()
    assert column.forward(scores, labels[:, None]) == row.forward(scores, labels)
    np.testing.assert_array_equal(column.backward(), row.backward())
    probabilities = functions.softmax(scores)
    expected = -np.log(probabilities[[0, 1, 2], labels]).mean()
    assert functions.cross_entropy_error(probabilities, labels[:, None]) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("labels", [np.zeros(3, int), np.zeros((3, 1), int)])
def test_bug_07_one_class(labels):
    layer = SoftmaxWithLoss()
    assert layer.forward(np.array([[1.0], [2.0], [3.0]]), labels) == 0
    np.testing.assert_array_equal(layer.backward(), np.zeros((3, 1)))
    assert functions.cross_entropy_error(np.ones((3, 1)), labels) == 0


# ----------------------------------------------------------------------------------------------------------------------
# 8  accuracy leaves out the last, smaller batch and divides by all samples.
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 50, 100, 150])
@pytest.mark.parametrize("network", [SimpleConvNet, DeepConvNet])
def test_bug_08_accuracy_counts_the_last_batch(network, samples, rng):
    net = network(input_dim=(1, 8, 8))
    x = rng.normal(size=(samples, 1, 8, 8))
    right = xc.to_numpy(net.predict(x)).argmax(axis=1)
    assert net.accuracy(x, right) == 1.0
    assert net.accuracy(x, (right + 1) % 10) == 0.0


# ----------------------------------------------------------------------------------------------------------------------
# 9  Trainer measures at the wrong steps, draws images again before all were seen, and knows no names of optimizers.
# ----------------------------------------------------------------------------------------------------------------------


class Recorder:
    """A network with the book's methods that learns nothing and remembers which images it was shown."""

    def __init__(self):
        self.params = {"W": np.zeros(1)}
        self.trained_on, self.trained_on_when_measured = [], []

    def loss(self, x, t):
        return 1.0

    def gradient(self, x, t):
        self.trained_on += np.ravel(x).astype(int).tolist()
        return {"W": np.zeros(1)}

    def predict(self, x):
        self.trained_on_when_measured.append(len(self.trained_on))
        return np.tile([1.0, 0.0], (len(x), 1))

    def accuracy(self, x, t):
        return float((self.predict(x).argmax(axis=1) == t).mean())


@pytest.mark.parametrize(("images", "batch"), [(50, 12), (100, 30), (40, 10), (7, 100)])
def test_bug_09_every_epoch_sees_every_image_once_and_is_measured_at_its_end(images, batch):
    net, x, t = Recorder(), np.arange(float(images)).reshape(-1, 1), np.arange(images) % 2
    trainer = Trainer(net, x, t, x[:4], t[:4], epochs=3, mini_batch_size=batch, verbose=False)
    trainer.train()
    seen = np.array(net.trained_on).reshape(3, images)
    for epoch in seen:
        assert sorted(epoch) == list(range(images))
    assert (seen[0] != seen[1]).any()
    assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == 3
    assert trainer.train_acc_list == [(t == 0).mean()] * 3
    assert trainer.test_acc_list == [0.5] * 3
    assert len(trainer.train_loss_list) == 3 * -(-images // batch)
    assert set(net.trained_on_when_measured) - {0} == {images, 2 * images, 3 * images}


def test_bug_09_an_unknown_optimizer_is_named_with_those_there_are():
    x, t = np.zeros((4, 1)), np.zeros(4, int)
    with pytest.raises(ValueError, match=r"sgd, momentum, nesterov, adagrad, rmsprop, adam.*'adamw'"):
        Trainer(Recorder(), x, t, x, t, optimizer="adamw")


# ----------------------------------------------------------------------------------------------------------------------
# 10  SimpleConvNet miscounts where the convolution gives an odd size, and takes square images alone.
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("input_dim", "conv_param", "pooled"),
    [
        ((1, 28, 28), {"filter_num": 2, "filter_size": 4, "pad": 0, "stride": 1}, 12 * 12),
        ((1, 28, 20), {"filter_num": 2, "filter_size": 5, "pad": 0, "stride": 1}, 12 * 8),
        ((3, 9, 16), {"filter_num": 2, "filter_size": 3, "pad": 1, "stride": 2}, 2 * 4),
    ],
)
def test_bug_10_simple_conv_net_of_any_image_and_filter(input_dim, conv_param, pooled, rng):
    net = SimpleConvNet(input_dim=input_dim, conv_param=conv_param)
    assert net.params["W2"].shape == (2 * pooled, 100)
    gradient = net.gradient(rng.normal(size=(3, *input_dim)), np.array([0, 1, 2]))
    assert {name: value.shape for name, value in gradient.items()} == {name: v.shape for name, v in net.params.items()}


def test_bug_10_the_docstring_speaks_of_this_class():
    assert "filter_num" in SimpleConvNet.__doc__
    assert "hidden_size_list" not in SimpleConvNet.__doc__


# ----------------------------------------------------------------------------------------------------------------------
# 11  Batch normalisation: statistics of single pixels, a variance that starts at 0, and caches that outlive an evaluation.
# ----------------------------------------------------------------------------------------------------------------------


def test_bug_11_images_are_normalised_by_channel(rng):
    x = rng.normal(3, 2, size=(4, 3, 5, 6))
    y = BatchNormalization(np.ones(3), np.zeros(3)).forward(x)
    expected = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / x.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_bug_11_evaluating_first_leaves_the_values_alone(rng):
    x = rng.normal(size=(4, 3))
    np.testing.assert_allclose(BatchNormalization(np.ones(3), np.zeros(3)).forward(x, train_flg=False), x, rtol=1e-5)


def test_bug_11_backward_belongs_to_the_last_forward(rng):
    layer = BatchNormalization(np.array([2.0, 3.0]), np.zeros(2), running_mean=np.zeros(2), running_var=np.array([4.0, 9.0]))
    layer.forward(rng.normal(size=(5, 2)), train_flg=True)
    layer.running_mean, layer.running_var = np.array([1.0, 2.0]), np.array([4.0, 9.0])
    x, dout = rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
    layer.forward(x, train_flg=False)
    np.testing.assert_allclose(layer.backward(dout), dout * [2 / 2, 3 / 3], rtol=1e-5)
    np.testing.assert_allclose(layer.dgamma, (dout * (x - [1, 2]) / [2, 3]).sum(axis=0), rtol=1e-5)


# ----------------------------------------------------------------------------------------------------------------------
# 12  Dropout does not scale in training but in evaluation.
# ----------------------------------------------------------------------------------------------------------------------


def test_bug_12_dropout_keeps_the_mean_in_training_and_does_nothing_otherwise():
    x = np.ones((100, 1000))
    layer = Dropout(0.2)
    y = layer.forward(x, train_flg=True)
    assert set(np.unique(y).round(12)) == {0, 1.25}
    assert y.mean() == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_array_equal(layer.forward(x, train_flg=False), x)


# ----------------------------------------------------------------------------------------------------------------------
# 13  numerical_gradient: nonsense for integers and float32, and a changed x where the function raises.
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [int, np.float32, np.float64])
def test_bug_13_numerical_gradient_in_any_dtype(dtype):
    x = np.array([3, 400], dtype)
    gradient = numerical_gradient(lambda x: (np.asarray(x, np.float64) ** 2).sum(), x)
    np.testing.assert_allclose(gradient, [6, 800], rtol=1e-3)
    np.testing.assert_array_equal(x, [3, 400])


def test_bug_13_x_is_put_back_where_the_function_raises():
    x = np.array([3.0, 4.0])
    with pytest.raises(ZeroDivisionError):
        numerical_gradient(lambda x: 1 / 0, x)
    np.testing.assert_array_equal(x, [3, 4])


# ----------------------------------------------------------------------------------------------------------------------
# 14  The small functions.
# ----------------------------------------------------------------------------------------------------------------------


def test_bug_14_relu_has_one_gradient_at_0():
    x, relu = np.array([-1.0, 0.0, 1.0]), Relu()
    relu.forward(x)
    assert functions.relu_grad(x).tolist() == relu.backward(np.ones(3)).tolist() == [0, 0, 1]


def test_bug_14_sigmoid_does_not_overflow():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert functions.sigmoid(np.array([-1000.0, 1000.0])).tolist() == [0, 1]


def test_bug_14_conv_output_size_is_an_integer():
    assert repr(conv_output_size(28, 5, stride=2, pad=1)) == "13"


def test_bug_14_shuffle_dataset_takes_images_without_channels():
    x, t = shuffle_dataset(np.arange(12).reshape(3, 2, 2), np.array([0, 1, 2]))
    np.testing.assert_array_equal(x[:, 0, 0] // 4, t)


@pytest.mark.parametrize("length", [1, 5, 10])
def test_bug_14_smooth_curve_keeps_the_length(length):
    assert smooth_curve(np.ones(length)).shape == (length,)


# ----------------------------------------------------------------------------------------------------------------------
# 15  Pickles for parameters and data, written into the source tree, unchecked; statistics that are never saved.
# ----------------------------------------------------------------------------------------------------------------------


def test_bug_15_parameters_are_saved_without_pickle_and_come_back(tmp_path, rng):
    net, other = SimpleConvNet(), SimpleConvNet()
    net.save_params(tmp_path / "params.pkl")
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads((tmp_path / "params.pkl").read_bytes())
    other.load_params(tmp_path / "params.pkl")
    x = rng.normal(size=(2, 1, 28, 28))
    np.testing.assert_array_equal(xc.to_numpy(other.predict(x)), xc.to_numpy(net.predict(x)))


def test_bug_15_the_books_pickle_is_read_and_nothing_in_it_is_run(tmp_path, rng):
    path = tmp_path / "params.pkl"
    params = {name: rng.normal(size=value.shape) for name, value in SimpleConvNet().params.items()}
    path.write_bytes(pickle.dumps(params))
    net = SimpleConvNet()
    net.load_params(path)
    np.testing.assert_allclose(xc.to_numpy(net.params["W3"]), params["W3"], rtol=1e-6)

    class Mine:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "broken_in"),)

    path.write_bytes(pickle.dumps({**params, "W1": Mine()}))
    with pytest.raises(ParameterFileError, match="mkdir"):
        net.load_params(path)
    assert not (tmp_path / "broken_in").exists()


@pytest.mark.parametrize("write", ["pickle", "safetensors"])
def test_bug_15_parameters_of_another_shape_are_refused(write, tmp_path):
    path = tmp_path / "params.pkl"
    other = SimpleConvNet(hidden_size=7)
    if write == "pickle":
        path.write_bytes(pickle.dumps({name: xc.to_numpy(value) for name, value in other.params.items()}))
    else:
        other.save_params(path)
    net = SimpleConvNet()
    before = xc.to_numpy(net.params["W1"]).copy()
    with pytest.raises(ParameterFileError, match=r"W2 has shape \(4320, 7\), expected \(4320, 100\)"):
        net.load_params(path)
    np.testing.assert_array_equal(xc.to_numpy(net.params["W1"]), before)


def test_bug_15_running_statistics_are_saved(tmp_path, rng):
    x, t = rng.normal(2, 3, size=(20, 6)), rng.integers(0, 3, 20)
    net, other = (MultiLayerNetExtend(6, [5], 3, use_batchnorm=True) for _ in range(2))
    net.gradient(x, t)
    net.save(tmp_path / "net.safetensors")
    other.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(xc.to_numpy(other.predict(x)), xc.to_numpy(net.predict(x)))


def test_bug_15_loading_mnist_writes_nothing_beside_the_source():
    source = Path(xc.__file__).parent

    def files():
        return sorted(path for path in source.rglob("*") if "__pycache__" not in path.parts)

    before = files()
    load_mnist(data="bundled")
    assert files() == before


# ----------------------------------------------------------------------------------------------------------------------
# 16  ko: RMSprop is called "rmsprpo", relu_grad and step_function raise, Nesterov updates its velocity first.
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "RMSprop", "ADAM"])
def test_bug_16_every_optimizer_has_its_name(name):
    x, t = np.zeros((4, 1)), np.zeros(4, int)
    trainer = Trainer(Recorder(), x, t, x, t, optimizer=name)
    assert type(trainer.optimizer).__name__.lower() == name.lower()


def test_bug_16_relu_grad_and_step_function_work():
    x = np.array([[-1.0, 2.0]])
    assert functions.relu_grad(x).tolist() == functions.step_function(x).tolist() == [[0, 1]]


def test_bug_16_nesterov_is_nesterovs():
    # Nesterov's method as it was published keeps a point and a velocity, and takes the gradient ahead of the point:
    #     v <- momentum * v - lr * f'(point + momentum * v),  point <- point + v
    # What the class holds as parameters is point + momentum * v (Bengio et al., arXiv:1212.0901, section 3.5).
    def slope(x):
        return x / 10

    point, velocity, momentum, lr = -7.0, 0.0, 0.9, 0.1
    params, optimizer = {"x": np.array([-7.0])}, Nesterov(lr=lr, momentum=momentum)
    for _ in range(5):
        velocity = momentum * velocity - lr * slope(point + momentum * velocity)
        point += velocity
        optimizer.update(params, {"x": slope(params["x"])})
        assert params["x"][0] == pytest.approx(point + momentum * velocity, rel=1e-12)


# ----------------------------------------------------------------------------------------------------------------------
# 17  Changed import paths, `import *`, data by the working directory; DeepConvNet of one size, with dropout on its scores.
# ----------------------------------------------------------------------------------------------------------------------


def test_bug_17_importing_changes_nothing_and_works_anywhere(tmp_path):
    program = """
import sys
before = list(sys.path)
import importlib, pkgutil
import xpconv.scratch
for module in pkgutil.iter_modules(xpconv.scratch.__path__):
    importlib.import_module(f"xpconv.scratch.{module.name}")
from xpconv.scratch.mnist import load_mnist
assert load_mnist(data="bundled")[0][0].shape == (5000, 784)
assert sys.path == before
"""
    root = str(Path(xc.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_bug_17_no_module_imports_everything_of_another():
    root = Path(xc.__file__).parent
    sources = [path for folder in (root, root.parent / "kernels") for path in folder.rglob("*.py")]
    assert len(sources) > 20
    assert [path for path in sources if re.search(r"^\s*from .* import \*", path.read_text("utf-8"), re.MULTILINE)] == []


@pytest.mark.parametrize("input_dim", [(1, 28, 28), (3, 32, 32), (1, 20, 40)])
def test_bug_17_deep_conv_net_of_any_image(input_dim, rng):
    net = DeepConvNet(input_dim=input_dim)
    assert set(net.gradient(rng.normal(size=(2, *input_dim)), np.array([0, 1]))) == set(net.params)


def test_bug_17_no_dropout_behind_the_last_layer(rng):
    net = DeepConvNet()
    layers = list(net.layers.values()) if isinstance(net.layers, dict) else net.layers
    assert isinstance(layers[-1], Affine)
    x = rng.normal(size=(4, 1, 28, 28))
    assert (xc.to_numpy(net.predict(x, train_flg=True)) != 0).all()


def test_every_bug_has_a_test():
    numbers = {name[9:11] for name in globals() if name.startswith("test_bug_")}
    assert numbers == {f"{number:02}" for number in range(1, 18)}


def test_a_network_learns_with_all_of_it(tmp_path):
    # The parts together, as the book's programs use them: a loader, a network, a trainer and a file.
    (x_train, t_train), (x_test, t_test) = load_mnist(data="bundled", one_hot_label=True)
    np.random.seed(0)
    net = TwoLayerNet(784, 30, 10)
    trainer = Trainer(net, x_train[:1000], t_train[:1000], x_test[:300], t_test[:300], 5, 50, "Adam", verbose=False)
    trainer.train()
    assert trainer.test_acc_list[-1] > 0.75
    net.save_params(tmp_path / "net.safetensors")
    other = TwoLayerNet(784, 30, 10)
    other.load_params(tmp_path / "net.safetensors")
    assert other.accuracy(x_test[:300], t_test[:300]) == trainer.test_acc_list[-1]
