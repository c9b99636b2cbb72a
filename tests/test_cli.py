"""The command line: what it writes, prints and returns, and what it says when it cannot."""

import errno
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import xpconv as xc
from xpconv import cli, doctor, files
from xpconv.errors import DataError
from xpconv.training import progress

RESULT_KEYS = ["device", "epochs", "train_accuracy", "test_accuracy", "loss", "seconds", "images_per_second"]


@pytest.fixture
def small_data(monkeypatch):
    """MNIST in a handful of images, for everything that trains."""
    load = xc.datasets.load_mnist

    def load_few(data="bundled", **options):
        (x_train, t_train), (x_test, t_test) = load(data, **options)
        return (x_train[:210], t_train[:210]), (x_test[:60], t_test[:60])

    monkeypatch.setattr(xc.datasets, "load_mnist", load_few)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run the command line in an empty directory; gives exit code, lines of standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*words):
        code = cli.main(words)
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return command


@pytest.fixture
def sigint():
    """SIGINT as a terminal's foreground job has it, however the tests were started."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, old)


def one_line(err):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def python(*words, **env):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env}
    return subprocess.run(
        [sys.executable, "-W", "error", *words], capture_output=True, text=True, timeout=120, env=environment, check=False
    )


# ----------------------------------------------------------------------------------------------------------------------
# train
# ----------------------------------------------------------------------------------------------------------------------


def test_training_ends_in_one_line_and_writes_what_was_asked_for(run, small_data, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, err = run(
        "train", "--epochs", "2", "--batch-size", "50", "--lr", "0.01", "--seed", "3", "--device", "numpy",
        "--save", "net.safetensors", "--json", "result.json", "--plot", "curves.png", "--checkpoint", "c",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out[0] == "SimpleConvNet with 433,890 parameters on device numpy, 2 epochs"
    assert [line.split("  ")[0] for line in out[1:3]] == ["epoch 1/2", "epoch 2/2"]
    assert out[3:6] == [
        "parameters written to net.safetensors",
        "results written to result.json",
        "curves written to curves.png",
    ]
    assert len(out) == 7
    accuracy, speed = re.fullmatch(r"test accuracy (\d+\.\d) % · ([\d,]+) images/s · device numpy", out[6]).groups()

    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result) == RESULT_KEYS
    assert (result["device"], result["epochs"]) == ("numpy", 2)
    assert f"{100 * result['test_accuracy']:.1f}" == accuracy
    assert f"{result['images_per_second']:,.0f}" == speed
    assert result["seconds"] > 0

    net = xc.SimpleConvNet(device="numpy")
    net.load(tmp_path / "net.safetensors")
    train, test = xc.datasets.load_mnist()
    assert net.accuracy(*test) == result["test_accuracy"]
    assert net.accuracy(*train) == result["train_accuracy"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

    same = xc.SimpleConvNet(weight_init_std="he", device="numpy", seed=3)  # the same by the library
    history = xc.Trainer(same, train, test, epochs=2, batch_size=50, optimizer=xc.Adam(0.01), seed=3, progress=False).run()
    np.testing.assert_equal(same.params, net.params)
    assert history["loss"][-1] == result["loss"]


@pytest.mark.parametrize("named_by", ["--device", "XPCONV_DEVICE"])
def test_training_on_each_device(run, small_data, device, named_by, monkeypatch):
    if named_by == "XPCONV_DEVICE":
        monkeypatch.setenv("XPCONV_DEVICE", device)
    code, out, err = run("train", "--epochs", "1", "--seed", "3", "--device", device)
    assert (code, err) == (0, "")
    name = xc.get_device(device).name
    assert out[0] == f"SimpleConvNet with 433,890 parameters on device {name}, 1 epoch"
    assert re.fullmatch(rf"test accuracy \d+\.\d % · [\d,]+ images/s · device {name}", out[-1])


def test_training_on_a_card_that_has_no_memory_left(run, small_data, cupy, monkeypatch):
    def full(*_, **__):
        raise cupy.OutOfMemoryError("Out of memory allocating 64 bytes (allocated so far: 8 bytes).")

    monkeypatch.setattr(cupy, "empty", full)
    code, _, err = run("train", "--device", "cuda")
    assert code == 1
    assert "Out of memory allocating 64 bytes" in one_line(err)


def test_the_speed_is_all_images_by_all_the_time(run, small_data, monkeypatch, tmp_path):
    def trained(trainer):
        rows = {
            "epoch": [1, 2],
            "loss": [0.7, 0.6],
            "train_accuracy": [0.8, 0.9],
            "test_loss": [0.5, 0.4],
            "test_accuracy": [0.7, 0.75],
            "seconds": [3.0, 2.5],
            "images_per_second": [100.0, 300.0],  # of 210 images each: 420 in 2.8 seconds
        }
        trainer.history.update(rows)

    monkeypatch.setattr(xc.training.Trainer, "run", trained)
    code, out, _ = run("train", "--json", "j")
    assert (code, out[-1]) == (0, f"test accuracy 75.0 % · 150 images/s · device {xc.get_device('auto')}")
    assert list(json.loads((tmp_path / "j").read_text()).values())[1:] == [2, 0.9, 0.75, 0.6, 5.5, pytest.approx(150)]


def test_the_defaults(run, small_data, monkeypatch):
    made = []
    monkeypatch.setattr(xc.training.Trainer, "run", lambda trainer: made.append(trainer) or trainer.history)
    code, out, _ = run("train")
    assert code == 0
    assert out[0].endswith(f"on device {xc.get_device('auto')}, 20 epochs")
    (trainer,) = made
    assert (trainer.epochs, trainer.batch_size, trainer.seed) == (20, 100, 0)
    assert repr(trainer.optimizer) == "Adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-07, amsgrad=False)"
    np.testing.assert_equal(trainer.network.params, xc.SimpleConvNet(weight_init_std="he", seed=0).params)


def test_resuming_ends_where_one_run_would(run, small_data, tmp_path):
    assert run("train", "--epochs", "3", "--save", "whole")[0] == 0
    assert run("train", "--epochs", "1", "--checkpoint", "c")[0] == 0
    code, out, _ = run("train", "--epochs", "3", "--checkpoint", "c", "--resume", "--save", "parts", "--json", "j")
    assert code == 0
    assert "going on after 1 of 3 epochs" in out[0]
    assert [line[:9] for line in out[1:3]] == ["epoch 2/3", "epoch 3/3"]
    np.testing.assert_equal(files.load_parameters("parts")[0], files.load_parameters("whole")[0])
    assert json.loads((tmp_path / "j").read_text())["epochs"] == 3


@pytest.mark.parametrize(("done", "told"), [(1, "1 epoch"), (2, "2 epochs")])
def test_resuming_what_is_finished_changes_nothing(run, small_data, done, told):
    first = run("train", "--epochs", str(done), "--checkpoint", "c")
    assert first[1][0].endswith(f", {told}")
    code, out, _ = run("train", "--epochs", "1", "--checkpoint", "c", "--resume")
    assert code == 0
    assert out[0].endswith(f", nothing left to do: the checkpoint has {told}, --epochs is 1")
    assert out[1:] == first[1][-1:]


def test_plain_text_without_colour(run, small_data):
    _, out, _ = run("train", "--epochs", "1")
    assert "\x1b" not in "".join(out)


class PressesCtrlC(progress.Lines):
    def step_finished(self, trainer, loss):
        if (trainer.epoch, trainer.steps_done) == self.moment:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c(sigint, monkeypatch):
    def at(epoch, step, times=1):
        keys = PressesCtrlC()
        keys.moment, keys.times = (epoch, step), times
        monkeypatch.setattr("xpconv.training.trainer.choose_progress", lambda progress: keys)

    return at


def test_ctrl_c_keeps_what_was_learnt(run, small_data, ctrl_c, tmp_path):
    pytest.importorskip("matplotlib")
    ctrl_c(1, 2)
    code, out, err = run("train", "--save", "net", "--json", "j", "--plot", "p.png", "--checkpoint", "c")
    assert (code, err) == (130, "")
    assert "interrupted after 1 of 20 epochs and 2 of 3 steps; what was learnt is kept" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "j", "net", "p.png"]
    result = json.loads((tmp_path / "j").read_text())
    assert result["epochs"] == 1
    net = xc.SimpleConvNet()
    net.load("net")
    train, test = xc.datasets.load_mnist()
    assert result["test_accuracy"] == net.accuracy(*test)  # of what was saved, not of the last finished epoch
    assert result["train_accuracy"] == net.accuracy(*train)
    assert out[-1].startswith(f"test accuracy {100 * result['test_accuracy']:.1f} % · ")


def test_ctrl_c_before_the_first_epoch_is_over(run, small_data, ctrl_c, tmp_path):
    pytest.importorskip("matplotlib")
    ctrl_c(0, 1)
    code, out, err = run("train", "--save", "net", "--json", "j", "--plot", "p.png")
    assert (code, err) == (130, "")
    assert "no epoch was finished, so there are no curves for p.png" in out
    result = json.loads((tmp_path / "j").read_text())
    assert (result["epochs"], result["loss"], result["seconds"]) == (0, None, 0)
    assert result["images_per_second"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j", "net"]


def test_two_ctrl_c_end_at_once(run, small_data, ctrl_c, tmp_path):
    ctrl_c(0, 2, times=2)
    code, _, err = run("train", "--save", "net")
    assert code == 130
    assert one_line(err) == "error: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_the_data_is_read(run, monkeypatch):
    def pressed(data):
        raise KeyboardInterrupt

    monkeypatch.setattr(xc.datasets, "load_mnist", pressed)
    code, _, err = run("train")
    assert code == 130
    one_line(err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "two"], "--epochs"),
        (["--batch-size", "-1"], "--batch-size"),
        (["--lr", "0"], "'--lr': Adam: learning_rate must be a positive number, got 0.0"),
        (["--lr", "-1"], "--lr"),
        (["--lr", "nan"], "--lr"),
        (["--lr", "fast"], "--lr"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "4294967296"], "--seed"),
        (["--device", "gpu"], "unknown device 'gpu'; expected one of 'numpy'"),
        (["--data", ""], 'data must be "bundled", "full" or a directory'),
        (["--plot", "curves"], "--plot"),
        (["--plot", "curves.doc"], "the name must end in one of .*.png.*got 'curves.doc'"),
        *[
            (["--plot", f"o.{name}"], f"one of .png, .svg, .pdf, .jpg, .jpeg, .webp, .tif, .tiff, got 'o.{name}'")
            for name in ("pgf", "ps", "eps", "raw", "rgba", "svgz")
        ],
        *[([option, ""], f"^error: {option}: the path is empty$") for option in ("--save", "--plot", "--json", "--checkpoint")],
        (["--resume"], "--resume needs --checkpoint"),
        (["--save", "a", "--json", "./a"], "--save and --json name the same file"),
        (["--colour"], "colour"),
        (["extra"], "extra"),
        (["--save"], "--save"),
    ],
)
def test_wrong_commands(run, tmp_path, words, message):
    if "--plot" in words:
        pytest.importorskip("matplotlib")
    code, out, err = run("train", *words)
    assert (code, out) == (2, [])
    assert re.search(message, one_line(err))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_subcommand(run):
    code, out, err = run("trian")
    assert (code, out) == (2, [])
    assert "trian" in one_line(err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cuda"], "device 'cuda' cannot be used here"),
        (["--data", "nowhere"], "the directory nowhere .*does not exist"),
        (["--save", "nowhere/net"], "--save: .*nowhere: cannot write: no such directory"),
        (["--json", "nowhere/j"], "--json: .*nowhere: cannot write: no such directory"),
        (["--plot", "nowhere/p.png"], "--plot: .*nowhere: cannot write: no such directory"),
        (["--checkpoint", "nowhere/c"], "--checkpoint: .*nowhere: cannot write: no such directory"),
        (["--save", "."], "--save: .*is a directory"),
        (["--json", os.devnull], "--json: .*is not a regular file"),
        (["--checkpoint", "c", "--resume"], "c: No such file or directory"),
    ],
)
@pytest.mark.usefixtures("without_cupy")
def test_what_cannot_be_done(run, tmp_path, monkeypatch, words, message):
    if "--plot" in words:
        pytest.importorskip("matplotlib")
    monkeypatch.setattr(xc.training.Trainer, "run", lambda trainer: pytest.fail("known before the training"))
    code, out, err = run("train", *words)
    assert (code, out) == (1, [])
    assert re.search(message, one_line(err))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_training(run, small_data, tmp_path):
    run("train", "--epochs", "1", "--checkpoint", "c")
    before = (tmp_path / "c").read_bytes()
    code, _, err = run("train", "--epochs", "2", "--checkpoint", "c", "--resume", "--seed", "1", "--lr", "0.1")
    assert code == 1
    assert "c is a checkpoint of another training: learning_rate was 0.001, is 0.1 seed was 0, is 1" in one_line(err)
    assert (tmp_path / "c").read_bytes() == before


def test_a_training_that_diverges(run, small_data, tmp_path):
    code, _, err = run("train", "--lr", "1e30", "--save", "net")
    assert code == 1
    assert "Trainer: the loss is" in one_line(err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("multiline", ["first\nsecond"])
def test_an_error_of_many_lines_is_told_in_one(run, monkeypatch, multiline):
    def fails(data):
        raise DataError(multiline)

    monkeypatch.setattr(xc.datasets, "load_mnist", fails)
    code, _, err = run("train")
    assert (code, err) == (1, "error: first second\n")


def test_a_full_disk_costs_what_was_written_there_alone(run, small_data, monkeypatch, tmp_path):
    def full(network, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(xc.SimpleConvNet, "save", full)
    code, out, err = run("train", "--epochs", "1", "--save", "net", "--json", "j")
    assert code == 1
    assert one_line(err) == "error: the parameters could not be written to net: No space left on device\n"
    assert out[-1].startswith("test accuracy ")
    assert [path.name for path in tmp_path.iterdir()] == ["j"]


@pytest.mark.parametrize("error", [RuntimeError("xelatex\nnot found"), KeyError("WEBP"), OSError(errno.ENOSPC, "no space")])
def test_a_drawing_that_fails_costs_the_curves_alone(run, small_data, monkeypatch, tmp_path, error):
    figure = pytest.importorskip("matplotlib.figure")

    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr(figure.Figure, "savefig", fails)
    code, out, err = run("train", "--epochs", "1", "--plot", "p.png", "--json", "j")
    assert code == 1
    assert one_line(err).startswith("error: the curves could not be written to p.png: ")
    assert out[-1].startswith("test accuracy ")
    assert [path.name for path in tmp_path.iterdir()] == ["j"]


@pytest.mark.parametrize("suffix", cli.PLOT_FORMATS)
def test_every_format_of_a_plot_can_be_written(suffix, tmp_path):
    pyplot = pytest.importorskip("matplotlib.figure")
    path = tmp_path / f"p{suffix}"
    xc.visualize.save(pyplot.Figure(figsize=(1, 1)), path)
    assert path.stat().st_size > 0


@pytest.mark.parametrize("device", ["auto", "numpy"])
def test_a_default_device_that_is_unknown(run, monkeypatch, device):
    monkeypatch.setenv("XPCONV_DEVICE", "gpu")
    code, out, err = run("train", "--epochs", "1", "--device", device)
    assert (code, out) == (1, [])
    assert re.search("unknown device 'gpu'.*named by the environment variable XPCONV_DEVICE", one_line(err))


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("words", [["train", "--epochs", "1", "--device", "numpy"], ["doctor"], ["--version"], ["--help"]])
def test_an_output_that_is_full(words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with pathlib.Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "xpconv", *words],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, env=environment, check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert one_line(result.stderr) == "error: standard output: No space left on device\n"


def test_a_full_disk_under_the_checkpoint(run, small_data, monkeypatch, tmp_path):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_flush_to_disk", full)
    code, _, err = run("train", "--epochs", "1", "--checkpoint", "c")
    assert (code, err) == (1, "error: No space left on device\n")
    assert list(tmp_path.iterdir()) == []


def test_a_plot_without_matplotlib_is_refused_before_the_training(run, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run("train", "--plot", "p.png")
    assert code == 1
    assert "pip install 'xpconv[plot]'" in one_line(err)


def test_an_output_that_lacks_the_dot(monkeypatch, small_data, tmp_path):
    monkeypatch.chdir(tmp_path)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert cli.main(["train", "--epochs", "1"]) == 0
    sys.stdout.flush()
    assert re.search(rb"test accuracy \d+\.\d % \? [\d,]+ images/s \? device \w+\n$", raw.getvalue())


# ----------------------------------------------------------------------------------------------------------------------
# doctor
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("XPCONV_")]:
        monkeypatch.delenv(name)


def test_doctor(run, no_variables, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XPCONV_CACHE", str(tmp_path))
    code, out, err = run("doctor", "--json", "report.json")
    assert (code, err) == (0, "")
    text = "\n".join(out)
    report = json.loads((tmp_path / "report.json").read_text())
    for status in xc.devices():
        assert status.name in text
        assert status.reason in text
        assert status.remedy in text
    assert "numpy (default)" in text
    assert f"numpy {np.__version__}" in text
    assert f"XPCONV_CACHE={tmp_path}" in text
    assert report["xpconv"] == xc.__version__
    assert report["data"] == {"bundled": "intact", "mnist": "not here", "fashion_mnist": "not here"}
    assert report["environment"] == {"XPCONV_CACHE": str(tmp_path)}
    assert report["default_device"] == "numpy"
    assert report["problems"] == []
    assert [device["name"] for device in report["devices"]] == [status.name for status in xc.devices()]
    assert report["cores"]["usable"] >= 1
    assert report["blas"][0]["name"] in text
    assert "\x1b" not in text


def test_doctor_names_a_default_device_that_is_none(run, no_variables, monkeypatch):
    monkeypatch.setenv("XPCONV_DEVICE", "gpu")
    code, out, err = run("doctor")
    assert code == 1
    assert "unknown device 'gpu'" in one_line(err)
    assert "none: see below" in "\n".join(out)


def test_doctor_names_a_variable_that_nobody_reads(run, no_variables, monkeypatch):
    monkeypatch.setenv("XPCONV_DEVISE", "numpy")
    code, _, err = run("doctor")
    assert code == 1
    assert f"XPCONV_DEVISE is set, but xpconv reads {', '.join(doctor.VARIABLES)} only" in one_line(err)


def test_doctor_knows_the_variables_that_are_read():
    package = pathlib.Path(xc.__file__).parent
    sources = [*package.rglob("*.py"), *package.joinpath("kernels").rglob("*.py")]
    read = {name for source in sources for name in re.findall(r'"(XPCONV_[A-Z0-9_]+)"', source.read_text(encoding="utf-8"))}
    assert set(doctor.VARIABLES) == read


def test_doctor_tells_how_the_devices_of_cuda_compute(run, no_variables, monkeypatch, cupy, tmp_path):
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("XPCONV_CUDASIM_CACHE", str(tmp_path / "kernels"))
    code, out, err = run("doctor", "--json", "report.json")
    text = "\n".join(out)
    assert (code, err) == (0, "")
    assert re.search(r"cuda +│ yes +│ cuda:0 is Stand-in, cuda:1 is Stand-in", text)
    assert "cuda:1: Stand-in, compute capability 8.0, 8 multiprocessors, 16 GiB" in text
    assert "driver for CUDA 13.2, runtime 13.2, NVRTC 13.2" in text
    assert re.search(rf"cudasim +│ fast mode.*\n.*kernels in {re.escape(str(tmp_path / 'kernels'))}", text)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["cudasim"] == {"mode": "fast", "cache": str(tmp_path / "kernels")}
    assert report["cuda"]["cards"][1] == {
        "name": "Stand-in",
        "compute_capability": "8.0",
        "memory_bytes": 2**34,
        "multiprocessors": 8,
    }


@pytest.mark.usefixtures("without_cupy")
def test_doctor_without_cuda(run, no_variables, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    code, out, _ = run("doctor")
    assert code == 0
    assert re.search(r"cuda +│ no +│ CuPy is not installed +│ pip install 'xpconv\[cuda13\]'", "\n".join(out))
    assert re.search(r"cuda +│ not used: see above", "\n".join(out))


def test_doctor_tells_how_the_numba_device_computes(run, no_variables, monkeypatch, tmp_path):
    from xpconv.kernels.numba import compiler, target, threads

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(compiler, "cache_trouble", lambda: None)
    code, out, _ = run("doctor", "--json", "report.json")
    text = "\n".join(out)
    assert code == 0
    assert f"{threads.thread_count()} threads, vectors of {8 * target.vector_bytes()} bits" in text
    assert f"kernels in {tmp_path / 'kernels'}" in text
    assert json.loads((tmp_path / "report.json").read_text())["numba"] == {
        "threads": threads.thread_count(),
        "vector_bits": 8 * target.vector_bytes(),
        "cache": str(compiler.cache_directory()),
        "cache_trouble": None,
    }
    monkeypatch.setattr(compiler, "cache_trouble", lambda: "the disk is full")
    code, out, _ = run("doctor")
    assert code == 0
    assert "kernels are not kept: the disk is full" in "\n".join(out)


def test_doctor_without_numba(run, no_variables, monkeypatch):
    def missing(name):
        raise xc.errors.DeviceUnavailableError("Numba is not installed")

    monkeypatch.setattr(doctor, "get_device", missing)
    code, out, _ = run("doctor")
    assert code == 0
    assert re.search(r"numba\s+│ not used: see above", "\n".join(out))


def test_doctor_compiles_ahead_when_asked(run, no_variables, monkeypatch):
    monkeypatch.setattr("xpconv.compilation._steps", lambda place: iter([("pooling", lambda: None)]))
    code, out, err = run("doctor", "--compile")
    assert (code, err) == (0, "")
    assert out[0] == "compiling: pooling"
    assert out[1].startswith("device numba: ")
    assert "Devices" in out[2]
    _, out, _ = run("doctor")
    assert "Devices" in out[0]


def test_doctor_compiles_for_the_device_that_is_named(run, no_variables, monkeypatch):
    monkeypatch.setattr("xpconv.compilation._steps", lambda place: iter([("pooling", lambda: None)]))
    code, out, err = run("doctor", "--compile", "--device", "numpy")
    assert (code, out[0], err) == (0, "device numpy has nothing to compile", "")
    code, out, err = run("doctor", "--compile", "--device", "gpu")
    assert (code, out) == (2, [])
    assert "unknown device 'gpu'" in one_line(err)
    code, out, err = run("doctor", "--device", "numpy")
    assert (code, out) == (2, [])
    assert "goes with --compile alone" in one_line(err)


def test_doctor_names_damaged_data(run, no_variables, monkeypatch):
    def damaged(data):
        raise DataError("train-images-idx3-ubyte.gz is truncated")

    monkeypatch.setattr(doctor, "load_mnist", damaged)
    code, out, err = run("doctor")
    assert code == 1
    assert "is truncated" in one_line(err)
    assert "damaged" in "\n".join(out)


def test_doctor_says_where_it_cannot_write(run):
    code, out, err = run("doctor", "--json", "nowhere/report.json")
    assert (code, out) == (1, [])
    assert "no such directory" in one_line(err)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not bind processes to cores")
def test_usable_cores_are_those_this_process_may_use():
    one = min(os.sched_getaffinity(0))
    result = python(
        "-c", f"import os; os.sched_setaffinity(0, [{one}]); from xpconv import doctor; print(doctor.usable_cores())"
    )
    assert result.stdout == "1\n"


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("processor\t: 0\nphysical id\t: 0\ncore id\t\t: 0\n\nprocessor\t: 1\nphysical id\t: 0\ncore id\t\t: 0\n", 1),
        ("physical id : 0\ncore id : 0\nphysical id : 0\ncore id : 1\nphysical id : 1\ncore id : 0\n", 3),
        ("processor : 0\nBogoMIPS : 50.0\n", None),
    ],
)
def test_physical_cores_are_counted_once(monkeypatch, text, cores):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path: text)
    assert doctor.physical_cores() == cores


# ----------------------------------------------------------------------------------------------------------------------
# The program
# ----------------------------------------------------------------------------------------------------------------------


def test_version(run):
    assert run("--version") == (0, [f"xpconv {xc.__version__}"], "")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help(run, words):
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    text = "\n".join(out)
    assert "train" in text
    assert "doctor" in text


def test_help_of_train_tells_every_option(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, out, _ = run("train", "-h")
    assert code == 0
    options = re.findall(r"^\W*(--[a-z-]+)", "\n".join(out), re.MULTILINE)
    assert options == [
        "--device", "--data", "--epochs", "--batch-size", "--lr", "--seed", "--save", "--plot", "--json", "--checkpoint",
        "--resume", "--help",
    ]  # fmt: skip


def test_as_a_module():
    result = python("-m", "xpconv", "--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"xpconv {xc.__version__}\n", "")
    result = python("-m", "xpconv", "train", "--epochs", "0")
    assert (result.returncode, result.stdout) == (2, "")
    one_line(result.stderr)


def test_what_is_not_used_is_not_imported():
    script = (
        "import sys; from xpconv.cli import main; main(['--version'])\n"
        "print(sorted({'matplotlib', 'pooch', 'safetensors', 'numba', 'xpconv.functional'} & set(sys.modules)))"
    )
    assert python("-c", script).stdout.splitlines()[1:] == ["[]"]


def test_ctrl_c_of_a_real_process(tmp_path):
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # however the tests were started
        "from xpconv.cli import main\n"
        "sys.exit(main(['train', '--epochs', '1000', '--save', 'net', '--device', 'numpy']))"  # nothing to compile
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as process:
        try:
            lines = [process.stdout.readline() for _ in range(2)]  # the first epoch is over
            process.send_signal(signal.SIGINT)
            rest, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert lines[1].startswith("epoch    1/1000")
    assert (process.returncode, err) == (130, "")
    assert "interrupted after " in rest
    assert rest.splitlines()[-1].startswith("test accuracy ")
    assert "W1" in files.load_parameters(tmp_path / "net")[0]
