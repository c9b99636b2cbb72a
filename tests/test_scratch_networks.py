"""The book's fully connected networks and its deep convolutional one.

What all networks share is tested on each of them here: gradients against central differences, files, labels, devices.
"""

import math
import pickle

import numpy as np
import pytest
import reference

import xpconv as xc
from xpconv.errors import ParameterFileError, TrainingError
from xpconv.files import load_parameters, save_parameters
from xpconv.scratch.layers import Relu
from xpconv.scratch.multi_layer_net import MultiLayerNet
from xpconv.scratch.multi_layer_net_extend import MultiLayerNetExtend
from xpconv.scratch.two_layer_net import TwoLayerNet

TINY_CONVOLUTIONS = {f"conv_param_{index}": {"filter_num": 2} for index in range(1, 7)}


def multi_layer_net(**options):
    return MultiLayerNet(6, [5, 4], 3, **options)


def multi_layer_net_extend(**options):
    return MultiLayerNetExtend(6, [5, 4], 3, use_batchnorm=True, use_dropout=True, dropout_ration=0.2, **options)


def two_layer_net(**options):
    return TwoLayerNet(6, 5, 3, weight_init_std=0.5, **options)


def deep_conv_net(**options):
    return xc.DeepConvNet((1, 9, 12), **TINY_CONVOLUTIONS, hidden_size=4, output_size=3, **options)


NETWORKS = [multi_layer_net, multi_layer_net_extend, two_layer_net, deep_conv_net]


def batch_of(net, samples=7):
    rng = np.random.default_rng(1)
    return rng.normal(size=(samples, *net.input_shape)), rng.integers(0, 3, samples)


def without_dropout(net):
    for name in net.layers:
        if name.startswith("Dropout"):
            net.layers[name].dropout_ratio = 0
    return net


@pytest.fixture(params=NETWORKS, ids=lambda make: make.__name__)
def make_net(request, device):
    """Each network, to be built on each device."""
    return lambda **options: request.param(device=device, **options)


# ----------------------------------------------------------------------------------------------------------------------
# What all networks share
# ----------------------------------------------------------------------------------------------------------------------


def assert_gradients_agree(net, x, t):
    expected, gradient = net.numerical_gradient(x, t), net.gradient(x, t)
    assert set(gradient) == set(net.params)
    for name in net.params:
        actual = xc.to_numpy(gradient[name])
        assert actual.shape == net.params[name].shape
        np.testing.assert_allclose(actual, xc.to_numpy(expected[name]), rtol=1e-4, atol=1e-7, err_msg=name)
    assert any(np.abs(xc.to_numpy(value)).max() > 1e-3 for value in gradient.values())


def test_gradient_against_central_differences(make_net):
    net = without_dropout(make_net(dtype=np.float64, seed=3))
    for index in range(1, len(net.params) // 2 + 1):
        # Off 0, where ReLU has no derivative: there a filter would lie that sees nothing but padding.
        if f"b{index}" in net.params:
            net.params[f"b{index}"] += 0.05 * index
    assert_gradients_agree(net, *batch_of(net))


def test_predict_loss_and_gradients_have_the_shapes_and_the_dtype_asked_for(make_net, dtype):
    net = make_net(dtype=dtype, seed=0)
    x, t = batch_of(net)
    scores = net.predict(x)
    assert scores.shape == (7, 3)
    assert scores.dtype == dtype
    loss, gradient = net.loss_and_gradient(x, t)
    assert isinstance(loss, float) or (net.device.asynchronous and loss.shape == ())
    for name, value in net.params.items():
        assert value.dtype == gradient[name].dtype == dtype
        assert value.shape == gradient[name].shape


def test_a_seed_gives_the_same_network_and_the_same_training_again(make_net):
    def trained(seed):
        net = make_net(seed=seed)
        x, t = batch_of(net)
        optimizer = xc.Adam(0.01)
        for _ in range(5):
            optimizer.update(net.params, net.gradient(x, t))
        return {name: xc.to_numpy(value) for name, value in net.params.items()}

    first, again, other = trained(1), trained(1), trained(2)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert (first["W1"] != other["W1"]).any()


def test_without_a_seed_numpys_generator_decides_as_in_the_book(make_net):
    np.random.seed(4)
    first = make_net().params
    np.random.seed(4)
    again, other = make_net().params, make_net().params
    np.testing.assert_array_equal(xc.to_numpy(first["W1"]), xc.to_numpy(again["W1"]))
    assert (xc.to_numpy(first["W1"]) != xc.to_numpy(other["W1"])).any()


@pytest.mark.parametrize("method", ["save", "save_params"])
def test_a_trained_network_comes_back_from_its_file(make_net, method, tmp_path):
    net = make_net(seed=1)
    x, t = batch_of(net)
    optimizer = xc.SGD(0.1)
    for _ in range(3):
        optimizer.update(net.params, net.gradient(x, t))
    path = tmp_path / "net.safetensors"
    getattr(net, method)(path)
    for loading in ("load", "load_params"):
        other = make_net(seed=2)
        assert (xc.to_numpy(other.predict(x)) != xc.to_numpy(net.predict(x))).any()
        getattr(other, loading)(path)
        np.testing.assert_array_equal(xc.to_numpy(other.predict(x)), xc.to_numpy(net.predict(x)))


def test_load_params_knows_a_file_of_save_params_whatever_the_length_of_its_header(make_net, tmp_path):
    # The first byte of a safetensors file is the low byte of that length, and may look like the first of a pickle.
    net, other, path = make_net(seed=1), make_net(seed=2), tmp_path / "net"
    first_bytes = set()
    for length in range(0, 256, 8):
        arrays = {name: xc.to_numpy(value) for name, value in {**net.params, **net.state_arrays()}.items()}
        save_parameters(path, arrays, {"note": "x" * length})
        first_bytes.add(path.read_bytes()[0])
        other.params["W1"][...] = 0
        other.load_params(path)
        np.testing.assert_array_equal(xc.to_numpy(other.params["W1"]), xc.to_numpy(net.params["W1"]))
    assert first_bytes == set(range(0, 256, 8))


def test_a_file_of_another_network_is_refused_and_changes_nothing(make_net, tmp_path):
    path = tmp_path / "other.safetensors"
    TwoLayerNet(6, 9, 3).save(path)
    net = make_net(seed=1)
    before = {name: xc.to_numpy(value).copy() for name, value in net.params.items()}
    with pytest.raises(ParameterFileError, match=r"other.safetensors does not fit this network:\n"):
        net.load(path)
    for name, value in before.items():
        np.testing.assert_array_equal(xc.to_numpy(net.params[name]), value)


def test_accuracy_counts_every_sample(make_net):
    net = make_net(seed=1)
    x, _ = batch_of(net, samples=23)
    right = xc.to_numpy(net.predict(x)).argmax(axis=1)
    wrong = right.copy()
    wrong[20:] = (wrong[20:] + 1) % 3
    for batch_size in (1, 7, 23, 100):
        assert net.accuracy(x, right, batch_size=batch_size) == 1.0
        assert net.accuracy(x, wrong, batch_size=batch_size) == 20 / 23
    assert net.accuracy(x, np.eye(3)[wrong]) == net.accuracy(x, wrong[:, None]) == 20 / 23


def test_arguments_are_not_changed(make_net):
    net = make_net(seed=1)
    x, t = batch_of(net)
    before = x.copy(), t.copy()
    x.flags.writeable = t.flags.writeable = False
    net.loss_and_gradient(x, t)
    net.accuracy(x, t)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(t, before[1])


@pytest.mark.parametrize("dtype", [np.float16, np.int64, complex])
def test_other_dtypes_are_refused(make_net, dtype):
    with pytest.raises(TypeError, match=r"dtype must be float32 or float64"):
        make_net(dtype=dtype)


# ----------------------------------------------------------------------------------------------------------------------
# MultiLayerNet
# ----------------------------------------------------------------------------------------------------------------------


def scores_by_hand(params, x, activation, layers):
    activate = {"relu": lambda a: np.maximum(a, 0), "sigmoid": lambda a: 1 / (1 + np.exp(-a))}[activation]
    for index in range(1, layers):
        x = activate(x @ params[f"W{index}"] + params[f"b{index}"])
    return x @ params[f"W{layers}"] + params[f"b{layers}"]


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("hidden", [[], [5], (5, 4, 3)])
def test_multi_layer_net_is_a_chain_of_affine_layers(activation, hidden, device):
    net = MultiLayerNet(6, hidden, 3, activation, dtype=np.float64, seed=0, device=device)
    net.params["b1"] += 0.5
    x, _ = batch_of(net)
    params = {name: xc.to_numpy(value) for name, value in net.params.items()}
    np.testing.assert_allclose(
        xc.to_numpy(net.predict(x)), scores_by_hand(params, x, activation, len(hidden) + 1), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    ("rule", "std"),
    [
        ("relu", math.sqrt(2 / 400)),
        ("he", math.sqrt(2 / 400)),
        ("HE", math.sqrt(2 / 400)),
        ("sigmoid", math.sqrt(1 / 400)),
        ("Xavier", math.sqrt(1 / 400)),
        (0.01, 0.01),
        (np.float32(0.5), 0.5),
        (1, 1),
        (0, 0),
    ],
)
def test_initial_weights(rule, std, device):
    net = MultiLayerNet(400, [400], 3, weight_init_std=rule, seed=0, device=device)
    for name in ("W1", "W2"):
        weights = xc.to_numpy(net.params[name])
        assert weights.std() == pytest.approx(std, rel=4 / math.sqrt(2 * weights.size))
        assert abs(weights.mean()) <= 4 * std / math.sqrt(weights.size)
    assert not xc.to_numpy(net.params["b1"]).any()


def test_weight_decay_is_in_the_loss_and_in_the_gradient(device):
    plain, decayed = (
        MultiLayerNet(6, [5], 3, weight_decay_lambda=strength, dtype=np.float64, seed=0, device=device) for strength in (0, 0.3)
    )
    for net in (plain, decayed):
        net.params["b1"] += 1.0
    x, t = batch_of(plain)
    squares = sum((xc.to_numpy(plain.params[name]) ** 2).sum() for name in ("W1", "W2"))
    assert float(decayed.loss(x, t)) == pytest.approx(float(plain.loss(x, t)) + 0.15 * squares, rel=1e-13)
    assert float(decayed.loss_and_gradient(x, t)[0]) == pytest.approx(float(decayed.loss(x, t)), rel=1e-13)
    assert_gradients_agree(decayed, x, t)


@pytest.mark.parametrize("network", [MultiLayerNet, MultiLayerNetExtend])
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"activation": "tanh"}, ValueError, r"activation must be one of 'relu', 'sigmoid', got 'tanh'"),
        (
            {"weight_init_std": "glorot"},
            ValueError,
            r"weight_init_std must be a number or one of 'relu', 'he', 'sigmoid', 'xavier', got 'glorot'",
        ),
        ({"weight_init_std": -0.1}, ValueError, r"weight_init_std must be at least 0 and finite, got -0.1"),
        ({"weight_init_std": math.nan}, ValueError, r"weight_init_std must be at least 0 and finite, got nan"),
        ({"weight_init_std": None}, TypeError, r"weight_init_std must be a number or a name, got None"),
        ({"weight_init_std": True}, TypeError, r"weight_init_std must be a number or a name, got True"),
        ({"weight_decay_lambda": -1}, ValueError, r"weight_decay_lambda must be at least 0 and finite, got -1"),
        ({"input_size": 0}, ValueError, r"input_size must be at least 1, got 0"),
        ({"hidden_size_list": [5, 0]}, ValueError, r"hidden_size_list\[1\] must be at least 1, got 0"),
        ({"hidden_size_list": [5.0]}, TypeError, r"hidden_size_list\[0\] must be an integer, got 5.0"),
        ({"output_size": "3"}, TypeError, r"output_size must be an integer, got '3'"),
    ],
)
def test_what_multi_layer_net_refuses(network, options, error, text):
    arguments = {"input_size": 6, "hidden_size_list": [5], "output_size": 3, **options}
    with pytest.raises(error, match=rf"^{network.__name__}: {text}"):
        network(**arguments)


def test_images_are_to_be_flattened(device):
    net = MultiLayerNet(784, [5], 10, device=device)
    with pytest.raises(ValueError, match=r"^MultiLayerNet: x must have the shape \(N, 784\), got \(2, 1, 28, 28\); reshape"):
        net.predict(np.zeros((2, 1, 28, 28)))


# ----------------------------------------------------------------------------------------------------------------------
# MultiLayerNetExtend
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_batchnorm", [False, True])
@pytest.mark.parametrize("use_dropout", [False, True])
def test_layers_stand_where_the_book_has_them(use_batchnorm, use_dropout):
    net = MultiLayerNetExtend(6, [5, 4], 3, use_dropout=use_dropout, dropout_ration=0.25, use_batchnorm=use_batchnorm)
    expected = []
    for index in (1, 2):
        expected += [f"Affine{index}"]
        expected += [f"BatchNorm{index}"] if use_batchnorm else []
        expected += [f"Activation_function{index}"]
        expected += [f"Dropout{index}"] if use_dropout else []
    assert list(net.layers) == [*expected, "Affine3"]
    assert ("gamma2" in net.params) == use_batchnorm
    assert "gamma3" not in net.params
    assert not use_dropout or net.layers["Dropout2"].dropout_ratio == 0.25


def test_extend_without_options_is_the_plain_network(device):
    plain = MultiLayerNet(6, [5], 3, seed=4, device=device)
    extended = MultiLayerNetExtend(6, [5], 3, seed=4, device=device)
    x, t = batch_of(plain)
    np.testing.assert_array_equal(xc.to_numpy(plain.predict(x)), xc.to_numpy(extended.predict(x)))
    assert plain.loss(x, t) == extended.loss(x, t)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_gradients_with_everything_switched_on(activation, device):
    net = MultiLayerNetExtend(
        6, [5, 4], 3, activation, "xavier", 0.1,
        use_dropout=True, use_batchnorm=True, dtype=np.float64, seed=3, device=device,
    )  # fmt: skip
    assert_gradients_agree(without_dropout(net), *batch_of(net))


def test_numerical_gradient_leaves_the_network_as_it_was(device):
    net = MultiLayerNetExtend(6, [5], 3, use_dropout=True, use_batchnorm=True, seed=3, device=device)
    x, t = batch_of(net)
    net.gradient(x, t)
    before = {name: xc.to_numpy(value).copy() for name, value in {**net.params, **net.state_arrays()}.items()}
    layers, scores = list(net.layers), xc.to_numpy(net.predict(x)).copy()
    net.numerical_gradient(x, t)
    with pytest.raises(ValueError, match="labels"):
        net.numerical_gradient(x, t + 9)
    assert list(net.layers) == layers
    assert net.layers["Affine1"].W is net.params["W1"]
    assert net.dtype == np.float32
    for name, value in {**net.params, **net.state_arrays()}.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(xc.to_numpy(value), before[name])
    np.testing.assert_array_equal(xc.to_numpy(net.predict(x)), scores)


def test_batch_normalisation_learns_running_statistics_and_save_keeps_them(device, tmp_path):
    net = MultiLayerNetExtend(6, [5], 3, use_batchnorm=True, weight_init_std=1.0, dtype=np.float64, seed=0, device=device)
    x, t = batch_of(net, samples=50)
    for _ in range(200):
        net.gradient(x, t)
    inputs = x @ xc.to_numpy(net.params["W1"])
    running = {name: xc.to_numpy(value) for name, value in net.state_arrays().items()}
    np.testing.assert_allclose(running["BatchNorm1/running_mean"], inputs.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(running["BatchNorm1/running_var"], inputs.var(axis=0), rtol=1e-6)
    net.save(tmp_path / "net.safetensors")
    stored, _ = load_parameters(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(stored["BatchNorm1/running_mean"], running["BatchNorm1/running_mean"])


def test_a_network_that_never_learnt_can_be_saved_and_loaded(device, tmp_path):
    MultiLayerNetExtend(6, [5], 3, use_batchnorm=True, seed=0, device=device).save(tmp_path / "net.safetensors")
    net = MultiLayerNetExtend(6, [5], 3, use_batchnorm=True, seed=1, device=device)
    net.gradient(*batch_of(net))
    net.load(tmp_path / "net.safetensors")
    assert xc.to_numpy(net.state_arrays()["BatchNorm1/running_var"]).tolist() == [1] * 5


def test_dropout_drops_in_training_alone(device):
    net = MultiLayerNetExtend(6, [500], 3, use_dropout=True, dropout_ration=0.4, seed=0, device=device)
    x, _ = batch_of(net)
    steady = [xc.to_numpy(net.predict(x)) for _ in range(2)]
    np.testing.assert_array_equal(*steady)
    first, second = (xc.to_numpy(net.predict(x, train_flg=True)) for _ in range(2))
    assert (first != second).any()
    mean = np.mean([xc.to_numpy(net.predict(x, train_flg=True)) for _ in range(500)], axis=0)
    np.testing.assert_allclose(mean, steady[0], atol=0.15)


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5])
def test_a_dropout_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match="must be at least 0 and less than 1"):
        MultiLayerNetExtend(6, [5], 3, use_dropout=True, dropout_ration=ratio)


