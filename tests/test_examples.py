"""The examples run, write their picture and say so."""

import pathlib
import re
import runpy
import sys

import pytest

import xpconv as xc

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
DRAWING = [FOLDER / f"{name}.py" for name in ("apply_filters", "train_fashion_mnist", "train_mnist", "visualize_filters")]
TELLING = sorted(set(FOLDER.glob("*.py")) - set(DRAWING) - {FOLDER / "options.py"})


@pytest.fixture(autouse=True)
def _as_a_program(monkeypatch):
    """Let an example import its neighbours, as it can where it is run as a program."""
    monkeypatch.syspath_prepend(FOLDER)


@pytest.mark.parametrize("example", DRAWING, ids=lambda path: path.stem)
def test_example(example, device, monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    load = xc.datasets.load_mnist

    def load_few():
        (x_train, t_train), (x_test, t_test) = load()
        return (x_train[:200], t_train[:200]), (x_test[:50], t_test[:50])

    picture = tmp_path / "picture.png"
    monkeypatch.setattr(xc.datasets, "load_mnist", load_few)
    monkeypatch.setattr(xc.datasets, "full_set_available", lambda name: False)
    monkeypatch.setattr(sys, "argv", [str(example), "--epochs", "1", "--device", device, "--output", str(picture)])
    runpy.run_path(str(example), run_name="__main__")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"written to {picture}")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("example", TELLING, ids=lambda path: path.stem)
def test_example_that_needs_a_compiler_and_tells_what_it_sees(example, monkeypatch, tmp_path, capsys):
    if not xc.cudasim.status().available:
        pytest.skip("the simulator has no compiler here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) > 3
    assert list(tmp_path.iterdir()) == []


def test_cupy_without_cudnn_on_a_card(cupy, capsys):
    runpy.run_path(str(FOLDER / "cupy_conv_without_cudnn.py"), run_name="__main__")
    assert capsys.readouterr().out.startswith("device cuda:0\nmaps ")


@pytest.mark.parametrize("example", DRAWING, ids=lambda path: path.stem)
def test_help(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(example), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(example), run_name="__main__")
    assert end.value.code == 0
    assert "--epochs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0"], "argument --epochs: invalid positive_int value: '0'"),
        (["--output", "nowhere/picture.png"], "argument --output: .*no such directory: '.*nowhere'"),
    ],
)
@pytest.mark.parametrize("example", DRAWING, ids=lambda path: path.stem)
def test_what_cannot_be_done_is_refused_before_the_training(example, words, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(xc.datasets, "load_mnist", lambda: pytest.fail("known before the training"))
    monkeypatch.setattr(sys, "argv", [str(example), *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(example), run_name="__main__")
    assert end.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []
