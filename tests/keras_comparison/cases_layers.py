"""Every layer, on the same weights and inputs as Keras': outputs, shapes, weights, and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from comparison import OF_EVERY_LAYER, ROUGH, TOLERANCE, Case, Checks, keras_gradients, keras_in

import xpconv as xc

COMPARED = "outputs, shapes, weights, gradients of inputs and weights, arguments"

IMAGES = (2, 7, 8, 3)
CHANNELS_FIRST = (2, 3, 7, 8)
ROWS = (4, 5)

# TensorFlow's CPU does not convolve channels_first: Keras is given the images in its other order, and the same weights.
TURNED = frozenset({"Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D"})


@dataclass(frozen=True)
class Setting:
    """One way to make and call a layer.

    Attributes:
        arguments: Of the constructor.
        shape: Of the input; a list for several.
        training: Whether it is called as in a training.
        ties: Whether the inputs are small integers, among which there are equal ones.
        rough: Why Keras' float64 is not exact, where it is not.
    """

    arguments: Mapping[str, Any]
    shape: Any
    training: bool = False
    ties: bool = False
    rough: str = ""

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"({given}) on {self.shape}" + (" in training" if self.training else "") + (" with ties" if self.ties else "")


def _inputs(setting: Setting, dtype: str, rng: np.random.Generator) -> list[Any]:
    shapes = setting.shape if isinstance(setting.shape, list) else [setting.shape]
    if setting.ties:
        return [rng.integers(-2, 3, shape).astype(dtype) for shape in shapes]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def _open(shape: Any) -> Any:
    return [_open(entry) for entry in shape] if isinstance(shape, list) else (None, *shape[1:])


def _channels_last(shape: Any) -> Any:
    return (shape[0], *shape[2:], shape[1])


def compare_setting(checks: Checks, name: str, setting: Setting, dtype: str) -> None:
    """Make both layers, give them the same weights and inputs, and compare all that comes out."""
    rng = np.random.default_rng(len(name))
    what = f"{name}{setting}"
    times = ROUGH if setting.rough and dtype == "float64" else 1
    with keras_in(dtype) as keras:
        ours = getattr(xc.layers, name)(**setting.arguments, dtype=dtype, device=checks.device)
        theirs = getattr(keras.layers, name)(**setting.arguments, dtype=dtype)
        shape_expected = tuple(theirs.compute_output_shape(_open(setting.shape)))
        turned = name in TURNED and setting.arguments.get("data_format") == "channels_first"
        if turned:
            theirs = getattr(keras.layers, name)(**{**setting.arguments, "data_format": "channels_last"}, dtype=dtype)
        theirs.build(_channels_last(setting.shape) if turned else setting.shape)
        ours.build(setting.shape)
        checks.same(
            f"{what}: weights",
            [
                (weight.name, tuple(weight.array.shape), str(weight.array.dtype), weight.trainable and ours.trainable)
                for weight in ours._own_weights
            ],
            [(one.name, tuple(one.shape), one.dtype, one.trainable) for one in theirs.weights if "seed" not in one.path],
        )
        checks.same(
            f"{what}: output shape",
            tuple(ours.compute_output_shape(_open(setting.shape))),
            shape_expected,
        )
        weights = [rng.normal(size=array.shape).astype(dtype) for array in ours.get_weights()]
        weights = [
            np.abs(array) + np.asarray(0.5, dtype) if "variance" in weight.name else array
            for array, weight in zip(weights, ours._own_weights, strict=True)
        ]
        ours.set_weights(weights)
        if weights:
            theirs.set_weights(weights)
        inputs = _inputs(setting, dtype, rng)
        several = isinstance(setting.shape, list)
        y = ours(inputs if several else inputs[0], training=setting.training)
        dy = rng.normal(size=y.shape).astype(dtype)
        dx = ours.backward(xc.asarray(dy, device=checks.device))

        def called(*tensors: Any) -> Any:
            if turned:
                tensor = keras.ops.transpose(tensors[0], (0, 2, 3, 1))
                return keras.ops.transpose(theirs(tensor, training=setting.training), (0, 3, 1, 2))
            return theirs(list(tensors) if several else tensors[0], training=setting.training)

        theirs_y, theirs_dx, theirs_gradients = keras_gradients(called, inputs, theirs.trainable_variables, dy)
    checks.close(f"{what}: output", xc.to_numpy(y), theirs_y, dtype, times=times)
    for position, (mine, other) in enumerate(zip(dx if several else [dx], theirs_dx, strict=True)):
        checks.close(f"{what}: gradient of input {position}", xc.to_numpy(mine), other, dtype, times=times)
    if times > 1 and setting.rough not in checks.differences:
        checks.differs(setting.rough, checks.largest.get("float64", 0) > TOLERANCE["float64"])
    if len(ours.gradients) != len(theirs_gradients):
        checks.unexpected.append(f"{what}: {len(ours.gradients)} gradients of weights, Keras {len(theirs_gradients)}")
        return
    for weight, mine, other in zip(ours.trained(), ours.gradients, theirs_gradients, strict=True):
        checks.close(f"{what}: gradient of {weight.name}", xc.to_numpy(mine), other, dtype)
    for weight, mine, other in zip(ours._own_weights, ours.get_weights(), theirs.get_weights(), strict=False):
        checks.close(f"{what}: {weight.name} after the call", mine, other, dtype)


def compare_signature(checks: Checks, name: str, **known: Any) -> None:
    """Compare the constructor's arguments."""
    with keras_in("float32") as keras:
        checks.signature(
            getattr(xc.layers, name).__init__, getattr(keras.layers, name).__init__, everywhere=OF_EVERY_LAYER, **known
        )