# ----------------------------------------------------------------------------------------------------------------------
# TwoLayerNet
# ----------------------------------------------------------------------------------------------------------------------


def test_two_layer_net(device):
    net = TwoLayerNet(6, 5, 3, weight_init_std=0.5, dtype=np.float64, seed=0, device=device)
    assert list(net.layers) == ["Affine1", "Relu1", "Affine2"]
    assert {name: value.shape for name, value in net.params.items()} == {"W1": (6, 5), "b1": (5,), "W2": (5, 3), "b2": (3,)}
    x, t = batch_of(net)
    scores = scores_by_hand({name: xc.to_numpy(value) for name, value in net.params.items()}, x, "relu", 2)
    np.testing.assert_allclose(xc.to_numpy(net.predict(x)), scores, rtol=1e-12)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert net.loss(x, t) == pytest.approx(-np.log(probabilities[range(7), t]).mean(), rel=1e-12)
    assert net.lastLayer is net.last_layer
    np.testing.assert_allclose(xc.to_numpy(net.lastLayer.y), probabilities, rtol=1e-12)


def test_two_layer_net_takes_rules_for_its_initial_weights(device):
    net = TwoLayerNet(400, 100, 300, weight_init_std="he", seed=0, device=device)
    for name, inputs in (("W1", 400), ("W2", 100)):
        assert xc.to_numpy(net.params[name]).std() == pytest.approx(math.sqrt(2 / inputs), rel=0.02)


@pytest.mark.parametrize("sizes", [(0, 5, 3), (6, 0, 3), (6, 5, 0)])
def test_two_layer_net_refuses_empty_layers(sizes):
    with pytest.raises(ValueError, match=r"^TwoLayerNet: (input|hidden|output)_size must be at least 1, got 0"):
        TwoLayerNet(*sizes)


# ----------------------------------------------------------------------------------------------------------------------
# DeepConvNet
# ----------------------------------------------------------------------------------------------------------------------

BOOK_SHAPES = {
    "W1": (16, 1, 3, 3),
    "b1": (16,),
    "W2": (16, 16, 3, 3),
    "b2": (16,),
    "W3": (32, 16, 3, 3),
    "b3": (32,),
    "W4": (32, 32, 3, 3),
    "b4": (32,),
    "W5": (64, 32, 3, 3),
    "b5": (64,),
    "W6": (64, 64, 3, 3),
    "b6": (64,),
    "W7": (1024, 50),
    "b7": (50,),
    "W8": (50, 10),
    "b8": (10,),
}


def deep_scores_by_hand(params, x):
    for index in range(1, 7):
        pad = 2 if index == 4 else 1
        x = reference.conv2d(x, params[f"W{index}"], params[f"b{index}"], padding=pad)
        x = np.maximum(x, 0)
        if index % 2 == 0:
            x = reference.max_pool2d(x, 2)[0]
    hidden = np.maximum(x.reshape(len(x), -1) @ params["W7"] + params["b7"], 0)
    return hidden, hidden @ params["W8"] + params["b8"]


def test_deep_conv_net_has_the_books_parameters_and_order():
    net = xc.DeepConvNet()
    assert {name: value.shape for name, value in net.params.items()} == BOOK_SHAPES
    assert " ".join(net.layers) == (
        "Conv1 Relu1 Conv2 Relu2 Pool1 Conv3 Relu3 Conv4 Relu4 Pool2 Conv5 Relu5 Conv6 Relu6 Pool3 "
        "Affine1 Relu7 Dropout1 Affine2"
    )


def test_deep_conv_net_computes_what_it_says(device):
    net = deep_conv_net(dtype=np.float64, seed=0, device=device)
    for index in range(1, 9):
        net.params[f"b{index}"] += 0.1
    x, _ = batch_of(net, samples=2)
    params = {name: xc.to_numpy(value) for name, value in net.params.items()}
    np.testing.assert_allclose(xc.to_numpy(net.predict(x)), deep_scores_by_hand(params, x)[1], rtol=1e-10)


def test_deep_conv_net_starts_with_he_weights(device):
    net = xc.DeepConvNet(seed=0, device=device)
    for name, inputs in zip(["W2", "W3", "W4", "W5", "W6", "W7"], [144, 144, 288, 288, 576, 1024], strict=True):
        weights = xc.to_numpy(net.params[name])
        assert weights.std() == pytest.approx(math.sqrt(2 / inputs), rel=4 / math.sqrt(2 * weights.size))


@pytest.mark.parametrize("input_dim", [(1, 8, 8), (3, 32, 32), (2, 9, 30)])
def test_deep_conv_net_of_other_images(input_dim, device):
    net = xc.DeepConvNet(input_dim, **TINY_CONVOLUTIONS, device=device)
    assert net.gradient(np.zeros((2, *input_dim)), [0, 1])["W1"].shape == (2, input_dim[0], 3, 3)


def test_deep_conv_net_of_other_convolutions(device):
    net = xc.DeepConvNet(
        (1, 30, 40),
        conv_param_1={"filter_num": 3, "filter_size": (3, 5), "pad": (0, 2), "stride": (1, 2)},
        conv_param_6={"pad": "same"},
        device=device,
    )
    assert net.params["W1"].shape == (3, 1, 3, 5)
    # 30 x 40 -> 28 x 20 -> 14 x 10 -> 16 x 12 -> 8 x 6 -> 4 x 3
    assert net.params["W7"].shape == (64 * 4 * 3, 50)
    assert net.predict(np.zeros((2, 1, 30, 40))).shape == (2, 10)


