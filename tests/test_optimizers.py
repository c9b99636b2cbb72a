"""Keras' optimizers against the published formulas, element by element in Python floats, and PyTorch's where they agree."""

import copy
import json
import math
import pickle

import numpy as np
import pytest

import xpconv as xc
from xpconv import optimizers
from xpconv.kernels.numpy import elementwise
from xpconv.scratch import optimizer as book

EPSILON = 1e-7

OPTIMIZERS = {
    "SGD": lambda **more: xc.SGD(0.1, **more),
    "momentum": lambda **more: xc.SGD(0.05, momentum=0.8, **more),
    "nesterov": lambda **more: xc.SGD(0.05, 0.8, True, **more),
    "Adam": lambda **more: xc.Adam(0.01, beta_1=0.8, beta_2=0.95, epsilon=1e-3, **more),
    "AMSGrad": lambda **more: xc.Adam(0.01, 0.8, 0.95, 1e-3, True, **more),
    "RMSprop": lambda **more: xc.RMSprop(0.02, rho=0.7, epsilon=1e-3, **more),
    "RMSprop, momentum": lambda **more: xc.RMSprop(0.02, 0.7, 0.6, 1e-3, **more),
    "RMSprop, centered": lambda **more: xc.RMSprop(0.02, 0.7, 0.6, 1e-3, True, **more),
    "Adagrad": lambda **more: xc.Adagrad(0.3, initial_accumulator_value=0.2, epsilon=1e-3, **more),
}
RATES = {name: make().learning_rate for name, make in OPTIMIZERS.items()}


# One parameter's path under each rule: plain floats, one gradient after the other. Nothing here comes from xpconv. Before each
# step the parameter is multiplied by `kept`, which is 1 without weight decay.


def sgd_path(w, gradients, kept=1.0):
    for g in gradients:
        w = w * kept - 0.1 * g
        yield w


def momentum_path(w, gradients, kept=1.0):
    v = 0.0
    for g in gradients:
        v = 0.8 * v - 0.05 * g
        w = w * kept + v
        yield w


def nesterov_path(w, gradients, kept=1.0):
    v = 0.0
    for g in gradients:
        v = 0.8 * v - 0.05 * g
        w = w * kept + 0.8 * v - 0.05 * g
        yield w


def adam_path(w, gradients, kept=1.0, amsgrad=False):
    m = v = divisor = 0.0
    for t, g in enumerate(gradients, start=1):
        m = 0.8 * m + (1 - 0.8) * g
        v = 0.95 * v + (1 - 0.95) * g * g
        divisor = max(divisor, v) if amsgrad else v
        w = w * kept - 0.01 * math.sqrt(1 - 0.95**t) / (1 - 0.8**t) * m / (math.sqrt(divisor) + 1e-3)
        yield w


def rmsprop_path(w, gradients, kept=1.0, momentum=0.0, centered=False):
    mean = mean_square = step = 0.0
    for g in gradients:
        mean = 0.7 * mean + 0.3 * g
        mean_square = 0.7 * mean_square + 0.3 * g * g
        step = momentum * step + 0.02 * g / math.sqrt(mean_square - (mean * mean if centered else 0.0) + 1e-3)
        w = w * kept - step
        yield w


def adagrad_path(w, gradients, kept=1.0):
    total = 0.2
    for g in gradients:
        total += g * g
        w = w * kept - 0.3 * g / math.sqrt(total + 1e-3)
        yield w


PATHS = {
    "SGD": sgd_path,
    "momentum": momentum_path,
    "nesterov": nesterov_path,
    "Adam": adam_path,
    "AMSGrad": lambda *arguments: adam_path(*arguments, amsgrad=True),
    "RMSprop": rmsprop_path,
    "RMSprop, momentum": lambda *arguments: rmsprop_path(*arguments, momentum=0.6),
    "RMSprop, centered": lambda *arguments: rmsprop_path(*arguments, momentum=0.6, centered=True),
    "Adagrad": adagrad_path,
}

# A variance is the difference of two numbers that single precision has rounded.
RTOL = {np.dtype(np.float32): {"RMSprop, centered": 1e-3}, np.dtype(np.float64): {"RMSprop, centered": 1e-12}}
DEFAULT_RTOL = {np.dtype(np.float32): 5e-6, np.dtype(np.float64): 1e-13}


def gradients_of(shape, dtype, steps=12):
    rng = np.random.default_rng(3)
    gradients = rng.standard_normal((steps, *shape)) * 10.0 ** rng.integers(-3, 3, shape)
    gradients.reshape(steps, -1)[:, 0] = 0  # a weight that never gets a gradient
    return gradients.astype(dtype)


def numpy_params(params):
    return {name: xc.to_numpy(array) for name, array in params.items()}


def check_paths(name, optimizer, gradients, used, device, dtype, kept=1.0):
    start = np.random.default_rng(4).standard_normal(gradients.shape[1:]).astype(dtype)
    params = {"dense/kernel": xc.asarray(start.copy(), device=device)}
    paths = [PATHS[name](float(w), map(float, used[(slice(None), *i)]), kept) for i, w in np.ndenumerate(start)]
    tolerance = RTOL[dtype].get(name, DEFAULT_RTOL[dtype])
    for gradient in gradients:
        optimizer.update(params, {"dense/kernel": xc.asarray(gradient, device=device)}, device=device)
        expected = np.array([next(path) for path in paths]).reshape(start.shape)
        np.testing.assert_allclose(xc.to_numpy(params["dense/kernel"]), expected, rtol=tolerance, atol=tolerance)
        assert params["dense/kernel"].dtype == dtype
    assert optimizer.iteration == optimizer.iterations == len(gradients)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_follows_the_published_formula(name, device, dtype):
    gradients = gradients_of((3, 5), dtype)
    check_paths(name, OPTIMIZERS[name](), gradients, gradients, device, dtype)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decays_weights_before_each_step(name, device, dtype):
    gradients = gradients_of((3, 5), dtype)
    kept = 1 - 0.25 * RATES[name]
    check_paths(name, OPTIMIZERS[name](weight_decay=0.25), gradients, gradients, device, dtype, kept)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_clips_what_is_too_large(name, device, dtype):
    gradients = gradients_of((3, 5), dtype)
    norms = np.sqrt((gradients.astype(float) ** 2).sum(axis=(1, 2)))
    limit = float(np.median(norms))
    scaled = gradients * np.minimum(1, limit / norms)[:, None, None]
    assert 0 < (norms > limit).sum() < len(norms)
    check_paths(name, OPTIMIZERS[name](clipnorm=limit), gradients, scaled, device, dtype)
    check_paths(name, OPTIMIZERS[name](global_clipnorm=limit), gradients, scaled, device, dtype)
    check_paths(name, OPTIMIZERS[name](clipvalue=0.5), gradients, np.clip(gradients, -0.5, 0.5), device, dtype)


@pytest.mark.parametrize(
    ("name", "weight_decay"),  # which PyTorch's AdamW alone has besides the gradient
    [*((name, None) for name in ("SGD", "momentum", "nesterov", "Adam", "AMSGrad", "Adagrad")), ("Adam", 0.1), ("AMSGrad", 1)],
)
def test_agrees_with_pytorch(name, weight_decay):
    torch = pytest.importorskip("torch")
    adam = torch.optim.Adam if weight_decay is None else torch.optim.AdamW
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    rules = {
        "SGD": lambda w: torch.optim.SGD([w], lr=0.1),
        "momentum": lambda w: torch.optim.SGD([w], lr=0.05, momentum=0.8),
        "nesterov": lambda w: torch.optim.SGD([w], lr=0.05, momentum=0.8, nesterov=True),
        "Adam": lambda w: adam([w], lr=0.01, betas=(0.8, 0.95), **decay),
        "AMSGrad": lambda w: adam([w], lr=0.01, betas=(0.8, 0.95), amsgrad=True, **decay),
        "Adagrad": lambda w: torch.optim.Adagrad([w], lr=0.3, initial_accumulator_value=0.2, eps=0.0),
    }
    start = np.random.default_rng(5).standard_normal(40)
    gradients = gradients_of((40,), np.float64)
    params = {"W": start.copy()}
    optimizer = OPTIMIZERS[name](weight_decay=weight_decay)
    if name == "Adagrad":
        optimizer.epsilon = 0.0  # elsewhere than PyTorch's
    theirs = torch.tensor(start.copy(), requires_grad=True)
    rule = rules[name](theirs)
    for step, gradient in enumerate(gradients, start=1):
        if "eps" in rule.param_groups[0] and name != "Adagrad":  # which PyTorch adds after the correction of v
            rule.param_groups[0]["eps"] = 1e-3 / math.sqrt(1 - 0.95**step)
        theirs.grad = torch.tensor(gradient)
        rule.step()
        optimizer.update(params, {"W": gradient})
        np.testing.assert_allclose(params["W"], theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adamw_is_adam_with_decay(amsgrad, device, dtype):
    gradients = gradients_of((3, 5), dtype)
    optimizer = xc.AdamW(0.01, 0.25, 0.8, 0.95, 1e-3, amsgrad)
    check_paths("AMSGrad" if amsgrad else "Adam", optimizer, gradients, gradients, device, dtype, 1 - 0.0025)
    with pytest.raises(TypeError, match="AdamW: weight_decay must be a number, got None"):
        xc.AdamW(weight_decay=None)


def test_defaults_are_those_of_keras():
    common = {"weight_decay": None, "clipnorm": None, "clipvalue": None, "global_clipnorm": None}
    adam = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False, **common}
    assert xc.SGD().get_config() == {"name": "sgd", "learning_rate": 0.01, "momentum": 0.0, "nesterov": False, **common}
    assert xc.Adam().get_config() == {"name": "adam", **adam}
    assert xc.AdamW(name="mine").get_config() == {"name": "mine", **adam, "weight_decay": 0.004}
    rmsprop = {"learning_rate": 0.001, "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False}
    assert xc.RMSprop().hyperparameters() == {**rmsprop, **common}
    adagrad = {"learning_rate": 0.001, "initial_accumulator_value": 0.1, "epsilon": 1e-7}
    assert xc.Adagrad().hyperparameters() == {**adagrad, **common}


# ---- weight decay and clipping -------------------------------------------------------------------------------------------


def test_what_is_excluded_does_not_decay():
    names = ["conv2d/kernel", "conv2d/bias", "batch_normalization/gamma"]
    params = {name: np.ones(2) for name in names}
    optimizer = xc.SGD(0.5, weight_decay=0.5)
    optimizer.update(params, {name: np.zeros(2) for name in names})
    assert all((array == 0.75).all() for array in params.values())
    optimizer.exclude_from_weight_decay(var_names=["bias", "normalization"])
    optimizer.update(params, {name: np.zeros(2) for name in names})
    assert {name: array[0] for name, array in params.items()} == dict(zip(names, (0.5625, 0.75, 0.75), strict=True))
    again = xc.SGD.from_config(json.loads(json.dumps(optimizer.get_config())))
    again.update(params, {name: np.zeros(2) for name in names})
    assert {name: array[0] for name, array in params.items()} == dict(zip(names, (0.421875, 0.75, 0.75), strict=True))
    assert again.hyperparameters()["exclude_from_weight_decay"] == ["bias", "normalization"]


@pytest.mark.parametrize("var_names", ["bias", [1], [""]])
def test_names_to_exclude_are_a_list_of_texts(var_names):
    with pytest.raises(TypeError, match=r"AdamW\.exclude_from_weight_decay: var_names must be a list"):
        xc.AdamW().exclude_from_weight_decay(var_names=var_names)


def test_a_gradient_that_is_the_parameter_itself_does_not_decay_with_it():
    w = np.array([1.0, -2.0])
    xc.SGD(0.5, weight_decay=0.5).update({"W": w}, {"W": w[:]})
    np.testing.assert_array_equal(w, [0.25, -0.5])


def test_each_gradient_has_a_norm_of_its_own_and_all_have_one_together(device, dtype):
    grads = {"a": np.array([3.0, 4.0], dtype), "b": np.array([[0.3], [0.4]], dtype), "c": np.array(12.0, dtype)}
    steps = {}
    for clipping in ({"clipnorm": 1.0}, {"global_clipnorm": 1.3}, {"clipvalue": 0.35}, {"global_clipnorm": 100.0}):
        params = {name: xc.asarray(np.zeros_like(grad), device=device) for name, grad in grads.items()}
        given = {name: xc.asarray(grad.copy(), device=device) for name, grad in grads.items()}
        xc.SGD(1.0, **clipping).update(params, given, device=device)
        np.testing.assert_equal(numpy_params(given), grads)  # they are the caller's
        steps[next(iter(clipping.items()))] = {name: -array for name, array in numpy_params(params).items()}
    rtol = 1e-6 if dtype == np.float32 else 1e-15
    close = lambda actual, desired: np.testing.assert_allclose(actual, desired, rtol=rtol)  # noqa: E731
    each = steps["clipnorm", 1.0]
    close(each["a"], [0.6, 0.8])
    np.testing.assert_array_equal(each["b"], grads["b"])
    close(each["c"], 1.0)
    factor = 1.3 / math.sqrt(25.25 + 144)
    for name, grad in grads.items():
        close(steps["global_clipnorm", 1.3][name], grad * factor)
        np.testing.assert_array_equal(steps["global_clipnorm", 100.0][name], grad)
        close(steps["clipvalue", 0.35][name], np.minimum(grad, 0.35))


CLIPPINGS = [{"clipnorm": 0.5}, {"clipvalue": 0.5}, {"global_clipnorm": 0.5}]


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_gradients_of_nothing_are_clipped_to_nothing(clipping, device, dtype):
    params = {"a": xc.asarray(np.ones(3, dtype), device=device), "empty": xc.asarray(np.ones((0, 2), dtype), device=device)}
    grads = {name: xc.asarray(np.zeros(array.shape, dtype), device=device) for name, array in params.items()}
    optimizer = xc.SGD(1.0, **clipping)
    optimizer.update(params, grads, device=device)
    np.testing.assert_array_equal(xc.to_numpy(params["a"]), 1)
    optimizer.update({"empty": params["empty"]}, {"empty": grads["empty"]}, device=device)


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_not_hidden(clipping, value, device):
    params = {name: xc.asarray(np.ones(3, np.float32), device=device) for name in "ab"}
    grads = {"a": np.array([1, value, 1], np.float32), "b": np.ones(3, np.float32)}
    grads = {name: xc.asarray(grad, device=device) for name, grad in grads.items()}
    xc.SGD(1.0, **clipping).update(params, grads, device=device)
    after = numpy_params(params)
    assert not np.isfinite(after["a"][1])
    assert np.isfinite(after["b"]).all() == ("global_clipnorm" not in clipping)


@pytest.mark.parametrize("clipping", [{"clipnorm": 0.5}, {"global_clipnorm": 0.5}])
@pytest.mark.parametrize("size", [1e-30, 1e-44, 1e25, 3e38])
def test_a_norm_whose_square_single_precision_does_not_hold(clipping, size, device):
    grad = np.array([size, -size, 0, size], np.float32)
    params = {"W": xc.asarray(np.zeros(4, np.float32), device=device)}
    xc.SGD(1.0, **clipping).update(params, {"W": xc.asarray(grad, device=device)}, device=device)
    norm = math.sqrt((grad.astype(float) ** 2).sum())
    np.testing.assert_allclose(-xc.to_numpy(params["W"]), grad.astype(float) * min(1, 0.5 / norm), rtol=1e-5)


def test_parameters_of_two_dtypes_are_clipped_together():
    params = {"a": np.zeros(1, np.float32), "b": np.zeros(1)}
    xc.SGD(1.0, global_clipnorm=1.0).update(params, {"a": np.array([3.0], np.float32), "b": np.array([4.0])})
    assert (params["a"].dtype, params["b"].dtype) == (np.float32, np.float64)
    np.testing.assert_allclose([params["a"][0], params["b"][0]], [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("clipping", [{}, *CLIPPINGS])
def test_a_rule_is_given_gradients_of_the_dtype_of_their_parameter(clipping):
    seen = {}

    class Rule(optimizers.Optimizer):
        def update_array(self, param, grad, state, rate, place):
            assert isinstance(grad, np.ndarray)
            seen[param.dtype] = grad.dtype

    params = {"a": np.zeros((), np.float32), "b": np.zeros(1)}
    Rule(1.0, **clipping).update(params, {"a": 3.0, "b": np.ones(1, np.float32)})
    assert seen == {np.dtype(dtype): np.dtype(dtype) for dtype in (np.float32, np.float64)}


def test_a_variance_that_rounding_makes_negative_counts_as_zero(device):
    params = {"W": xc.asarray(np.zeros(1000, np.float32), device=device)}
    gradient = xc.asarray(np.linspace(1, 1000, 1000, dtype=np.float32), device=device)
    optimizer = xc.RMSprop(0.001, centered=True)
    for _ in range(200):
        optimizer.update(params, {"W": gradient}, device=device)
    assert np.isfinite(xc.to_numpy(params["W"])).all()


# ---- arrays --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_larger_than_a_block_is_updated_as_its_parts_are(name, dtype):
    size = 2 * elementwise.BLOCK + 17
    rng = np.random.default_rng(6)
    start, gradients = rng.standard_normal(size).astype(dtype), rng.standard_normal((2, size)).astype(dtype)
    places = [0, elementwise.BLOCK - 1, elementwise.BLOCK, 2 * elementwise.BLOCK, size - 1]
    whole, few = {"W": start.copy()}, {"W": start[places]}
    optimizers = OPTIMIZERS[name](), OPTIMIZERS[name]()
    for gradient in gradients:
        optimizers[0].update(whole, {"W": gradient})
        optimizers[1].update(few, {"W": gradient[places]})
    np.testing.assert_array_equal(whole["W"][places], few["W"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_in_place_whatever_the_strides(name, device, dtype):
    xp = xc.get_device(device).xp
    start = xc.asarray(np.random.default_rng(7).standard_normal((4, 6)).astype(dtype), device=device)
    gradient = xc.asarray(np.random.default_rng(8).standard_normal((4, 6)).astype(dtype), device=device)
    base = xp.zeros((8, 12), dtype)
    params = {"plain": start.copy(), "strided": base[::2, ::2], "fortran": xp.asfortranarray(start)}
    params["strided"][...] = start
    before = dict(params)
    if xp is np:  # CuPy's arrays cannot be locked
        gradient.flags.writeable = False
    optimizer = OPTIMIZERS[name](weight_decay=0.1)
    for _ in range(2):
        optimizer.update(params, dict.fromkeys(params, gradient), device=device)
    for key, array in params.items():
        assert array is before[key]
        assert array.dtype == dtype
        # Compilers may fuse a product and a sum in one loop and not in another.
        np.testing.assert_allclose(xc.to_numpy(array), xc.to_numpy(params["plain"]), rtol=1e-6, atol=1e-7)
    assert not (params["plain"] == start).any()
    assert (base[1::2] == 0).all()
    assert (base[:, 1::2] == 0).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_do_not_influence_each_other(name):
    gradients = gradients_of((7,), np.float64)
    together = {"W1": np.ones(7), "b1": np.full(7, 2.0)}
    alone = {"b1": np.full(7, 2.0)}
    optimizers = OPTIMIZERS[name](), OPTIMIZERS[name]()
    for gradient in gradients:
        optimizers[0].update(together, {"W1": -gradient, "b1": gradient})
        optimizers[1].update(alone, {"b1": gradient})
    np.testing.assert_array_equal(together["b1"], alone["b1"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_plain_numbers_are_parameters_too(name):
    numbers, arrays = {"x": -7.0, "y": np.float64(2.0)}, {"x": np.array(-7.0), "y": np.array(2.0)}
    more = {"weight_decay": 0.1, "global_clipnorm": 1.0}
    one, other = OPTIMIZERS[name](**more), OPTIMIZERS[name](**more)
    for _ in range(5):
        one.update(numbers, {"x": numbers["x"] / 10, "y": 2 * numbers["y"]})
        other.update(arrays, {"x": arrays["x"] / 10, "y": 2 * arrays["y"]})
    assert all(type(value) is float for value in numbers.values())
    assert numbers == {name: float(value) for name, value in arrays.items()}
    assert numbers["x"] != -7.0


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("gradient", [[1.0, 0.5], np.array([1, 0]), np.array([1.0, 0.5]), np.array([1.0, 0.5], np.float16)])
def test_gradients_of_other_kinds_are_converted(name, gradient):
    params, others = {"a": np.ones(2, np.float32)}, {"a": np.ones(2, np.float32)}
    OPTIMIZERS[name]().update(params, {"a": gradient})
    OPTIMIZERS[name]().update(others, {"a": np.asarray(gradient, np.float32)})
    np.testing.assert_array_equal(params["a"], others["a"])
    assert params["a"].dtype == np.float32


# ---- what is remembered --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_taken_over(name, device, dtype):
    gradients = [{"conv/W": xc.asarray(gradient, device=device)} for gradient in gradients_of((2, 3), dtype, steps=8)]
    params = {"conv/W": xc.asarray(np.ones((2, 3), dtype), device=device)}
    optimizer = OPTIMIZERS[name]()
    for gradient in gradients[:4]:
        optimizer.update(params, gradient, device=device)
    state, continued = optimizer.state_dict(), {"conv/W": params["conv/W"].copy()}
    assert state.keys() == {"iteration", *(f"{slot}/conv/W" for slot in optimizer.slots)}
    frozen = copy.deepcopy(numpy_params(state))
    for gradient in gradients[4:]:
        optimizer.update(params, gradient, device=device)
    np.testing.assert_equal(numpy_params(state), frozen)  # copies, not the arrays that updates go on to change

    other = type(optimizer).from_config(json.loads(json.dumps(optimizer.get_config())))
    stopped = continued["conv/W"].copy()
    other.update(continued, gradients[0], device=device)  # what is loaded replaces what this leaves
    continued["conv/W"][...] = stopped
    other.load_state_dict(state)
    for gradient in gradients[4:]:
        other.update(continued, gradient, device=device)
    np.testing.assert_equal(numpy_params(state), frozen)
    np.testing.assert_array_equal(xc.to_numpy(continued["conv/W"]), xc.to_numpy(params["conv/W"]))
    assert other.iteration == optimizer.iteration == 8
    np.testing.assert_equal(numpy_params(other.state_dict()), numpy_params(optimizer.state_dict()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_a_copy_of_an_optimizer_goes_its_own_way(copied):
    params = {"W": np.ones(3)}
    optimizer = xc.Adam(0.1)
    optimizer.update(params, {"W": np.ones(3)})
    other, others = copied(optimizer), {"W": params["W"].copy()}
    before = optimizer.state_dict()
    other.update(others, {"W": np.full(3, 2.0)})
    np.testing.assert_equal(optimizer.state_dict(), before)
    optimizer.update(params, {"W": np.full(3, 2.0)})
    np.testing.assert_array_equal(params["W"], others["W"])


def test_a_copy_of_an_optimizer_is_without_the_parameters():
    optimizer = xc.SGD()
    optimizer.update({"W": np.ones(10000)}, {"W": np.ones(10000)})
    assert len(pickle.dumps(optimizer)) < 10000


@pytest.mark.parametrize("name", ["momentum", "Adam", "AMSGrad", "SGD"])
def test_the_state_of_another_optimizer_is_refused(name):
    source = xc.Adagrad()
    source.update({"W": np.ones(2)}, {"W": np.ones(2)})
    optimizer = OPTIMIZERS[name]()
    optimizer.update({"W": np.ones(2)}, {"W": np.ones(2)})
    before = optimizer.state_dict()
    for state in (source.state_dict(), {}, {**before, "iteration": np.array(-1)}):
        with pytest.raises(ValueError, match=f"{type(optimizer).__name__}.load_state_dict"):
            optimizer.load_state_dict(state)
    np.testing.assert_equal(optimizer.state_dict(), before)


# ---- bad input, at the first update and at later ones, when the arrays are known -----------------------------------------


def snapshot(params):
    return {name: np.array(array) for name, array in params.items()}


@pytest.fixture(params=["at first", "later"])
def updated(request):
    """An optimizer and its parameters, before any update and after one."""
    params = {"W": np.arange(3.0), "b": np.ones(2)}
    optimizer = xc.Adam(0.1, weight_decay=0.1, global_clipnorm=1.0)
    if request.param == "later":
        optimizer.update(params, {"W": np.ones(3), "b": np.ones(2)})
    return optimizer, params


def refused(updated, grads, error, message):
    optimizer, params = updated
    before, state, iteration = snapshot(params), optimizer.state_dict(), optimizer.iteration
    with pytest.raises(error, match=f"^Adam.update: {message}"):
        optimizer.update(params, grads)
    np.testing.assert_equal(snapshot(params), before)
    np.testing.assert_equal(optimizer.state_dict(), state)
    assert optimizer.iteration == iteration


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        ({"W": np.ones(3)}, ValueError, "params and grads must have the same names; without a gradient: 'b'$"),
        ({"W": np.ones(3), "c": np.ones(2)}, ValueError, ".*without a gradient: 'b'; without a parameter: 'c'$"),
        ({"W": np.ones(3), "b": np.ones(2), "c": np.ones(1)}, ValueError, ".*same names; without a parameter: 'c'$"),
        ({"W": np.ones(3), "b": np.ones(3)}, ValueError, r"grads\['b'\]\.shape must be \(2,\), got \(3,\)"),
        ({"W": np.ones((3, 1)), "b": np.ones(2)}, ValueError, r"grads\['W'\]\.shape must be \(3,\), got \(3, 1\)"),
        ({"W": np.ones(3), "b": np.ones(2, complex)}, TypeError, r"grads\['b'\] must hold real numbers, got dtype complex128"),
        ({"W": np.ones(3), "b": np.ma.masked_array(np.ones(2))}, TypeError, r"grads\['b'\] is a masked array"),
        ({"W": np.ones(3), "b": None}, TypeError, r"grads\['b'\] must be an array"),
        ({"W": np.ones(3), "b": np.array(["x", "y"])}, TypeError, r"grads\['b'\] must hold real numbers"),
    ],
)
def test_gradients_that_do_not_fit_change_nothing(updated, grads, error, message):
    refused(updated, grads, error, message)


GOOD = {"W": np.ones(3), "b": np.ones(2)}


def test_a_parameter_that_was_locked_is_refused(updated):
    updated[1]["b"].flags.writeable = False
    refused(updated, GOOD, ValueError, r"params\['b'\] must be a writable array of floats")


def test_a_parameter_that_is_no_float_is_refused(updated):
    updated[1]["b"] = np.ones(2, int)
    refused(updated, GOOD, ValueError, r"params\['b'\] must be a writable array of floats, got dtype int64")


def test_a_parameter_that_came_to_stay_is_taken(updated):
    optimizer, params = updated
    params["c"] = np.ones(1)
    optimizer.update(params, {**GOOD, "c": np.ones(1)})
    assert params["c"][0] < 1
    del params["c"]
    optimizer.update(params, GOOD)
    params["W"] = params["W"].copy()
    before = snapshot(params)
    optimizer.update(params, GOOD)
    assert (params["W"] != before["W"]).all()


def test_a_parameter_that_changed_its_shape_or_dtype_is_refused():
    optimizer, params = xc.Adam(), {"W": np.ones(4)}
    optimizer.update(params, {"W": np.ones(4)})
    with pytest.raises(ValueError, match=r"'W' has the shape \(3,\), at earlier updates it had \(4,\)"):
        optimizer.update({"W": np.ones(3)}, {"W": np.ones(3)})
    with pytest.raises(ValueError, match=r"'W' is float32, at earlier updates it was float64"):
        optimizer.update({"W": np.ones(4, np.float32)}, {"W": np.ones(4)})
    optimizer.update(params, {"W": np.ones(4)})
    assert optimizer.iteration == 2


def test_no_parameters_are_no_error():
    optimizer = xc.Adam(global_clipnorm=1.0)
    optimizer.update({}, {})
    assert optimizer.iteration == 1


# ---- arguments -----------------------------------------------------------------------------------------------------------

RULES = [xc.SGD, xc.Adam, xc.AdamW, xc.RMSprop, xc.Adagrad]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rate", [0, -1.0, math.nan, math.inf])
def test_a_learning_rate_that_is_none_is_refused(rule, rate):
    with pytest.raises(ValueError, match=f"{rule.__name__}: learning_rate must be a positive number"):
        rule(learning_rate=rate)


@pytest.mark.parametrize("rate", ["0.1", None, True, [0.1], lambda: 0.1])
def test_a_learning_rate_that_is_no_number_is_refused(rate):
    with pytest.raises(TypeError, match="SGD: learning_rate must be a number"):
        xc.SGD(learning_rate=rate)


def test_the_learning_rate_can_be_set(device):
    params = {"W": xc.asarray(np.zeros(2), device=device)}
    optimizer = xc.SGD(0.5)
    for rate in (np.float32(0.25), 0, 1):
        optimizer.learning_rate = rate
        assert optimizer.learning_rate == rate
        assert type(optimizer.learning_rate) is float
        optimizer.update(params, {"W": xc.asarray(np.ones(2), device=device)}, device=device)
    np.testing.assert_array_equal(xc.to_numpy(params["W"]), -1.25)
    for rate in (-1, math.nan):
        with pytest.raises(ValueError, match="SGD: learning_rate must be at least 0 and finite"):
            optimizer.learning_rate = rate
    with pytest.raises(TypeError, match="SGD: learning_rate must be a number"):
        optimizer.learning_rate = "fast"
    assert optimizer.learning_rate == 1
    optimizer.learning_rate = 0.0
    assert xc.SGD.from_config(optimizer.get_config()).learning_rate == 0


@pytest.mark.parametrize(
    ("rule", "name"), [(xc.Adam, "beta_1"), (xc.Adam, "beta_2"), (xc.AdamW, "beta_1"), (xc.RMSprop, "rho")]
)
@pytest.mark.parametrize("value", [-0.1, 1, 1.5, math.nan])
def test_a_share_out_of_range_is_refused(rule, name, value):
    with pytest.raises(ValueError, match=f"{rule.__name__}: {name} must be at least 0 and less than 1"):
        rule(**{name: value})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: xc.SGD(momentum=1.1), ValueError, "SGD: momentum must be from 0 to 1, got 1.1"),
        (lambda: xc.RMSprop(momentum=-0.1), ValueError, "RMSprop: momentum must be from 0 to 1, got -0.1"),
        (lambda: xc.SGD(nesterov="yes"), TypeError, "SGD: nesterov must be True or False, got 'yes'"),
        (lambda: xc.Adam(amsgrad=1), TypeError, "Adam: amsgrad must be True or False, got 1"),
        (lambda: xc.RMSprop(centered=None), TypeError, "RMSprop: centered must be True or False"),
        (lambda: xc.Adam(epsilon=-1e-7), ValueError, "Adam: epsilon must be at least 0 and finite"),
        (lambda: xc.Adagrad(initial_accumulator_value=-1), ValueError, "initial_accumulator_value must be at least 0"),
        (lambda: xc.SGD(weight_decay=-0.1), ValueError, "SGD: weight_decay must be at least 0 and finite, got -0.1"),
        (lambda: xc.SGD(clipnorm=0), ValueError, "SGD: clipnorm must be a positive number, got 0"),
        (lambda: xc.Adam(clipvalue=-1), ValueError, "Adam: clipvalue must be a positive number"),
        (lambda: xc.Adam(global_clipnorm=math.inf), ValueError, "Adam: global_clipnorm must be a positive number"),
        (lambda: xc.Adam(clipnorm=1, clipvalue=2), ValueError,
         "Adam: only one of clipnorm, clipvalue, global_clipnorm can be given, got clipnorm=1.0 and clipvalue=2.0"),
        (lambda: xc.SGD(name=3), TypeError, "SGD: name must be a text, got 3"),
        (lambda: xc.SGD.from_config({"lr": 0.1}), ValueError, r"SGD.from_config: SGD has no lr, got \{'lr': 0.1\}"),
        (lambda: xc.SGD.from_config({"use_ema": True}), ValueError, "SGD.from_config: SGD has no use_ema"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "rule"),
    [("sgd", xc.SGD), ("adam", xc.Adam), ("adamw", xc.AdamW), ("rmsprop", xc.RMSprop), ("adagrad", xc.Adagrad),
     ("AdamW", xc.AdamW)],
)  # fmt: skip
def test_optimizers_have_names(name, rule):
    assert repr(optimizers.get(name)) == repr(rule())
    assert type(optimizers.get(name)) is rule
    assert type(optimizers.get({"class_name": rule.__name__, "config": {}})) is rule


def test_an_optimizer_is_what_it_is():
    for optimizer in (xc.SGD(), book.Adam()):
        assert optimizers.get(optimizer) is optimizer


def test_a_configuration_of_keras_is_taken():
    config = {
        "class_name": "Adam", "module": "keras.optimizers", "registered_name": None,
        "config": {
            "name": "adam", "weight_decay": None, "clipnorm": None, "global_clipnorm": 2.0, "clipvalue": None, "use_ema": False,
            "ema_momentum": 0.99, "ema_overwrite_frequency": None, "loss_scale_factor": None,
            "gradient_accumulation_steps": None,
            "beta_1": 0.5, "beta_2": 0.999, "epsilon": 1e-07, "amsgrad": False,
            "learning_rate": {
                "module": "keras.optimizers.schedules", "class_name": "CosineDecay", "registered_name": None,
                "config": {"initial_learning_rate": 0.1, "decay_steps": 10, "alpha": 0.0, "name": "CosineDecay",
                           "warmup_target": None, "warmup_steps": 0},
            },
        },
    }  # fmt: skip
    before = copy.deepcopy(config)
    optimizer = optimizers.get(config)
    assert config == before
    assert (type(optimizer), optimizer.beta_1, optimizer.global_clipnorm, optimizer.learning_rate) == (xc.Adam, 0.5, 2.0, 0.1)


@pytest.mark.parametrize(
    ("identifier", "error", "message"),
    [
        ("adma", ValueError, "compile: optimizer 'adma' is unknown; did you mean 'adam'"),
        ({"class_name": "RMSprob", "config": {}}, ValueError, "optimizer 'RMSprob' is unknown; did you mean 'rmsprop'"),
        (xc.Adam, TypeError, r"compile: optimizer must be a name .*; make one: Adam\(\)$"),
        (None, TypeError, "compile: optimizer must be a name such as 'adam', .* got None"),
        ({"class_name": "Adam", "config": 3}, ValueError, "compile: optimizer must have 'class_name' and 'config', got {"),
        ({"config": {}}, ValueError, "compile: optimizer must have 'class_name' and 'config', got {'config': {}}"),
        (3, TypeError, "compile: optimizer must be a name such as 'adam', .* got 3"),
    ],
)
def test_what_is_no_optimizer_is_refused(identifier, error, message):
    with pytest.raises(error, match=message):
        optimizers.get(identifier, op="compile")
