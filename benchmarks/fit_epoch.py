"""How long an epoch of ``fit`` takes: a small convolutional network on Fashion-MNIST, xpconv beside Keras on the same cores.

Each side is a process of its own, started once, with the same number of threads. In each round both train one epoch, one after
the other, in an order that changes; only times of one round are compared. The first epoch of each, which compiles, is not
counted. Keras may live in a Python of its own:

    python benchmarks/fit_epoch.py --data DIR --keras-python .venv-tf/bin/python --pages docs/keras.md README.md
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 32
MARKER = "fit"


# ---- in the processes that train: nothing is imported but the one library and NumPy ------------------------------------------


def serve(side: str, device: str, threads: int, folder: str) -> None:
    """Train an epoch for every line on standard input, and answer with its seconds, loss and accuracy."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    x, y = np.load(Path(folder, "x.npy")), np.load(Path(folder, "y.npy"))
    make = {"xpconv": xpconv_model, "keras": keras_model}[side]
    model, versions = make(device, threads)
    for _ in sys.stdin:
        started = time.perf_counter()
        history = model.fit(x, y, batch_size=BATCH_SIZE, epochs=1, verbose=0).history
        seconds = time.perf_counter() - started
        answers.write(json.dumps({"seconds": seconds, "loss": history["loss"][0], "versions": versions}) + "\n")
        answers.flush()


def network(api: Any, **options: Any) -> Any:
    """The second network of the Fashion-MNIST notebook, in the words that xpconv and Keras have in common."""
    layers = api.layers
    row = [
        layers.Conv2D(30, (2, 2), activation="relu"),
        layers.MaxPool2D(),
        layers.Conv2D(30, (2, 2), activation="relu"),
        layers.MaxPool2D(),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ]
    model = api.Sequential(row, **options)
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def xpconv_model(device: str, threads: int) -> tuple[Any, str]:
    """The network on a device of xpconv."""
    import xpconv as xc

    return network(xc, device=device, seed=0), f"xpconv {xc.__version__} on {device}"


def keras_model(device: str, threads: int) -> tuple[Any, str]:
    """The network in Keras on TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(0)
    return network(keras), f"Keras {keras.__version__} on TensorFlow {tensorflow.__version__}"


# ---- in the process that measures --------------------------------------------------------------------------------------------


class Trainer:
    """A process that trains an epoch when it is asked to."""

    def __init__(self, side: str, device: str, threads: int, folder: str, python: str) -> None:
        from xpconv.bench.processes import REMOVED_VARIABLES, THREAD_VARIABLES

        environment = {name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES}
        environment |= {**dict.fromkeys(THREAD_VARIABLES, str(threads)), "CUDA_VISIBLE_DEVICES": ""}
        if side == "keras":
            environment.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(  # noqa: S603 - this very file, in the Python that the user named
            [python, __file__, "--serve", side, "--device", device, "--threads", str(threads), "--folder", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def epoch(self) -> dict[str, Any]:
        """Train an epoch."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write("epoch\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended: {' '.join(map(str, self.process.args))}")  # type: ignore[union-attr]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()


def measure(options: argparse.Namespace) -> list[str]:
    """Let the sides take turns; the lines of the table."""
    import xpconv as xc
    from xpconv.bench.quiet import Patience

    (x, t), _ = xc.datasets.load_fashion_mnist(options.data)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        np.save(Path(folder, "x.npy"), x.reshape(-1, 28, 28, 1)[: options.images])
        np.save(Path(folder, "y.npy"), xc.to_categorical(t)[: options.images])
        sides = {device: Trainer("xpconv", device, options.threads, folder, sys.executable) for device in options.devices}
        sides["keras"] = Trainer("keras", "", options.threads, folder, options.keras_python)
        for side in sides.values():
            stack.enter_context(side)
        warm = {name: side.epoch() for name, side in sides.items()}
        patience = Patience(options.patience)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        losses = {name: [first["loss"]] for name, first in warm.items()}
        names = list(sides)
        for number in range(options.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                patience.wait([os.getpid(), *(side.process.pid for side in sides.values())])
                answer = sides[name].epoch()
                seconds[name].append(answer["seconds"])
                losses[name].append(answer["loss"])
            print(
                f"round {number + 1}: " + ", ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items()), flush=True
            )

    images = min(options.images, len(x))
    what = f"An epoch of {images:,} images in batches of {BATCH_SIZE} on {options.threads} threads"
    lines = [
        f"{what}, median of {options.rounds} rounds:",
        "",
        "| | seconds an epoch | images/s | Keras' time ÷ this | mean loss of the first epoch, of the last |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name, times in seconds.items():
        ratios = sorted(other / own for own, other in zip(times, seconds["keras"], strict=True))
        median = statistics.median(times)
        ratio = "1" if name == "keras" else f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        told = f"{losses[name][0]:.3f}, {losses[name][-1]:.3f}"
        lines.append(f"| {warm[name]['versions']} | {median:.2f} | {images / median:,.0f} | {ratio} | {told} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Time an epoch of fit, xpconv beside Keras.")
    parser.add_argument("--data", default="full", help="folder with the four files of Fashion-MNIST (default: %(default)s)")
    parser.add_argument("--devices", nargs="+", default=["numba", "numpy"], help="devices of xpconv (default: numba numpy)")
    parser.add_argument("--keras-python", default=sys.executable, help="a Python that has Keras and TensorFlow")
    parser.add_argument("--images", type=int, default=60_000, help="images of an epoch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="epochs that count (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads (default: all cores)")
    parser.add_argument(
        "--patience", type=float, default=120.0, help="seconds to wait for a quiet machine (default: %(default)s)"
    )
    into = f"texts to write the table into, between <!-- {MARKER} --> and <!-- /{MARKER} -->"
    parser.add_argument("--pages", nargs="+", default=[], help=into)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--device", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.device, options.threads, options.folder)
        return
    from xpconv.files import split_at_markers, write_between_markers

    around = {page: split_at_markers(page, MARKER) for page in options.pages}
    for page, found in around.items():
        if found is None:
            parser.error(f"{page} must have <!-- {MARKER} --> and <!-- /{MARKER} -->")
    lines = measure(options)
    print("\n".join(lines))
    for page, found in around.items():
        if found is not None:
            write_between_markers(page, MARKER, "\n" + "\n".join(lines) + "\n\n", found)


if __name__ == "__main__":
    main()