def layer(
    *names: str,
    settings: list[Setting],
    more: Callable[[Checks], None] | None = None,
    compared: str = COMPARED,
    **known: Any,
) -> Case:
    """The case of a layer.

    Args:
        names: Its name, and others for it.
        settings: How it is made and called.
        more: Compares what the settings do not.
        compared: What is compared.
        known: What is known of its arguments; see :meth:`comparison.Checks.signature`.
    """

    def run(checks: Checks) -> None:
        compare_signature(checks, names[0], **known)
        for setting in settings:
            for dtype in ("float32", "float64"):
                compare_setting(checks, names[0], setting, dtype)
        checks.settings = len(settings)
        for alias in names[1:]:
            checks.same(f"{alias} is {names[0]}", getattr(xc.layers, alias) is getattr(xc.layers, names[0]), True)
        if more is not None:
            more(checks)

    return Case("layer", names, run, compared)


# ---- differences that are meant ------------------------------------------------------------------------------------------


def _dropped(checks: Checks) -> None:
    # The numbers are of another generator, what is done with them is the same: a share is set to zero, the rest scaled.
    for dtype in ("float32", "float64"):
        with keras_in(dtype) as keras:
            x = np.random.default_rng(0).normal(size=(200, 50)).astype(dtype)
            for arguments in ({"rate": 0.3}, {"rate": 0.5, "noise_shape": (None, 1)}, {"rate": 0.0}):
                ours = xc.layers.Dropout(**arguments, seed=1, dtype=dtype, device=checks.device)
                y = xc.to_numpy(ours(x, training=True))
                theirs = np.asarray(keras.layers.Dropout(**arguments, seed=1, dtype=dtype)(x, training=True))
                expected = x / (1 - arguments["rate"])
                for whose, found in (("xpconv", y), ("Keras", theirs)):
                    kept = found != 0
                    checks.close(f"Dropout({arguments}): kept by {whose}", found[kept], expected.astype(dtype)[kept], dtype)
                    share = 1 - kept.mean()
                    if not abs(share - arguments["rate"]) < 0.12:
                        checks.unexpected.append(f"Dropout({arguments}): {whose} dropped {share:.0%}")
                    if "noise_shape" in arguments and not ((kept == kept[:, :1]).all()):
                        checks.unexpected.append(f"Dropout({arguments}): {whose} dropped single values of a row")
                dy = np.ones_like(x)
                checks.close(
                    "Dropout: gradient",
                    xc.to_numpy(ours.backward(dy)),
                    np.where(y != 0, dy / (1 - arguments["rate"]), 0).astype(dtype),
                    dtype,
                )
                if arguments == {"rate": 0.3}:
                    is_other = not np.array_equal(y != 0, theirs != 0)
                    if dtype == "float32":
                        checks.differs(
                            "the random numbers are another generator's, so another set of values is dropped", is_other
                        )
    checks.settings += 3


def _own_layer(checks: Checks) -> None:
    # A layer of one's own: Keras differentiates call, xpconv asks for compute and differentiate.
    with keras_in("float64") as keras:

        class Ours(xc.layers.Layer):
            def build(self, input_shape: Any) -> None:
                self.add_weight("scale", input_shape[-1:], "ones")

            def compute(self, x: Any, run: Any) -> Any:
                return x * self.scale, x

            def differentiate(self, x: Any, dy: Any, run: Any, input_gradient: bool) -> Any:
                return dy * self.scale, [(dy * x).sum(axis=0)]

        class Theirs(keras.layers.Layer):
            def build(self, input_shape: Any) -> None:
                self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones", name="scale")

            def call(self, x: Any) -> Any:
                return x * self.scale

        x = np.random.default_rng(0).normal(size=ROWS)
        ours, theirs = Ours(dtype="float64", device=checks.device), Theirs(dtype="float64")
        y = ours(x)
        expected, (dx,), gradients = keras_gradients(lambda tensor: theirs(tensor), [x], [])
        checks.close("output", xc.to_numpy(y), expected, "float64")
        checks.close("gradient of the input", xc.to_numpy(ours.backward(np.ones_like(x))), dx, "float64")
        _, _, gradients = keras_gradients(lambda tensor: theirs(tensor), [x], theirs.trainable_variables)
        checks.close("gradient of the weight", xc.to_numpy(ours.gradients[0]), gradients[0], "float64")
        checks.differs(
            "a layer of one's own that computes something itself overrides `compute` and writes its way back in "
            "`differentiate`: arrays are plain, so nothing differentiates `call`; a layer made of layers overrides "
            "`call`, as in Keras",
            _refuses_plain_call(x),
        )
    checks.settings = 1