def test_training_drops_hidden_values_and_no_scores(device):
    net = deep_conv_net(seed=0, device=device)
    net.params["b8"] += 100.0
    x, _ = batch_of(net, samples=50)
    scores = xc.to_numpy(net.predict(x, train_flg=True))
    assert (scores != xc.to_numpy(net.predict(x))).any()
    assert (scores > 50).all()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"conv_param_3": {"filters": 3}}, ValueError, r"conv_param_3 has unknown entries \['filters'\]; expected "),
        ({"conv_param_2": {"filter_num": 0}}, ValueError, r"conv_param_2\['filter_num'\] must be at least 1, got 0"),
        ({"hidden_size": 0}, ValueError, r"hidden_size must be at least 1, got 0"),
        ({"output_size": 1.5}, TypeError, r"output_size must be an integer, got 1.5"),
    ],
)
def test_what_deep_conv_net_refuses(options, error, text):
    with pytest.raises(error, match=rf"^DeepConvNet: {text}"):
        xc.DeepConvNet(**options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"input_dim": (1, 2, 2)}, r"^DeepConvNet, pooling 3: .* padded image is only \(1, 1\)"),
        ({"conv_param_5": {"filter_size": 12}}, r"^DeepConvNet, conv_param_5: .*filter_size=\(12, 12\)"),
        ({"conv_param_1": {"stride": 0}}, r"^DeepConvNet, conv_param_1: stride must be at least 1, got 0"),
    ],
)
def test_convolutions_that_do_not_fit_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        xc.DeepConvNet(**options)


def test_the_books_pickle_gives_the_books_scores(device, tmp_path):
    rng = np.random.default_rng(5)
    net = deep_conv_net(dtype=np.float64, seed=0, device=device)
    params = {name: rng.normal(size=value.shape) for name, value in net.params.items()}
    path = tmp_path / "deep_convnet_params.pkl"
    path.write_bytes(pickle.dumps(params))
    net.load_params(path)
    x, _ = batch_of(net, samples=2)
    # The book's dropout multiplies with 1 - ratio when it predicts: the hidden values, and the scores too.
    hidden, _ = deep_scores_by_hand(params, x)
    expected = 0.5 * ((0.5 * hidden) @ params["W8"] + params["b8"])
    np.testing.assert_allclose(xc.to_numpy(net.predict(x)), expected, rtol=1e-10)


def test_a_pickle_of_another_network_is_refused(tmp_path):
    path = tmp_path / "params.pkl"
    path.write_bytes(pickle.dumps({"W1": np.zeros((2, 2)), "b8": np.zeros(10)}))
    with pytest.raises(ParameterFileError, match=r"params.pkl does not fit this network:\n +W1 has shape \(2, 2\)"):
        xc.DeepConvNet().load_params(path)


def test_a_pickle_that_holds_something_else_is_refused(tmp_path):
    path = tmp_path / "params.pkl"
    path.write_bytes(pickle.dumps({"W1": print}))
    with pytest.raises(ParameterFileError, match=r"params.pkl is not a pickled dictionary of NumPy arrays"):
        xc.DeepConvNet().load_params(path)


def test_the_layers_backward_works_after_they_ran_as_one():
    net = xc.SimpleConvNet((1, 8, 8), {"filter_num": 2, "filter_size": 3}, 5, 3, seed=0, dtype=np.float64)
    random = np.random.default_rng(0)
    t = np.array([0, 1, 2, 0])
    x = random.standard_normal((4, 1, 8, 8))
    expected = {name: grad.copy() for name, grad in net.gradient(x, t).items()}
    net.gradient(random.standard_normal((4, 1, 8, 8)), t)

    net.loss(x, t)  # as the book's own ``gradient`` goes through the layers
    dout = net.last_layer.backward(1)
    for layer in reversed(net.layers.values()):
        dout = layer.backward(dout)
    assert dout.shape == x.shape
    for name, layer, attribute in (("W1", "Conv1", "dW"), ("b1", "Conv1", "db"), ("W2", "Affine1", "dW")):
        np.testing.assert_allclose(getattr(net.layers[layer], attribute), expected[name], rtol=1e-12)


@pytest.mark.usefixtures("without_cupy")
def test_the_device_that_is_named_computes_everything(monkeypatch):
    monkeypatch.setenv("XPCONV_DEVICE", "cuda")  # not there, and nobody asked for it
    x, t = np.random.default_rng(0).standard_normal((4, 1, 8, 8)), np.array([0, 1, 2, 0])
    net = xc.SimpleConvNet((1, 8, 8), {"filter_num": 2, "filter_size": 3}, 5, 3, seed=0, device="numpy")
    xc.Adam().update(net.params, net.gradient(x, t), device=net.device)
    assert np.isfinite(net.loss(x, t))
    sigmoid = MultiLayerNetExtend(6, [5], 3, activation="sigmoid", use_dropout=True, use_batchnorm=True, seed=0, device="numpy")
    assert np.isfinite(sigmoid.loss_and_gradient(np.ones((4, 6)), t)[0])


def test_scores_of_nan_have_no_accuracy():
    net = xc.SimpleConvNet((1, 8, 8), {"filter_num": 2, "filter_size": 3}, 5, 3, seed=0)
    with pytest.raises(TrainingError, match=r"SimpleConvNet.accuracy: the scores of samples 0 to 3 hold NaN"):
        net.accuracy(np.full((4, 1, 8, 8), np.nan), np.zeros(4, int))


@pytest.mark.parametrize(
    "spoil",
    [lambda w: w.astype(np.float64) * 1e300, lambda w: w.astype(np.int8), lambda w: w * np.nan],
    ids=["too large", "integers", "NaN"],
)
def test_numbers_that_the_network_cannot_hold_are_refused_and_change_nothing(spoil, tmp_path):
    net = xc.SimpleConvNet((1, 8, 8), {"filter_num": 2, "filter_size": 3}, 5, 3, seed=0)
    before = {name: value.copy() for name, value in net.params.items()}
    save_parameters(tmp_path / "f", {**net.params, "W3": spoil(net.params["W3"])})
    with pytest.raises(ParameterFileError, match=r"W3 must hold finite numbers"):
        net.load(tmp_path / "f")
    for name, value in before.items():
        np.testing.assert_array_equal(net.params[name], value)


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (np.ones((4, 64)), ValueError, r"reshape it: x.reshape\(-1, 1, 8, 8\)"),
        (np.ones((4, 8, 8, 1)), ValueError, r"channels are last, move them: x.transpose\(0, 3, 1, 2\)"),
        (np.ones((1, 8, 8)), ValueError, r"one sample needs an axis in front"),
        (np.ones((4, 1, 8, 9)), ValueError, r"got \(4, 1, 8, 9\)$"),
        (np.ones((4, 1, 8, 8), complex), TypeError, "real numbers, got dtype complex128"),
        (np.ma.masked_array(np.ones((4, 1, 8, 8))), TypeError, "masked array"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_what_would_help(x, error, text):
    net = xc.SimpleConvNet((1, 8, 8), {"filter_num": 2, "filter_size": 3}, 5, 3, seed=0)
    with pytest.raises(error, match=text):
        net.predict(x)


def test_a_layer_of_the_users_own_is_run_as_it_is():
    class Leaky(Relu):
        def forward(self, x):
            return np.where(x > 0, x, 0.1 * x)

    net = xc.SimpleConvNet((1, 8, 8), {"filter_num": 2, "filter_size": 3}, 5, 3, seed=0)
    net.layers["Relu1"] = Leaky()
    x = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype(np.float32)
    out = x
    for layer in net.layers.values():
        out = layer.forward(out)
    np.testing.assert_allclose(net.predict(x), out, rtol=1e-5)


def test_an_input_dim_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"^SimpleConvNet: input_dim must be \(channels, height, width\), got \(28, 28\)"):
        xc.SimpleConvNet((28, 28))
    with pytest.raises(TypeError, match=r"^SimpleConvNet: input_dim\[1\] must be an integer, got 28.0"):
        xc.SimpleConvNet((1, 28.0, 28))


def test_relu_in_mixed_dtypes_keeps_small_outputs():
    relu = Relu()
    relu.forward(np.array([1e-50, 1.0, -1.0]))
    np.testing.assert_array_equal(relu.backward(np.ones(3, np.float32)), [1, 1, 0])
