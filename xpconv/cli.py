"""The command line: ``xpconv train`` and ``xpconv doctor``; ``python -m xpconv`` is the same.

Exit codes: 0 done; 1 something could not be done (a file, a device, a training that diverged); 2 the command was wrong;
130 stopped by Ctrl-C. What went wrong is told in one line on standard error.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from xpconv import __version__
from xpconv.errors import XpconvError

if TYPE_CHECKING:
    from xpconv.bench.results import Report
    from xpconv.training import Trainer

_T = TypeVar("_T")

FAILURE, WRONG_COMMAND, INTERRUPTED = 1, 2, 130

# What matplotlib writes with what is installed with it: .pgf needs TeX, .raw and .rgba are no pictures that anything opens.
PLOT_FORMATS = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")

BENCH_FILE_WIDTH = 240

app = typer.Typer(
    name="xpconv",
    help="Convolution and pooling networks on plain arrays.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# What Typer raises for a wrong command derives from this class, which some releases take from the package click and others
# from a copy of their own.
_CommandLineError: Any = typer.BadParameter.__mro__[2]


class _Failed(Exception):  # noqa: N818 - what it carries is an exit code, not an error that could be caught
    """Ends a command with a message on standard error (unless it is empty) and an exit code."""

    def __init__(self, message: str, code: int = FAILURE) -> None:
        super().__init__(message)
        self.code = code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after ``xpconv``; None takes those of this process.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a dot that the terminal lacks must not end a training
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(args=words or ["--help"], prog_name="xpconv", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where it can be told that it fails
    except _Failed as failure:
        if str(failure):
            _complain(str(failure))
        return failure.code
    except _CommandLineError as error:
        _complain(error.format_message())
        return WRONG_COMMAND
    except BrokenPipeError:
        raise  # who read our output is gone: nobody to tell
    except OSError as error:  # those of files are told where they are written
        _complain(f"standard output: {_describe(error)}")
        return FAILURE
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        _complain("interrupted")
    return int(code or 0)


def _path_of(option: str) -> Callable[[str], Path]:
    def path(text: str) -> Path:
        if not text:  # Path("") would be the working directory
            raise _Failed(f"{option}: the path is empty", WRONG_COMMAND)
        return Path(text)

    return path


def _print_version(wanted: bool) -> None:
    if wanted:
        _say(f"xpconv {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


# ---- xpconv train ------------------------------------------------------------------------------------------------------


@app.command()
def train(
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to compute: auto (the best there is), numpy, ...")
    ] = "auto",
    data: Annotated[
        str,
        typer.Option(
            metavar="bundled|full|DIR",
            help="MNIST to learn from: the 5,000 images that come with xpconv, all 60,000 (downloaded once and checked), "
            "or the directory that holds their files.",
        ),
    ] = "bundled",
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="How often to visit every image.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images for each update.")] = 100,
    lr: Annotated[float, typer.Option(metavar="X", help="Learning rate of Adam.")] = 0.001,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Seed of the first weights and of the order of the images.")
    ] = 0,
    save: Annotated[
        Path | None,
        typer.Option(parser=_path_of("--save"), metavar="FILE", help="Write the learnt parameters here (safetensors)."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(parser=_path_of("--plot"), metavar="FILE", help="Draw loss and accuracy here: .png, .svg, .pdf ..."),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", parser=_path_of("--json"), metavar="FILE", help="Write the results here.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            parser=_path_of("--checkpoint"),
            metavar="FILE",
            help="Write here after every epoch and on Ctrl-C what --resume needs. An older file is replaced.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the file of --checkpoint.")] = False,
) -> None:
    """Train a small convolutional network on MNIST, and tell how well and how fast it learnt.

    Ctrl-C ends the training after the running step and keeps what was learnt; pressed again, it ends at once.
    """
    if resume and checkpoint is None:
        raise typer.BadParameter("--resume needs --checkpoint, the file to go on from")
    _check_outputs({"--save": save, "--plot": plot, "--json": json_path, "--checkpoint": checkpoint})
    trainer = _reported(lambda: _trainer(device, data, epochs, batch_size, lr, seed, checkpoint))
    if resume:
        assert checkpoint is not None
        _reported(lambda: trainer.load_checkpoint(checkpoint))
    from xpconv.training.progress import percent

    net = trainer.network
    parameters = sum(array.size for array in net.params.values())
    plan = _count_epochs(epochs)
    if resume and trainer.epoch >= epochs:
        plan = f"nothing left to do: the checkpoint has {_count_epochs(trainer.epoch)}, --epochs is {epochs}"
    elif resume:
        plan = f"going on after {trainer.epoch} of {plan}"
    _say(f"{type(net).__name__} with {parameters:,} parameters on device {net.device}, {plan}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow ends in a loss that is not finite, and in one clear line
        _reported(trainer.run)
        failures = [] if save is None else _write("parameters", save, lambda: net.save(save))
        result = _reported(lambda: _result(trainer))
    if json_path is not None:
        failures += _write("results", json_path, lambda: _write_json(json_path, result))
    if plot is not None and trainer.epoch:
        failures += _write("curves", plot, lambda: _draw(trainer, plot))
    elif plot is not None:
        _say(f"no epoch was finished, so there are no curves for {plot}")
    speed = f"{result['images_per_second']:,.0f} images/s"
    _say(f"test accuracy {percent(result['test_accuracy'])} · {speed} · device {result['device']}")
    if failures:
        raise _Failed("; ".join(failures))
    if trainer.interrupted:
        raise _Failed("", INTERRUPTED)


def _trainer(device: str, data: str, epochs: int, batch_size: int, lr: float, seed: int, checkpoint: Path | None) -> Trainer:
    import xpconv as xc

    try:
        xc.default_device()  # where images are before they are moved to the network's device
    except XpconvError:
        raise
    except ValueError as error:  # XPCONV_DEVICE is wrong, not the command
        raise _Failed(str(error)) from None
    try:
        optimizer = xc.Adam(lr)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--lr'") from None
    try:
        # With the book's 0.01 the accuracy hangs on the seed (94.4 to 96.4 % over eight of them), with He's rule it does not
        # (96.2 to 97.3 %).
        net = xc.SimpleConvNet(weight_init_std="he", device=device, seed=seed)
        train_set, test_set = xc.datasets.load_mnist(data)
    except XpconvError:  # a device or a file is not there: the command was right
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return xc.Trainer(
        net,
        train_set,
        test_set,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        seed=seed,
        checkpoint=checkpoint,
    )


def _result(trainer: Trainer) -> dict[str, Any]:
    # Of the parameters as they are: where an epoch was interrupted, they are not those that the history tells of.
    history = trainer.history
    at_end_of_epoch = trainer.epoch and not trainer.steps_done
    measured = {name: column[-1] for name, column in history.items()} if at_end_of_epoch else trainer.evaluate()
    return {
        "device": str(trainer.network.device),
        "epochs": trainer.epoch,
        "train_accuracy": measured["train_accuracy"],
        "test_accuracy": measured["test_accuracy"],
        "loss": history["loss"][-1] if trainer.epoch else None,
        "seconds": sum(history["seconds"]),
        # All epochs have the same number of images, so this is all of them by all the time.
        "images_per_second": (
            statistics.harmonic_mean(history["images_per_second"]) if trainer.epoch else trainer.images_per_second
        ),
    }


def _draw(trainer: Trainer, path: Path) -> None:
    from xpconv import visualize

    net = trainer.network
    title = f"{type(net).__name__} on MNIST, {_count_epochs(trainer.epoch)}"
    visualize.save(visualize.training_curves(trainer.history, title=title), path)


def _count_epochs(number: int) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"


# ---- xpconv bench ------------------------------------------------------------------------------------------------------


@app.command()
def bench(
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Measure xpconv on this device; give it again for another (default: all that work here)."
        ),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Whom to measure beside it, with commas: torch, torch:compile, jax, tensorflow, keras, onnxruntime, book; "
            "or none (default: all that are installed).",
        ),
    ] = None,
    workloads: Annotated[
        str | None,
        typer.Option(
            metavar="IDS", help="What to compute, with commas: W1, W3a ..., or W3 for all that begin so (default: all)."
        ),
    ] = None,
    ops: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Operations, with commas: fwd, dx, dw, tot of a convolution; fwd, bwd, tot of a pooling; step (default: all).",
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, metavar="N", help="Rounds in which all take turns (default: 7).")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.001, max=3600, metavar="X", help="How long a turn lasts, at least (default: 0.4).")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=4096, metavar="N", help="Threads of each library (default: all usable cores).")
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Run a library with another Python that has it, such as jax=.venv-jax/bin/python; give it again for others.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first impression: four workloads, few and short rounds.")] = False,
    quiet: Annotated[
        bool | None,
        typer.Option(
            "--quiet/--no-quiet",
            help="Wait for moments when no other process computes: seconds for each turn, ten minutes in all (default).",
        ),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", parser=_path_of("--json"), metavar="FILE", help="Write everything that was found here."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(parser=_path_of("--plot"), metavar="FILE", help="Draw the comparison here: .png, .svg, .pdf ..."),
    ] = None,
    readme: Annotated[
        Path | None,
        typer.Option(
            parser=_path_of("--readme"),
            metavar="FILE",
            help="Put the table into this Markdown file, between the lines <!-- benchmark --> and <!-- /benchmark -->.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", parser=_path_of("--from"), metavar="FILE", help="Measure nothing: show what --json wrote."),
    ] = None,
    roofline: Annotated[
        Path | None,
        typer.Option(
            parser=_path_of("--roofline"),
            metavar="FILE",
            help="Measure nothing: predict from their compiled code what the CUDA kernels take on an H100, and write it here. "
            "It needs CuPy, and no card.",
        ),
    ] = None,
) -> None:
    """Measure xpconv beside PyTorch, JAX, TensorFlow, Keras, ONNX Runtime and the book's way, on the same cores in one run.

    With --device cuda beside PyTorch with cuDNN on the same card, each call between two events, with empty caches.

    Every result is compared with a reference in float64 before anything is timed. Whoever is not installed is left out.
    Ctrl-C ends the run and shows what was found until then.
    """
    from xpconv.bench import readme as bench_readme
    from xpconv.bench import results, runner, settings

    _check_outputs({"--json": json_path, "--plot": plot, "--readme": readme, "--roofline": roofline})
    told = [device, peers, workloads, ops, rounds, seconds, threads, python, quick or None, quiet, json_path]
    if roofline is not None:
        if any(option is not None for option in (*told, source, plot, readme)):
            raise typer.BadParameter("--roofline measures nothing: it goes with no other option")
        _write_roofline(roofline)
        return
    if readme is not None:
        _checked("--readme", lambda: bench_readme.check(readme))
    if source is not None:
        if any(option is not None for option in told):
            raise typer.BadParameter("--from measures nothing: it goes with --plot and --readme alone")
        report = _checked("--from", lambda: results.load(source))
    else:
        try:
            chosen = settings.settings_from(
                device=device or (),
                peers=peers,
                workloads=workloads,
                operations=ops,
                rounds=rounds,
                seconds=seconds,
                threads=threads,
                pythons=python or (),
                quick=quick,
                quiet=quiet is not False,
            )
        except XpconvError as error:  # a device is not there: the command was right
            raise _Failed(str(error)) from None
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        with _live_stages() as say:
            report = _reported(lambda: runner.run(chosen, say))
    failures = _show_report(report, json_path, plot, readme)
    if failures:
        raise _Failed("; ".join(failures))
    if report.interrupted and source is None:
        raise _Failed("", INTERRUPTED)


def _write_roofline(path: Path) -> None:
    from xpconv.bench import roofline

    _reported(lambda: roofline.write(path))
    _say(f"predictions written to {path}")


def _show_report(report: Report, json_path: Path | None, plot: Path | None, readme: Path | None) -> list[str]:
    """Print and write the report; returns what could not be written, and where xpconv itself failed."""
    from rich.console import Console

    from xpconv.bench import plot as bench_plot
    from xpconv.bench import readme as bench_readme
    from xpconv.bench.table import print_report
    from xpconv.visualize import save

    failures = [] if json_path is None else _write("results", json_path, lambda: report.save(json_path))
    # A file has no width that a table would have to be cut for.
    print_report(report, Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=BENCH_FILE_WIDTH))
    if plot is not None:
        failures += _write("comparison", plot, lambda: save(bench_plot.figure(report), plot))
    if readme is not None:
        failures += _write("table", readme, lambda: bench_readme.update(readme, report))
    return failures + report.own_failures()


def _checked(option: str, work: Callable[[], _T]) -> _T:
    try:
        return work()
    except OSError as error:
        raise _Failed(f"{option}: {_describe(error)}") from None
    except ValueError as error:
        raise _Failed(f"{option}: {error}") from None


@contextlib.contextmanager
def _live_stages() -> Iterator[Callable[[str, str], None]]:
    """A function that tells where a run is: in one line of a terminal that changes, or in a line a stage in a file."""
    if sys.stdout.isatty():
        from rich.console import Console

        with Console().status("") as status:
            yield lambda stage, detail: status.update(f"{stage}: {detail}" if detail else stage)
        return
    told = ""

    def tell(stage: str, _: str) -> None:
        nonlocal told
        if stage != told:
            _say(stage)
        told = stage

    yield tell


# ---- xpconv doctor -----------------------------------------------------------------------------------------------------


@app.command()
def doctor(
    json_path: Annotated[
        Path | None, typer.Option("--json", parser=_path_of("--json"), metavar="FILE", help="Write the report here, too.")
    ] = None,
    compile_ahead: Annotated[
        bool,
        typer.Option("--compile", help="Compile the kernels of the best device there is, so that no training waits for it."),
    ] = False,
    device: Annotated[str | None, typer.Option("--device", metavar="NAME", help="With --compile: of this device.")] = None,
) -> None:
    """Tell which devices work here, and for each that does not why, and how to mend it.

    Ends with exit code 1 if something is broken: the bundled data, or the setting of the default device.
    """
    if device is not None and not compile_ahead:
        raise typer.BadParameter("it says whose kernels to compile, and goes with --compile alone", param_hint="'--device'")
    _check_outputs({"--json": json_path})
    if compile_ahead:
        from xpconv.compilation import compile as compile_kernels

        try:
            _reported(lambda: compile_kernels(device or "auto"))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="'--device'") from None
    from xpconv.doctor import examine

    report = examine()
    _print_report(report)
    failures = [] if json_path is None else _write("report", json_path, lambda: _write_json(json_path, report))
    if report["problems"] or failures:
        raise _Failed("; ".join([*report["problems"], *failures]))


def _print_report(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(title="Devices", title_justify="left", title_style="bold", header_style="bold")
    for heading in ("device", "works", "why", "what to do"):
        table.add_column(heading)
    for status in report["devices"]:
        works = Text("yes", "green") if status["available"] else Text("no", "yellow")
        default = " (default)" if status["name"] == report["default_device"] else ""
        table.add_row(Text(status["name"] + default), works, Text(status["reason"]), Text(status["remedy"]))
    console.print(table)

    cores = report["cores"]
    rows: list[tuple[str, Iterable[str]]] = [
        ("xpconv", [report["xpconv"]]),
        ("Python", [f"{report['python']} on {report['platform']}"]),
        ("packages", [f"{name} {version or 'not installed'}" for name, version in report["packages"].items()]),
        ("BLAS", [_describe_blas(blas) for blas in report["blas"]]),
        ("numba", _describe_numba(report["numba"])),
        ("cuda", _describe_cuda(report["cuda"])),
        ("cudasim", _describe_cudasim(report["cudasim"])),
        ("cores", [f"{cores['usable']} usable, {cores['physical'] or 'an unknown number of'} physical"]),
        ("default device", [report["default_device"] or "none: see below"]),
        ("environment", [f"{name}={value}" for name, value in report["environment"].items()] or ["no XPCONV_ variable is set"]),
        ("bundled MNIST", [report["data"]["bundled"]]),
        ("full MNIST", [report["data"]["mnist"]]),
        ("full Fashion-MNIST", [report["data"]["fashion_mnist"]]),
    ]
    facts = Table(title="This machine", title_justify="left", title_style="bold", show_header=False)
    for name, values in rows:
        facts.add_row(Text(name), Text("\n".join(values)))
    console.print(facts)


def _describe_numba(numba: dict[str, Any] | None) -> list[str]:
    if numba is None:
        return ["not used: see above"]
    kept = f"kernels are not kept: {numba['cache_trouble']}" if numba["cache_trouble"] else f"kernels in {numba['cache']}"
    return [f"{numba['threads']} threads, vectors of {numba['vector_bits']} bits", kept]


def _describe_cuda(cuda: dict[str, Any] | None) -> list[str]:
    if cuda is None:
        return ["not used: see above"]
    cards = [
        f"cuda:{number}: {card['name']}, compute capability {card['compute_capability']}, "
        f"{card['multiprocessors']} multiprocessors, {card['memory_bytes'] / 2**30:.0f} GiB"
        for number, card in enumerate(cuda["cards"])
    ]
    return [*cards, f"driver for CUDA {cuda['driver']}, runtime {cuda['runtime']}, NVRTC {cuda['nvrtc']}"]


def _describe_cudasim(cudasim: dict[str, Any] | None) -> list[str]:
    if cudasim is None:
        return ["not used: see above"]
    return [f"{cudasim['mode']} mode", f"kernels in {cudasim['cache']}"]


def _describe_blas(blas: dict[str, Any]) -> str:
    parts = [f"{blas['name']} {blas['version'] or ''}".strip()]
    if blas["threads"]:
        parts.append(f"{blas['threads']} threads")
    if blas["architecture"]:
        parts.append(f"kernels for {blas['architecture']}")
    return ", ".join(parts)


# ---- xpconv sanitize ---------------------------------------------------------------------------------------------------


@app.command()
def sanitize(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Only kernels with this in their name or file: pool2d, or *_update.")
    ] = "",
    profile: Annotated[bool, typer.Option("--profile", help="Tell as well how the kernels use memory.")] = False,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", parser=_path_of("--json"), metavar="FILE", help="Write everything that was found here."),
    ] = None,
    readme: Annotated[
        Path | None,
        typer.Option(
            parser=_path_of("--readme"),
            metavar="FILE",
            help="Put the tables into this Markdown file, between the lines <!-- sanitize --> and <!-- /sanitize -->.",
        ),
    ] = None,
) -> None:
    """Check the CUDA kernels without a GPU: bounds, races, barriers, uninitialised memory, results.

    Every kernel of the cuda device runs in the simulator's check mode, on small images of every awkward kind. Ends with exit
    code 1 if something is found, or if there is a kernel that nothing runs.
    """
    from rich.console import Console

    from xpconv import cudasim

    _check_outputs({"--json": json_path, "--readme": readme})

    status = cudasim.status()
    if not status.available:
        raise _Failed(f"sanitize: {status.reason}: {status.remedy}")
    from xpconv.sanitizer import readme as sanitizer_readme
    from xpconv.sanitizer.checks import run
    from xpconv.sanitizer.table import print_report

    if readme is not None:
        _checked("--readme", lambda: sanitizer_readme.check(readme))
    with _live_stages() as say:
        report = _reported(lambda: run(pattern, profile=profile, say=say))
    if not report.kernels:
        raise typer.BadParameter(f"there is no kernel with {pattern!r} in its name", param_hint="'PATTERN'")
    print_report(report, Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=BENCH_FILE_WIDTH))
    failures = [] if json_path is None else _write("report", json_path, lambda: _write_json(json_path, report.as_json()))
    if readme is not None:
        failures += _write("tables", readme, lambda: sanitizer_readme.update(readme, sanitizer_readme.markdown(report)))
    if report.failures:
        count = len(report.failures)
        failures.insert(0, f"sanitize: {count} finding{'s' if count > 1 else ''}, see above")
    if failures:
        raise _Failed("; ".join(failures))


# ---- files and errors --------------------------------------------------------------------------------------------------


def _check_outputs(paths: dict[str, Path | None]) -> None:
    # Before the training, so that no result of it is lost for want of a directory.
    from xpconv.files import check_writable

    given = {option: path for option, path in paths.items() if path is not None}
    seen: dict[Path, str] = {}
    for option, path in given.items():
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise typer.BadParameter(f"{other} and {option} name the same file, {path}")
    if (plot := given.get("--plot")) is not None:
        _check_plot(plot)
    for option, path in given.items():
        try:
            check_writable(path)
        except OSError as error:
            raise _Failed(f"{option}: {_describe(error)}") from None


def _check_plot(path: Path) -> None:
    if path.suffix.lower() not in PLOT_FORMATS:
        raise typer.BadParameter(
            f"the name must end in one of {', '.join(PLOT_FORMATS)}, got {str(path)!r}", param_hint="'--plot'"
        )
    try:
        import matplotlib  # noqa: F401 - to know that it is there
    except ImportError:
        raise _Failed("--plot draws with matplotlib, which is not installed: pip install 'xpconv[plot]'") from None


def _reported(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except BrokenPipeError:
        raise  # who read our output is gone: nobody to tell
    except (XpconvError, OSError, MemoryError) as error:
        raise _Failed(_describe(error) or "out of memory") from None


def _write(what: str, path: Path, work: Callable[[], None]) -> list[str]:
    """Write one result and say so; what fails is returned, for the other results to be written all the same."""
    try:
        work()
    except Exception as error:  # the drawing library raises what it likes, and the other results are worth having
        reason = error.strerror if isinstance(error, OSError) else None
        return [f"the {what} could not be written to {path}: {reason or str(error) or type(error).__name__}"]
    _say(f"{what} written to {path}")
    return []


def _write_json(path: Path, content: dict[str, Any]) -> None:
    from xpconv.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _say(line: str) -> None:
    print(line, flush=True)


def _complain(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