def _refuses_plain_call(x: Any) -> bool:
    class Doubled(xc.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    doubled = Doubled(dtype="float64")
    doubled(x, training=True)
    try:
        doubled.backward(x)
    except xc.errors.BrokenChainError:
        return True
    return False


def _global_ties(checks: Checks) -> None:
    # Of equal pixels, one is the largest, or all are.
    x = np.zeros((1, 2, 2, 1), np.float32)
    dy = np.ones((1, 1), np.float32)
    with keras_in("float32") as keras:
        ours = xc.layers.GlobalMaxPooling2D(device=checks.device)
        ours(x)
        dx = xc.to_numpy(ours.backward(dy)).ravel().tolist()
        _, (theirs,), _ = keras_gradients(keras.layers.GlobalMaxPooling2D(), [x], [], dy)
    checks.differs(
        "of several equal pixels that are the largest, the first gets the gradient, as in `MaxPooling2D`; TensorFlow shares it "
        "among them, here alone",
        dx == [1, 0, 0, 0] and theirs.ravel().tolist() == [0.25] * 4,
    )


def _uneven_strides(checks: Checks) -> None:
    # TensorFlow's own kernels refuse what xpconv, and oneDNN in float32, compute.
    arguments = {"kernel_size": 2, "strides": (2, 1), "dtype": "float64"}
    x = np.zeros(IMAGES)
    with keras_in("float64") as keras:
        try:
            keras.layers.DepthwiseConv2D(**arguments)(x)
            refused = False
        except Exception as error:
            refused = "equal length strides" in str(error)
    shape = xc.layers.DepthwiseConv2D(**arguments, device=checks.device)(x).shape
    checks.differs(
        "strides that differ between the axes are computed; TensorFlow refuses them", refused and shape == (2, 3, 7, 3)
    )


# ---- the cases -----------------------------------------------------------------------------------------------------------


def _images(*arguments: Mapping[str, Any], shape: Any = IMAGES, first: bool = True) -> list[Setting]:
    found = [Setting(given, shape) for given in arguments]
    if first:
        found.append(Setting({**arguments[0], "data_format": "channels_first"}, CHANNELS_FIRST))
    return found


def _merged(*arguments: Mapping[str, Any], count: int = 3) -> list[Setting]:
    return [
        *(Setting(given, [IMAGES] * count) for given in arguments),
        Setting(arguments[0], [ROWS] * 2),
        Setting(arguments[0], [ROWS] * 2, ties=True),
    ]


POOLS = (
    {"pool_size": 2},
    {"pool_size": 3, "strides": 2},
    {"pool_size": (2, 3), "strides": 2, "padding": "same"},
    {"pool_size": 3, "strides": 1, "padding": "same"},
)

CASES = [
    Case("layer", ("Layer",), _own_layer, "a layer with a weight: output, gradients"),
    layer(
        "Dense",
        settings=[
            Setting({"units": 3}, ROWS),
            Setting({"units": 3, "activation": "relu"}, ROWS),
            Setting({"units": 4, "activation": "softmax"}, ROWS),
            Setting({"units": 4, "activation": "tanh", "use_bias": False}, ROWS),
            Setting({"units": 3, "activation": "sigmoid"}, (2, 3, 5)),
            Setting({"units": 3}, IMAGES),
        ],
    ),
    layer(
        "Conv2D",
        settings=_images(
            {"filters": 4, "kernel_size": 3},
            {"filters": 4, "kernel_size": (2, 3), "padding": "same", "activation": "relu"},
            {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"},
            {"filters": 4, "kernel_size": 2, "strides": (3, 2), "use_bias": False},
            {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "padding": "same", "activation": "tanh"},
            {"filters": 6, "kernel_size": 3, "groups": 3},
        ),
    ),
    layer(
        "Conv2DTranspose",
        settings=_images(
            {"filters": 4, "kernel_size": 3},
            {"filters": 4, "kernel_size": 3, "strides": 2},
            {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"},
            {"filters": 4, "kernel_size": (2, 3), "strides": (3, 2), "padding": "same"},
            {"filters": 4, "kernel_size": 2, "strides": 3, "use_bias": False},
            {"filters": 4, "kernel_size": 3, "strides": 2, "output_padding": 1},
            {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 0},
        ),
    ),
    layer(
        "DepthwiseConv2D",
        settings=_images(
            {"kernel_size": 3},
            {"kernel_size": (2, 3), "depth_multiplier": 2, "padding": "same", "activation": "relu"},
            {"kernel_size": 3, "strides": 2, "padding": "same"},
            {"kernel_size": 2, "dilation_rate": 2, "use_bias": False},
            {"kernel_size": 2, "strides": 2, "dilation_rate": 2},
        ),
        more=_uneven_strides,
    ),
    layer(
        "SeparableConv2D",
        settings=_images(
            {"filters": 4, "kernel_size": 3},
            {"filters": 4, "kernel_size": 3, "depth_multiplier": 2, "padding": "same", "activation": "relu"},
            {"filters": 4, "kernel_size": 3, "strides": 2, "use_bias": False},
            {"filters": 4, "kernel_size": 2, "dilation_rate": 2},
        ),
    ),
    layer("ZeroPadding2D", settings=_images({}, {"padding": 2}, {"padding": (1, 2)}, {"padding": ((1, 0), (2, 3))})),
    layer("Cropping2D", settings=_images({"cropping": 1}, {"cropping": (1, 2)}, {"cropping": ((1, 0), (2, 3))})),
    layer(
        "UpSampling2D",
        settings=[
            *_images({}, {"size": (2, 3)}),
            Setting({"size": 2, "interpolation": "bilinear"}, IMAGES, rough="TensorFlow resizes in float32, in float64 too"),
        ],
    ),
    layer(
        "MaxPooling2D",
        "MaxPool2D",
        settings=[*_images({}, *POOLS), *(Setting(given, IMAGES, ties=True) for given in POOLS)],
    ),
    layer(
        "AveragePooling2D",
        "AvgPool2D",
        settings=_images(*POOLS),
        defaults={"pool_size": "as `MaxPooling2D` in Keras, too"},
    ),
    layer("GlobalMaxPooling2D", "GlobalMaxPool2D", settings=_images({}, {"keepdims": True}), more=_global_ties),
    layer("GlobalAveragePooling2D", "GlobalAvgPool2D", settings=_images({}, {"keepdims": True})),
    layer("AdaptiveAveragePooling2D", settings=_images({"output_size": 3}, {"output_size": (2, 5)}, {"output_size": (7, 8)})),
    layer("AdaptiveMaxPooling2D", settings=_images({"output_size": 3}, {"output_size": (2, 5)}, {"output_size": (7, 8)})),
    layer(
        "BatchNormalization",
        settings=[
            Setting(given, shape, training)
            for given, shape in (
                ({}, IMAGES),
                ({"axis": 1, "momentum": 0.7}, CHANNELS_FIRST),
                ({"center": False, "epsilon": 1e-5}, ROWS),
                ({"scale": False}, (6, 4, 5)),
                ({"trainable": False}, ROWS),
            )
            for training in (False, True)
        ],
        left_out={
            "renorm": "no batch renormalization",
            "renorm_clipping": "as `renorm`",
            "renorm_momentum": "as `renorm`",
            "synchronized": "a model computes on one device",
        },
    ),
    layer(
        "LayerNormalization",
        settings=[
            Setting({}, ROWS),
            Setting({}, IMAGES),
            Setting({"axis": (1, 2, 3), "epsilon": 1e-5}, IMAGES),
            Setting({"center": False}, (2, 3, 5)),
            Setting({"axis": 1, "scale": False}, (2, 3, 5)),
        ],
    ),
    layer("Activation", settings=[Setting({"activation": name}, IMAGES) for name in ("relu", "softmax", "mish", "linear")]),
    layer(
        "ReLU",
        settings=[
            Setting({}, IMAGES),
            Setting({"max_value": 1.0, "negative_slope": 0.1}, IMAGES),
            Setting({"threshold": 0.5}, IMAGES),
            Setting({}, IMAGES, ties=True),
        ],
    ),
    layer(
        "LeakyReLU",
        settings=[
            Setting({"negative_slope": 0.25}, IMAGES),
            Setting({}, ROWS, rough="TensorFlow keeps the slope in float32, in float64 too"),
            Setting({"negative_slope": 0.25}, ROWS, ties=True),
        ],
    ),
    layer("ELU", settings=[Setting({}, IMAGES), Setting({"alpha": 0.5}, ROWS), Setting({}, ROWS, ties=True)]),
    layer("Softmax", settings=[Setting({}, IMAGES), Setting({"axis": 1}, IMAGES), Setting({"axis": (1, 2)}, IMAGES)]),
    layer("Flatten", settings=[*_images({}), Setting({}, ROWS), Setting({}, (4,))]),
    layer("Reshape", settings=[Setting({"target_shape": shape}, (2, 6, 4)) for shape in ((24,), (-1, 3), (2, 3, 4))]),
    layer(
        "Dropout", settings=[Setting({"rate": 0.4}, IMAGES)], more=_dropped, compared=COMPARED + ", the share that is dropped"
    ),
    *(layer(name, settings=_merged({})) for name in ("Add", "Multiply", "Average", "Maximum", "Minimum")),
    layer("Subtract", settings=_merged({}, count=2)),
    layer(
        "Concatenate",
        settings=[
            Setting({}, [IMAGES, (2, 7, 8, 1)]),
            Setting({"axis": 1}, [IMAGES, (2, 2, 8, 3), IMAGES]),
            Setting({"axis": -2}, [(2, 3, 4), (2, 1, 4)]),
        ],
    ),
]
