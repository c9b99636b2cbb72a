"""The examples run, write their picture and say so."""

import pathlib
import re
import runpy
import sys

import pytest

import xpconv as xc

EXAMPLES = sorted(pathlib.Path(__file__).parents[1].joinpath("examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example, device, monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    load = xc.datasets.load_mnist

    def load_few():
        (x_train, t_train), (x_test, t_test) = load()
        return (x_train[:200], t_train[:200]), (x_test[:50], t_test[:50])

    picture = tmp_path / "picture.png"
    monkeypatch.setattr(xc.datasets, "load_mnist", load_few)
    monkeypatch.setattr(sys, "argv", [str(example), "--epochs", "1", "--device", device, "--output", str(picture)])
    runpy.run_path(str(example), run_name="__main__")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"written to {picture}")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_there_are_examples():
    assert {"train_mnist", "visualize_filters", "apply_filters"} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
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
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_what_cannot_be_done_is_refused_before_the_training(example, words, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(xc.datasets, "load_mnist", lambda: pytest.fail("known before the training"))
    monkeypatch.setattr(sys, "argv", [str(example), *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(example), run_name="__main__")
    assert end.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []
