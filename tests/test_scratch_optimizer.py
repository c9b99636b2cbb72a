"""The book's optimizers against the published formulas, element by element in Python floats, and PyTorch's where they agree."""

import copy
import math

import numpy as np
import pytest

import xpconv as xc
from xpconv.kernels.numpy import elementwise
from xpconv.scratch import optimizer as book

EPSILON = 1e-7

OPTIMIZERS = {
    "SGD": lambda: book.SGD(lr=0.1),
    "Momentum": lambda: book.Momentum(lr=0.05, momentum=0.8),
    "Nesterov": lambda: book.Nesterov(lr=0.05, momentum=0.8),
    "AdaGrad": lambda: book.AdaGrad(lr=0.3),
    "RMSprop": lambda: book.RMSprop(lr=0.02, decay_rate=0.9),
    "Adam": lambda: book.Adam(lr=0.01, beta1=0.8, beta2=0.95),
}


# One parameter's path under each rule: plain floats, one gradient after the other. Nothing here comes from xpconv.


def sgd_path(w, gradients):
    for g in gradients:
        w -= 0.1 * g
        yield w


def momentum_path(w, gradients):
    v = 0.0
    for g in gradients:
        v = 0.8 * v - 0.05 * g
        w += v
        yield w


def nesterov_path(w, gradients):
    # Nesterov's own form: look ahead, take the gradient there, correct. What is stored is the point that looks ahead, so the
    # gradients given are those at it.
    v, behind = 0.0, w
    for g in gradients:
        v = 0.8 * v - 0.05 * g
        behind += v
        yield behind + 0.8 * v


def adagrad_path(w, gradients):
    total = 0.0
    for g in gradients:
        total += g * g
        w -= 0.3 * g / (math.sqrt(total) + EPSILON)
        yield w


def rmsprop_path(w, gradients):
    mean_square = 0.0
    for g in gradients:
        mean_square = 0.9 * mean_square + 0.1 * g * g
        w -= 0.02 * g / (math.sqrt(mean_square) + EPSILON)
        yield w


def adam_path(w, gradients):
    # The paper's "efficient" form (the end of its section 2), where epsilon stands outside the correction.
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = 0.8 * m + (1 - 0.8) * g
        v = 0.95 * v + (1 - 0.95) * g * g
        w -= 0.01 * math.sqrt(1 - 0.95**t) / (1 - 0.8**t) * m / (math.sqrt(v) + EPSILON)
        yield w


PATHS = {
    "SGD": sgd_path,
    "Momentum": momentum_path,
    "Nesterov": nesterov_path,
    "AdaGrad": adagrad_path,
    "RMSprop": rmsprop_path,
    "Adam": adam_path,
}

RTOL = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-14}


def gradients_of(shape, dtype, steps=6):
    rng = np.random.default_rng(3)
    gradients = rng.standard_normal((steps, *shape)) * 10.0 ** rng.integers(-3, 3, shape)
    gradients.reshape(steps, -1)[:, 0] = 0  # a weight that never gets a gradient
    return gradients.astype(dtype)


def numpy_params(params):
    return {name: xc.to_numpy(array) for name, array in params.items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_follows_the_published_formula(name, device, dtype):
    start = np.random.default_rng(4).standard_normal((3, 5)).astype(dtype)
    gradients = gradients_of((3, 5), dtype)
    params = {"W": xc.asarray(start.copy(), device=device)}
    optimizer = OPTIMIZERS[name]()
    paths = [PATHS[name](float(w), map(float, gradients[:, i, j])) for (i, j), w in np.ndenumerate(start)]
    for gradient in gradients:
        optimizer.update(params, {"W": xc.asarray(gradient, device=device)}, device=device)
        expected = np.array([next(path) for path in paths]).reshape(3, 5)
        np.testing.assert_allclose(xc.to_numpy(params["W"]), expected, rtol=RTOL[dtype], atol=RTOL[dtype])
        assert params["W"].dtype == dtype
    assert optimizer.iteration == len(gradients)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_agrees_with_pytorch(name):
    torch = pytest.importorskip("torch")
    rules = {
        "SGD": lambda w: torch.optim.SGD([w], lr=0.1),
        "Momentum": lambda w: torch.optim.SGD([w], lr=0.05, momentum=0.8),
        "Nesterov": lambda w: torch.optim.SGD([w], lr=0.05, momentum=0.8, nesterov=True),
        "AdaGrad": lambda w: torch.optim.Adagrad([w], lr=0.3, eps=EPSILON),
        "RMSprop": lambda w: torch.optim.RMSprop([w], lr=0.02, alpha=0.9, eps=EPSILON),
        "Adam": lambda w: torch.optim.Adam([w], lr=0.01, betas=(0.8, 0.95), eps=EPSILON),
    }
    start = np.random.default_rng(5).standard_normal(40)
    gradients = gradients_of((40,), np.float64, steps=12)
    params = {"W": start.copy()}
    optimizer = OPTIMIZERS[name]()
    theirs = torch.tensor(start.copy(), requires_grad=True)
    rule = rules[name](theirs)
    for step, gradient in enumerate(gradients, start=1):
        if name == "Adam":  # PyTorch adds epsilon after the correction of v, the book before it
            rule.param_groups[0]["eps"] = EPSILON / math.sqrt(1 - 0.95**step)
        theirs.grad = torch.tensor(gradient)
        rule.step()
        optimizer.update(params, {"W": gradient})
        np.testing.assert_allclose(params["W"], theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_larger_than_a_block_is_updated_as_its_parts_are(name, device, dtype):
    size = 2 * elementwise.BLOCK + 17
    rng = np.random.default_rng(6)
    start, gradients = rng.standard_normal(size).astype(dtype), rng.standard_normal((3, size)).astype(dtype)
    whole = {"W": xc.asarray(start.copy(), device=device)}
    places = [0, elementwise.BLOCK - 1, elementwise.BLOCK, 2 * elementwise.BLOCK, size - 1]
    few = {"W": xc.asarray(start[places], device=device)}
    optimizers = OPTIMIZERS[name](), OPTIMIZERS[name]()
    for gradient in gradients:
        optimizers[0].update(whole, {"W": xc.asarray(gradient, device=device)}, device=device)
        optimizers[1].update(few, {"W": xc.asarray(gradient[places], device=device)}, device=device)
    np.testing.assert_array_equal(xc.to_numpy(whole["W"])[places], xc.to_numpy(few["W"]))


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
    OPTIMIZERS[name]().update(params, dict.fromkeys(params, gradient), device=device)
    for key, array in params.items():
        assert array is before[key]
        assert array.dtype == dtype
        np.testing.assert_array_equal(xc.to_numpy(array), xc.to_numpy(params["plain"]))
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
def test_state_is_taken_over(name, device, dtype):
    gradients = [{"W": xc.asarray(gradient, device=device)} for gradient in gradients_of((2, 3), dtype, steps=8)]
    params = {"W": xc.asarray(np.ones((2, 3), dtype), device=device)}
    optimizer = OPTIMIZERS[name]()
    for gradient in gradients[:4]:
        optimizer.update(params, gradient, device=device)
    state, continued = optimizer.state_dict(), {"W": params["W"].copy()}
    frozen = copy.deepcopy(numpy_params(state))
    for gradient in gradients[4:]:
        optimizer.update(params, gradient, device=device)
    np.testing.assert_equal(numpy_params(state), frozen)  # copies, not the arrays that updates go on to change

    other = OPTIMIZERS[name]()
    other.load_state_dict(state)
    for gradient in gradients[4:]:
        other.update(continued, gradient, device=device)
    np.testing.assert_equal(numpy_params(state), frozen)
    np.testing.assert_array_equal(xc.to_numpy(continued["W"]), xc.to_numpy(params["W"]))
    assert other.iteration == optimizer.iteration == 8
    np.testing.assert_equal(numpy_params(other.state_dict()), numpy_params(optimizer.state_dict()))


@pytest.mark.parametrize("name", ["Momentum", "Adam"])
def test_the_state_of_another_optimizer_is_refused(name):
    source = book.AdaGrad()
    source.update({"W": np.ones(2)}, {"W": np.ones(2)})
    optimizer = OPTIMIZERS[name]()
    optimizer.update({"W": np.ones(2)}, {"W": np.ones(2)})
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=f"{name}.load_state_dict"):
        optimizer.load_state_dict(source.state_dict())
    with pytest.raises(ValueError, match=f"{name}.load_state_dict"):
        optimizer.load_state_dict({})
    np.testing.assert_equal(optimizer.state_dict(), before)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"W": np.ones(3)}, r"same names; without a gradient: 'b'"),
        ({"W": np.ones(3), "b": np.ones(2), "c": np.ones(1)}, r"same names; without a parameter: 'c'"),
        ({"W": np.ones(3), "b": np.ones(3)}, r"grads\['b'\]\.shape must be \(2,\), got \(3,\)"),
        ({"W": np.ones((3, 1)), "b": np.ones(2)}, r"grads\['W'\]\.shape must be \(3,\), got \(3, 1\)"),
    ],
)
def test_gradients_that_do_not_fit_change_nothing(name, grads, message):
    params = {"W": np.ones(3), "b": np.ones(2)}
    optimizer = OPTIMIZERS[name]()
    with pytest.raises(ValueError, match=f"{name}.update: .*{message}"):
        optimizer.update(params, grads)
    np.testing.assert_equal(params, {"W": np.ones(3), "b": np.ones(2)})
    assert optimizer.iteration == 0


def test_a_parameter_that_changed_its_shape_is_refused():
    optimizer = book.Adam()
    optimizer.update({"W": np.ones(3)}, {"W": np.ones(3)})
    with pytest.raises(ValueError, match=r"'W' has the shape \(4,\)"):
        optimizer.update({"W": np.ones(4)}, {"W": np.ones(4)})


@pytest.mark.parametrize("optimizer", [book.SGD, book.Momentum, book.Nesterov, book.AdaGrad, book.RMSprop, book.Adam])
@pytest.mark.parametrize("lr", [0, -1.0, float("nan"), float("inf")])
def test_a_learning_rate_that_is_none_is_refused(optimizer, lr):
    with pytest.raises(ValueError, match=f"{optimizer.__name__}: lr must be a positive number"):
        optimizer(lr=lr)


@pytest.mark.parametrize("lr", ["0.1", None, True, [0.1]])
def test_a_learning_rate_that_is_no_number_is_refused(lr):
    with pytest.raises(TypeError, match="SGD: lr must be a number"):
        book.SGD(lr=lr)


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (book.Momentum, "momentum"),
        (book.Nesterov, "momentum"),
        (book.RMSprop, "decay_rate"),
        (book.Adam, "beta1"),
        (book.Adam, "beta2"),
    ],
)
@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(optimizer, name, value):
    with pytest.raises(ValueError, match=f"{optimizer.__name__}: {name} must be at least 0 and less than 1"):
        optimizer(**{name: value})


def test_defaults_are_those_of_the_book():
    assert repr(book.SGD()) == "SGD(lr=0.01)"
    assert repr(book.Momentum()) == "Momentum(lr=0.01, momentum=0.9)"
    assert repr(book.Nesterov()) == "Nesterov(lr=0.01, momentum=0.9)"
    assert repr(book.AdaGrad()) == "AdaGrad(lr=0.01)"
    assert repr(book.RMSprop()) == "RMSprop(lr=0.01, decay_rate=0.99)"
    assert repr(book.Adam()) == "Adam(lr=0.001, beta1=0.9, beta2=0.999)"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lr_can_be_changed_between_updates(name):
    changed, other = OPTIMIZERS[name](), OPTIMIZERS[name]()
    changed.lr = other.lr / 2
    assert changed.hyperparameters() == {**other.hyperparameters(), "lr": other.lr / 2}
    params, others = {"W": np.ones(3)}, {"W": np.ones(3)}
    gradient = {"W": np.array([0.5, -2.0, 3.0])}
    changed.update(params, gradient)
    other.update(others, gradient)
    np.testing.assert_allclose(params["W"] - 1, (others["W"] - 1) / 2, rtol=1e-12)
    with pytest.raises(ValueError, match=f"{name}: lr must be at least 0 and finite, got -1"):
        changed.lr = -1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_made_again_from_its_configuration(name):
    optimizer = OPTIMIZERS[name]()
    again = type(optimizer).from_config(optimizer.get_config())
    assert repr(again) == repr(optimizer)
    assert "lr=" in repr(again)


def test_plain_numbers_are_parameters_too():
    # As the book compares its optimizers on f(x, y) = x**2 / 20 + y**2.
    numbers, arrays = {"x": -7.0, "y": np.float64(2.0)}, {"x": np.array(-7.0), "y": np.array(2.0)}
    one, other = book.Adam(lr=0.3), book.Adam(lr=0.3)
    for _ in range(5):
        one.update(numbers, {"x": numbers["x"] / 10, "y": 2 * numbers["y"]})
        other.update(arrays, {"x": arrays["x"] / 10, "y": 2 * arrays["y"]})
    assert all(type(value) is float for value in numbers.values())
    assert numbers == {name: float(value) for name, value in arrays.items()}
    assert numbers["x"] != -7.0


@pytest.mark.parametrize(
    ("params", "grads", "error"),
    [
        ({"b": np.ones(2)}, {"b": np.ones(2, complex)}, TypeError),
        ({"b": np.ones(2)}, {"b": np.ma.masked_array(np.ones(2))}, TypeError),
        ({"b": np.ones(2, int)}, {"b": np.ones(2)}, ValueError),
        ({"b": np.broadcast_to(1.0, 2)}, {"b": np.ones(2)}, ValueError),
    ],
)
def test_what_cannot_be_updated_leaves_all_as_it_was(params, grads, error):
    params, grads = {"a": np.ones(2), **params}, {"a": np.ones(2), **grads}
    optimizer = book.Adam()
    with pytest.raises(error, match=r"^Adam.update: (params|grads)\['b'\]"):
        optimizer.update(params, grads)
    assert optimizer.iteration == 0
    np.testing.assert_array_equal(params["a"], 1)


def test_gradients_in_lists_are_taken():
    params = {"a": np.ones(2)}
    book.SGD(1.0).update(params, {"a": [1.0, 0.5]})
    np.testing.assert_array_equal(params["a"], [0, 0.5])
