"""The benchmark: what it counts, how it compares, what it refuses, and what it survives."""

import importlib
import json
import math
import os
import pathlib
import re
import sys
import textwrap
import types
from typing import ClassVar

import numpy as np
import pytest
import reference

import xpconv as xc
from xpconv import cli
from xpconv.bench import peers, plot, processes, quiet, readme, results, runner, settings, table, worker, workloads
from xpconv.bench.peers import base as peers_base
from xpconv.bench.peers import xpconv as xpconv_peer
from xpconv.bench.results import MachineReport, Measurement, Outcome, PeerReport, Report, Row
from xpconv.bench.workloads import ALL_WORKLOADS, TINY_WORKLOADS, WORKLOADS


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run the command line in an empty directory; gives exit code, lines of standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*words):
        code = cli.main(("bench", *words))
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return command


@pytest.fixture
def never_measured(monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("known before anything is measured"))


def one_line(err):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def settings_of(*specs, workload="tiny-max", **options):
    """Settings for a short run of these peers beside xpconv on numpy."""
    chosen = settings.settings_from(device=["numpy"], peers="none", workloads=workload, rounds=1, seconds=0.001, quiet=False)
    return settings.Settings(**{**vars(chosen), "peers": specs, **options})


# ----------------------------------------------------------------------------------------------------------------------
# Workloads
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workload", "operation", "work"),
    [
        ("W1", "fwd", 2 * 100 * 30 * 24 * 24 * 25),
        ("W1", "dx", 86_400_000),
        ("W1", "tot", 259_200_000),
        ("W1F", "fwd", 86_400_000),
        ("W2a-32", "fwd", 5_598_720),
        ("W2b-100", "dw", 103_680_000),
        ("W3a", "fwd", 3_699_376_128),
        ("W3c", "fwd", 1_644_167_168),
        ("W3d", "fwd", 1_849_688_064),
        ("W3e", "fwd", 1_888_223_232),
        ("W3f", "fwd", 57_802_752),
        ("W4a", "fwd", 4 * 100 * 30 * (24 * 24 + 12 * 12)),
        ("W4a", "tot", 17_280_000),
        ("W4b", "bwd", 64_225_280),
        ("W4d", "fwd", 64_225_280),
        ("W5", "step", 432_600_000),
    ],
)
def test_work_counted_by_hand(workload, operation, work):
    assert WORKLOADS[workload].work(operation) == work


def test_the_labels_are_those_of_the_list():
    assert list(WORKLOADS) == [
        "W1", "W1F", "W2a-32", "W2a-100", "W2b-32", "W2b-100", "W3a", "W3b", "W3c", "W3d", "W3e", "W3f", "W4a", "W4b", "W4c",
        "W4d", "W5",
    ]  # fmt: skip
    assert {kind for each in WORKLOADS.values() for kind in each.operations} == set(workloads.OPERATIONS)


def test_the_numbers_are_those_of_every_release_of_numpy():
    expected = [-0.9364804029464722, 0.97853684425354, 0.3070288896560669, -0.36465704441070557]
    assert workloads.numbers("x", (2, 2)).ravel().tolist() == expected
    assert workloads.numbers("x", (1,), bits=3).tolist() == [-1.0]
    assert workloads.numbers("w", (4,)).tolist()[0] not in expected


def test_no_two_numbers_are_equal():
    drawn = ((workloads.numbers("x", (2**24,)) + 1) * 2**23).astype(np.int64)
    np.testing.assert_array_equal(np.bincount(drawn), 1)


def test_numbers_of_two_names_have_nothing_to_do_with_each_other():
    x, w = workloads.numbers("x", (10_000,)), workloads.numbers("w", (10_000,))
    for shift in range(4):
        assert abs(np.corrcoef(x[shift:], w[: len(w) - shift])[0, 1]) < 0.05


@pytest.mark.parametrize("name", ["W5", "tiny-step"])
def test_no_rounding_changes_which_pixels_the_training_step_learns_from(name):
    workload = ALL_WORKLOADS[name]
    inputs = workload.inputs()
    x = inputs["images"][workload.first_batch].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), (2, 3))[:, 0]
    convolved = np.tensordot(windows, inputs["W1"][:, 0].astype(np.float64), axes=((3, 4), (1, 2))).transpose(0, 3, 1, 2)
    # Exact in float32, in any order: multiples of 2**-20 below 2**4.
    assert (np.abs(inputs["images"]).max() * np.abs(inputs["W1"]).sum(axis=(1, 2, 3)).max()) < 2**4
    np.testing.assert_array_equal(inputs["images"] * 2**6 % 1, 0)
    np.testing.assert_array_equal(inputs["W1"] * 2**14 % 1, 0)
    # No two equal maxima that a gradient reaches, and no value beside ReLU's edge.
    channels, height, width = workload.pooled_shape
    pools = convolved.reshape(-1, channels, height, 2, width, 2).transpose(0, 1, 2, 4, 3, 5).reshape(-1, 4)
    first, second = np.sort(pools, axis=1).T[:-3:-1]
    assert not ((first == second) & (first > 0)).any()
    assert not (first == 0).any()
    hidden = np.maximum(first, 0).reshape(len(x), -1) @ inputs["W2"].astype(np.float64)
    assert np.abs(hidden).min() > 2e-5 * np.abs(hidden).max()


# ----------------------------------------------------------------------------------------------------------------------
# Peers: every library that is here computes the tiny workloads right
# ----------------------------------------------------------------------------------------------------------------------


def expected_of(workload):
    """What is right, by the tests' own naive loops."""
    given = {name: array.astype(np.float64) for name, array in workload.inputs().items()}
    match workload:
        case workloads.Convolution():
            how = {"stride": workload.stride, "padding": workload.padding, "groups": workload.groups}
            dw, db = reference.conv2d_backward_weight(given["x"], given["dy"], given["w"].shape, **how)
            return {
                "y": reference.conv2d(given["x"], given["w"], given["b"], **how),
                "dx": reference.conv2d_backward_input(given["dy"], given["w"], given["x"].shape, **how),
                "dw": dw,
                "db": db,
            }
        case workloads.ConvolutionReluPooling():
            convolved = np.maximum(reference.conv2d(given["x"], given["w"], given["b"]), 0)
            return {"y": reference.max_pool2d(convolved, 2)[0]}
        case workloads.Pooling(kind="max"):
            how = {"stride": workload.stride, "padding": workload.padding}
            y, indices = reference.max_pool2d(given["x"], workload.pool_size, **how)
            return {"y": y, "dx": reference.scatter_add(given["dy"], indices, given["x"].shape)}
        case workloads.Pooling(kind="average"):
            how = {"stride": workload.stride, "padding": workload.padding}
            dx = reference.avg_pool2d_backward(given["dy"], given["x"].shape, workload.pool_size, **how)
            return {"y": reference.avg_pool2d(given["x"], workload.pool_size, **how), "dx": dx}
        case workloads.TrainingStep():
            return training_step_expected(workload, given)
        case _:
            pytest.fail("an unknown kind of workload")


def training_step_expected(workload, given):
    params = {name: given[name] for name in ("W1", "b1", "W2", "b2", "W3", "b3")}

    def loss_with(**changed):
        now = {**params, **changed}
        x, t = given["images"][workload.first_batch], given["labels"][workload.first_batch].astype(int)
        pooled = reference.max_pool2d(np.maximum(reference.conv2d(x, now["W1"], now["b1"]), 0), 2)[0]
        hidden = np.maximum(pooled.reshape(len(x), -1) @ now["W2"] + now["b2"], 0)
        scores = hidden @ now["W3"] + now["b3"]
        return (np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(x)), t]).mean()

    def slope(name, direction):
        step = 1e-7 * direction
        return (loss_with(**{name: params[name] + step}) - loss_with(**{name: params[name] - step})) / 2e-7

    return {"loss": loss_with(), "slope": slope}


@pytest.mark.parametrize("name", TINY_WORKLOADS)
@pytest.mark.parametrize("spec", [peers.REFERENCE, peers.xpconv_on("numpy"), *peers.PEERS.values()], ids=lambda spec: spec.name)
def test_every_peer_that_is_here_is_right(spec, name):
    if spec.name == "torch:compile":
        pytest.skip("compiles for half a minute")
    if spec.library not in ("reference", "xpconv", "book"):
        for package in [spec.library, *(["tensorflow"] if spec.library == "keras" else [])]:
            pytest.importorskip(package)
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else 1
    module = pytest.importorskip(spec.module)
    operations = module.Peer(spec.variant, threads).operations(TINY_WORKLOADS[name])
    expected = expected_of(TINY_WORKLOADS[name])
    for operation in operations.values():
        for result, array in operation.outcome().items():
            if result in expected:
                assert array.shape == np.shape(expected[result])
                assert worker.relative_error(array, expected[result]) < 2e-5, result
                continue
            for direction in np.random.default_rng(0).choice([-1.0, 1.0], (2, *array.shape)):
                slope = expected["slope"](result.removeprefix("d"), direction)
                np.testing.assert_allclose((array * direction).sum(), slope, rtol=1e-4, atol=1e-6, err_msg=result)
        operation.run()


def test_a_peer_has_no_operation_that_its_workload_lacks():
    for spec in (peers.xpconv_on("numpy"), peers.PEERS["book:float32"]):
        peer = pytest.importorskip(spec.module).Peer(spec.variant, 1)
        for workload in TINY_WORKLOADS.values():
            assert set(peer.operations(workload)) <= set(workload.operations)


def test_relative_error_lets_no_nan_pass():
    assert math.isnan(worker.relative_error(np.array([1, np.nan]), np.array([1.0, 2.0])))
    assert worker.relative_error(np.array([0.0]), np.array([0.0])) == 0
    assert worker.relative_error(np.zeros(0), np.zeros(0)) == 0


# ----------------------------------------------------------------------------------------------------------------------
# Figures
# ----------------------------------------------------------------------------------------------------------------------


def turns(*milliseconds):
    return [Measurement(time, time / 2, 10, None) for time in milliseconds]


def made_up_report():
    """Three rounds in which the machine gets ten times slower each time."""
    row = Row("W1", "MNIST, 30@5x5", "tot", "flop", 2_000_000)
    row.outcomes["xpconv:numpy"] = Outcome(error=1e-7, rounds=turns(1, 10, 100))
    row.outcomes["torch:eager"] = Outcome(error=2e-7, rounds=turns(2, 30, 50))
    row.outcomes["jax"] = Outcome(error=0.5, failure="wrong", reason="y is off", rounds=[])
    row.outcomes["book:float64"] = Outcome(error=3e-7, rounds=turns(400, 4000, 4000))
    pool = Row("W4a", "max 2x2", "tot", "byte", 6_000_000)
    pool.outcomes["xpconv:numpy"] = Outcome(error=0.0, rounds=turns(3))
    pool.outcomes["torch:eager"] = Outcome(error=0.0, rounds=turns(6))
    return Report(
        command="xpconv bench --rounds 3",
        started="2026-01-02T03:04:05+00:00",
        threads=2,
        rounds=3,
        seconds=0.4,
        xpconv="9.9",
        python="3.11.0",
        machine=MachineReport("A|B processor", 2, "Linux", "openblas 0.3", 100.0, 10.0),
        peers=[
            PeerReport("xpconv:numpy", "xpconv numpy", {"xpconv": "9.9", "numpy": "2.4"}, "3.11.0"),
            PeerReport("torch:eager", "PyTorch eager", {"torch": "2.13"}, "3.11.0"),
            PeerReport("jax", "JAX", {"jax": "0.10"}, "3.12.1"),
            PeerReport("keras", "Keras", skipped="No module named 'keras'"),
            PeerReport("book:float64", "the book, float64", {"numpy": "2.4"}, "3.11.0"),
        ],
        rows=[row, pool],
    )


def test_ratios_are_taken_within_rounds():
    row = made_up_report().rows[0]
    assert row.milliseconds("xpconv:numpy") == 10
    assert row.milliseconds("torch:eager") == 30
    # 2, 3 and 0.5: not 30 / 10, which compares one round with another.
    assert row.ratio("torch:eager", "xpconv:numpy") == results.Ratio(2, 0.5, 3)


def test_a_round_that_was_cut_off_counts_for_nobody():
    row = made_up_report().rows[0]
    del row.outcomes["torch:eager"].rounds[2]
    assert row.ratio("torch:eager", "xpconv:numpy") == results.Ratio(2.5, 2, 3)


def test_what_failed_has_no_time():
    row = made_up_report().rows[0]
    row.outcomes["torch:eager"].fail("died", "SIGSEGV")
    assert row.milliseconds("torch:eager") is None
    assert row.ratio("torch:eager", "xpconv:numpy") is None
    assert row.fastest() == "book:float64"


def test_the_fastest_other_is_never_xpconv():
    assert [row.fastest() for row in made_up_report().rows] == ["torch:eager", "torch:eager"]
    assert Row("W1", "", "fwd", "flop", 1, {"xpconv:numpy": Outcome(rounds=turns(1))}).fastest() is None


def test_rates():
    report = made_up_report()
    assert [row.rate("xpconv:numpy") for row in report.rows] == pytest.approx([0.2, 2.0])  # billions a second
    assert report.rows[0].rate("jax") is None
    assert [report.machine.limit(row.unit) for row in report.rows] == [100.0, 10.0]


def test_the_largest_error_is_that_of_what_was_right():
    report = made_up_report()
    assert report.largest_error("torch:eager") == 2e-7
    assert report.largest_error("jax") is None


def test_own_failures_are_told_once():
    report = made_up_report()
    assert report.own_failures() == []
    for row in report.rows:
        row.outcomes["xpconv:numpy"].fail("wrong", "y is off")
    assert report.own_failures() == ["xpconv numpy wrong in W1 tot: y is off", "xpconv numpy wrong in W4a tot: y is off"]


# ----------------------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------------------


def test_json_round_trip(tmp_path):
    report = made_up_report()
    report.save(tmp_path / "r.json")
    assert results.load(tmp_path / "r.json") == report
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def change(*path, to):
    def changed(fields):
        *way, last = path
        for key in way:
            fields = fields[key]
        if to is None:
            del fields[last]
        else:
            fields[last] = to

    return changed


TIME = ("rows", 0, "outcomes", "xpconv:numpy", "rounds", 0, "milliseconds")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (change("format", to="xpconv bench 2"), "format"),
        (change("machine", to=None), "machine"),
        (change("machine", "gflops", to=0), "positive"),
        (change("machine", "cpu", to=7), "7 should be a text"),
        (change("rows", 0, "unit", to="flops"), "flops"),
        (change("rows", 0, "colour", to="red"), "colour"),
        (change("rows", 0, "outcomes", "xpconv:numba", to={"rounds": []}), "xpconv:numba"),
        (change("rows", 0, "outcomes", "jax", "failure", to="tired"), "tired"),
        (change("rows", 0, "outcomes", "jax", "error", to=-1.0), "positive"),
        (change(*TIME, to=0), "positive"),
        (change(*TIME, to="1"), "'1' should be a number"),
        (change(*TIME, to=True), "True should be a number"),
        (change(*TIME, to=math.nan), "nan should be positive"),
        (change(*TIME, to=math.inf), "inf should be positive"),
        (change("rows", to={"a": 1}), "not a report"),
        (change("peers", to=["torch"]), "not a report"),
    ],
)
def test_damaged_json_is_refused(run, tmp_path, damage, told):
    path = tmp_path / "r.json"
    made_up_report().save(path)
    fields = json.loads(path.read_text())
    damage(fields)
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=f"r.json is not a report.*{told}" if told != "not a report" else told):
        results.load(path)
    code, out, err = run("--from", "r.json")
    assert (code, out) == (1, [])
    assert "--from: r.json is not a report" in one_line(err)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"format": "xpconv bench 1"', b"[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ValueError, match="not a report"):
        results.load(tmp_path / "r.json")


README = "# Title\n\n<!-- benchmark -->\nlast year\n<!-- /benchmark -->\n\nThe end.\n"


def test_the_readme_changes_between_the_markers_alone(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(README)
    readme.update(path, made_up_report())
    text = path.read_text()
    assert text.startswith("# Title\n\n<!-- benchmark -->\n| workload |")
    assert text.endswith("```\n<!-- /benchmark -->\n\nThe end.\n")
    assert "last year" not in text
    readme.update(path, made_up_report())
    assert path.read_text() == text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[2] == "| W1 MNIST, 30@5x5 | tot | **10.0** | 30.0 | wrong | 4000 | 2.00 (0.50 to 3.00) |"
    assert rows[3] == "| W4a max 2x2 | tot | **3.00** | 6.00 |  |  | 2.00 (2.00 to 2.00) |"
    assert len({row.count("|") for row in rows}) == 1
    assert "A\\|B processor, 2 cores, 2 threads for each library" in text
    assert "xpconv bench --rounds 3" in text


def test_the_ends_of_lines_stay_what_they_are(tmp_path):
    path = tmp_path / "README.md"
    path.write_bytes(README.replace("\n", "\r\n").encode())
    readme.update(path, made_up_report())
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n") > 10


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- benchmark -->",
        "<!-- /benchmark -->",
        "<!-- /benchmark --> <!-- benchmark -->",
        "<!-- benchmark --> <!-- benchmark --> <!-- /benchmark -->",
        "<!-- benchmark --> <!-- /benchmark --> <!-- /benchmark -->",
        README + README,
    ],
)
def test_a_readme_without_markers_is_refused(run, never_measured, tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    code, out, err = run("--readme", "README.md")
    assert (code, out) == (1, [])
    assert "--readme: README.md must have the lines <!-- benchmark --> and <!-- /benchmark --> once each" in one_line(err)
    assert (tmp_path / "README.md").read_text() == text


def test_rendering_what_was_measured_before(run, never_measured, tmp_path):
    pytest.importorskip("matplotlib")
    made_up_report().save(tmp_path / "r.json")
    (tmp_path / "README.md").write_text(README)
    code, out, err = run("--from", "r.json", "--readme", "README.md", "--plot", "p.png")
    assert (code, err) == (0, "")
    text = "\n".join(out)
    row = next(line for line in out if "W1 MNIST" in line)
    assert re.search(r"tot +10\.0 +2\.00 \(0\.50 to 3\.00\) +0\.200 GFLOP/s +0% +30\.0 +WRONG +4000", row)
    assert "JAX, W1 tot: wrong: y is off" in text
    assert "skipped: No module named 'keras'" in text
    assert "matrix product 100 GFLOP/s (openblas 0.3), copy 10 GB/s" in text
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "| W1 MNIST" in (tmp_path / "README.md").read_text()


def test_a_narrow_terminal_gets_several_tables(run, monkeypatch, tmp_path):
    report = made_up_report()
    report.save(tmp_path / "r.json")
    monkeypatch.setenv("COLUMNS", "72")
    _, out, _ = run("--from", "r.json")
    assert sum(line.startswith("Milliseconds") for line in out) == 2
    assert max(len(line.rstrip()) for line in out if "W4a" in line) <= 72
    assert not any("…" in line for line in out)


# ----------------------------------------------------------------------------------------------------------------------
# The picture
# ----------------------------------------------------------------------------------------------------------------------


def test_bars_go_to_the_right_where_xpconv_is_faster():
    pytest.importorskip("matplotlib")
    report = made_up_report()
    for turn, other in zip((40, 40, 40), (10, 10, 10), strict=True):
        report.rows[1].outcomes["xpconv:numpy"].rounds = turns(turn)
        report.rows[1].outcomes["torch:eager"].rounds = turns(other)
    (axes,) = plot.figure(report).axes
    edges = [sorted((bar.get_x(), bar.get_x() + bar.get_width())) for bar in axes.patches]
    assert edges == [[1, pytest.approx(2)], [pytest.approx(0.25), 1]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["W1  MNIST, 30@5x5", "W4a  max 2x2"]
    assert axes.get_xlabel().startswith("times as fast as PyTorch eager 2.13 ")
    assert [text.get_text() for text in axes.texts] == ["2.00×", "0.25×"]


def test_pytorch_is_the_measure_and_without_it_another():
    pytest.importorskip("matplotlib")
    report = made_up_report()
    report.rows[0].outcomes["jax"] = Outcome(rounds=turns(1, 1, 1))
    report.peers.reverse()
    assert "times as fast as PyTorch eager" in plot.figure(report).axes[0].get_xlabel()
    report = made_up_report()
    for row in report.rows:
        del row.outcomes["torch:eager"]
    assert "the book" not in plot.figure(report).axes[0].get_xlabel()
    report.rows[0].outcomes["jax"] = Outcome(rounds=turns(1))
    (axes,) = plot.figure(report).axes
    assert "times as fast as JAX" in axes.get_xlabel()
    assert len(axes.get_yticklabels()) == 1


def test_nothing_to_draw():
    pytest.importorskip("matplotlib")
    report = made_up_report()
    report.rows = []
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.figure(report)


# ----------------------------------------------------------------------------------------------------------------------
# A run
# ----------------------------------------------------------------------------------------------------------------------

SHORT = ("--device", "numpy", "--rounds", "2", "--seconds", "0.001", "--no-quiet")


def test_a_real_run_of_numpy_alone(run, tmp_path):
    code, out, err = run(*SHORT, "--peers", "none", "--workloads", "tiny", "--threads", "1", "--json", "r.json")
    assert (code, err) == (0, "")
    report = results.load(tmp_path / "r.json")
    kinds = [(row.workload, row.operation) for row in report.rows]
    assert kinds == [(name, kind) for name, workload in TINY_WORKLOADS.items() for kind in workload.operations]
    for row in report.rows:
        assert list(row.outcomes) == ["xpconv:numpy"]
        outcome = row.outcomes["xpconv:numpy"]
        assert (outcome.failure, len(outcome.rounds)) == (None, 2)
        assert 0 <= outcome.error < 2e-5
        assert all(0 < turn.fastest <= turn.milliseconds and turn.calls >= 3 for turn in outcome.rounds)
        assert row.work == ALL_WORKLOADS[row.workload].work(row.operation)
    assert (report.threads, report.rounds, report.xpconv, report.interrupted) == (1, 2, xc.__version__, False)
    assert report.machine.gflops > 0
    assert report.machine.gigabytes_per_second > 0
    assert report.peers[0].versions == {"xpconv": xc.__version__, "numpy": np.__version__}
    assert report.command == (
        "xpconv bench --device numpy --peers none --workloads tiny --rounds 2 --seconds 0.001 --threads 1 --no-quiet"
    )
    assert out[:3] == ["starting", "measuring the machine", "tiny-conv tiny convolution"]
    assert report.command in "".join(out)
    assert "\x1b" not in "".join(out)


FAKE = """
    import os, sys, time
    import numpy as np
    from xpconv.bench.peers import base

    class Peer(base.Peer):
        def __init__(self, variant, threads):
            self.how = variant
            if variant == "absent":
                import a_library_that_is_not_installed
            if variant == "dead":
                print("Error: no such processor", file=sys.stderr)
                os._exit(7)

        def versions(self):
            print("a library that prints on standard output", flush=True)
            return {"fake": "1"}

        def pooling(self, workload):
            import xpconv as xc
            x, dy = workload.inputs().values()
            how = dict(stride=workload.stride, padding=workload.padding)
            y = xc.max_pool2d(x, workload.pool_size, **how)
            asked = 0
            def run():
                nonlocal asked
                asked += 1
                if self.how == "dies later" and asked > 1:
                    os.abort()
                if self.how == "leaves a child":
                    if os.fork() == 0:
                        time.sleep(1000)
                    os._exit(3)
                if self.how == "hangs":
                    time.sleep(1000)
                if self.how == "raises":
                    raise RuntimeError("out of memory")
                if self.how == "lies":
                    return y * np.float32(1.0001)
                if self.how == "one pixel":
                    wrong = y.copy()
                    wrong[-1, -1, -1, -1] += np.float32(0.001)
                    return wrong
                if self.how == "nan":
                    return np.where(y == y.max(), np.float32(np.nan), y)
                if self.how == "shape":
                    return y[..., :-1]
                return y
            if self.how == "unprepared":
                raise MemoryError("no memory")
            return base.operations({"fwd": run}, base.POOLING_RESULTS, lambda name, value: value)
"""


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Make a peer that behaves as it is told."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "fake_peer.py").write_text(textwrap.dedent(FAKE))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return lambda how: peers.PeerSpec(f"fake:{how}", f"fake {how}", "fake_peer", how)


def test_what_goes_wrong_is_told_and_the_run_goes_on(fake):
    hows = ["fine", "absent", "dead", "dies later", "hangs", "raises", "lies", "one pixel", "nan", "shape", "unprepared"]
    report = runner.run(settings_of(*map(fake, hows), operations=("fwd",), timeout=5.0))
    skipped = {peer.name: peer.skipped for peer in report.peers if peer.skipped}
    assert skipped == {
        "fake:absent": "No module named 'a_library_that_is_not_installed'",
        "fake:dead": "its process died: exit code 7: Error: no such processor",
    }
    (row,) = report.rows
    told = {name.removeprefix("fake:"): outcome for name, outcome in row.outcomes.items()}
    assert list(told) == ["xpconv:numpy", *[how for how in hows if how not in ("absent", "dead")]]
    for how, failure, reason in [
        ("dies later", "died", "SIGABRT" if os.name == "posix" else "exit code"),
        ("hangs", "hung", "no answer within 5 seconds"),
        ("raises", "failed", "RuntimeError: out of memory"),
        ("unprepared", "failed", "MemoryError: no memory"),
        ("lies", "wrong", "y is off by 1.0e-04 of its largest value, 2e-05 is tolerated"),
        ("one pixel", "wrong", "y is off by"),
        ("nan", "wrong", "y holds NaN or infinity"),
        ("shape", "wrong", r"y has the shape \(2, 3, 4, 3\), expected \(2, 3, 4, 4\)"),
    ]:
        assert told[how].failure == failure
        assert re.match(reason, told[how].reason), told[how].reason
        assert told[how].milliseconds is None
        assert told[how].rounds == []
    for how in ("fine", "xpconv:numpy"):
        assert told[how].failure is None
        assert len(told[how].rounds) == 1
    assert told["lies"].error == pytest.approx(1e-4, rel=0.01)
    assert told["fine"].error == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_dead_are_told_from_the_hanging_though_their_children_live(fake, tmp_path):
    with processes.stopping({"fake": processes.Worker(fake("leaves a child"), 1, tmp_path)}) as workers:
        workers["fake"].ask(60)
        workers["fake"].ask(60, do="prepare", workload="tiny-max")
        with pytest.raises(processes.WorkerError, match="exit code 3") as died:
            workers["fake"].ask(60, do="time", operation="fwd", seconds=0.001)
    assert died.value.kind == "died"


def test_xpconv_itself_being_wrong_ends_in_an_error(run, fake, monkeypatch):
    liar = peers.PeerSpec("xpconv:liar", "xpconv liar", "fake_peer", "lies")
    chosen = settings_of(operations=("fwd",), ours=(liar,))
    monkeypatch.setattr(settings, "settings_from", lambda **_: chosen)
    code, out, err = run()
    assert code == 1
    assert "xpconv liar wrong in tiny-max fwd: y is off by 1.0e-04" in one_line(err)
    assert "WRONG" in "\n".join(out)


class FakeWorker:
    """Answers as a worker would, in this process; keeps what was asked."""

    asked: ClassVar[list] = []
    started: ClassVar[list] = []
    dies: ClassVar[list] = []
    limits: ClassVar[list] = []
    sees_cards: ClassVar[set] = set()

    def __init__(self, spec, threads, folder, python=None, *, cards=False):
        self.name, self.id = spec.name, os.getpid()
        self.started.append(spec.name)
        self.sees_cards.add(cards)

    def ask(self, timeout, **request):
        match request.get("do"):
            case None:
                return {"versions": {}, "python": "3"}
            case "limits":
                self.limits.append(self.name)
                if (self.name, "limits", len(self.asked)) in self.dies:
                    raise processes.WorkerError("died", "SIGKILL")
                return {"gflops": 1.0 + len(self.asked), "gigabytes_per_second": 9.0 - len(self.asked), "blas": "fake"}
            case "prepare":
                self.workload = request["workload"]
                return {"operations": ["fwd", "bwd", "tot"]}
            case "expect":
                if (self.name, self.workload) in self.dies:
                    raise processes.WorkerError("died", "SIGKILL")
                return {}
            case "check":
                return {"error": 0.0, "where": "y"}
            case "time":
                if (self.name, self.workload, request["operation"]) in self.dies:
                    raise processes.WorkerError("died", "SIGKILL")
                self.asked.append((request["operation"], self.name))
                return {"milliseconds": [3.0, 1.0, 2.0]}

    def stop(self):
        self.stopped = True


@pytest.fixture
def fake_workers(monkeypatch):
    monkeypatch.setattr(runner, "Worker", FakeWorker)
    monkeypatch.setattr(runner, "SETTLE_SECONDS", 0)
    for name, value in (("asked", []), ("started", []), ("dies", []), ("limits", []), ("sees_cards", set())):
        monkeypatch.setattr(FakeWorker, name, value)
    return FakeWorker


A, B = (peers.PeerSpec(name, name, "no_module") for name in ("a", "b"))


def test_all_take_turns_in_every_round_and_nobody_is_always_first(fake_workers):
    report = runner.run(settings_of(A, B, operations=("fwd", "tot"), rounds=2))
    first = ["xpconv:numpy", "a", "b"]
    second = ["a", "b", "xpconv:numpy"]
    assert fake_workers.asked == [(kind, name) for order in (first, second) for kind in ("fwd", "tot") for name in order]
    assert report.rows[0].outcomes["a"].rounds[0].milliseconds == 2.0
    assert report.rows[0].outcomes["a"].rounds[0].fastest == 1.0


def test_a_peer_that_died_is_started_again_for_the_next_workload_but_not_for_ever(fake_workers):
    fake_workers.dies = [("a", name, "bwd") for name in ("tiny-max", "tiny-average", "W4a")]
    report = runner.run(settings_of(A, workload="tiny-max,tiny-average,W4a"))
    assert fake_workers.started.count("a") == 2
    assert fake_workers.started.count("xpconv:numpy") == 1
    told = [(row.outcomes["a"].failure, row.outcomes["a"].reason) for row in report.rows]
    lost = ("died", "its process was lost too often to be started again")
    assert told == [(None, ""), ("died", "SIGKILL"), ("died", "SIGKILL")] * 2 + [lost] * 3
    assert all(row.outcomes["xpconv:numpy"].milliseconds == 2.0 for row in report.rows)


def test_a_reference_that_dies_costs_its_workload_alone(fake_workers):
    fake_workers.dies = [("reference", "tiny-max")]
    report = runner.run(settings_of(A, workload="tiny-max,tiny-average"))
    assert [row.outcomes["xpconv:numpy"].failure for row in report.rows] == ["failed"] * 3 + [None] * 3
    assert "a" not in report.rows[0].outcomes
    assert report.own_failures()[0].endswith("the reference, xpconv on numpy in float64, died: SIGKILL")


def test_the_machine_is_measured_again_at_the_end_and_the_faster_counts(fake_workers):
    machine = runner.run(settings_of(A, operations=("fwd",))).machine
    assert (machine.gflops, machine.gigabytes_per_second) == (3.0, 9.0)


def test_a_reference_that_dies_at_the_end_costs_nothing(fake_workers):
    fake_workers.dies = [("reference", "limits", 2)]
    report = runner.run(settings_of(A, operations=("fwd",)))
    assert report.machine.gflops == 1.0
    assert report.rows[0].outcomes["a"].milliseconds == 2.0


def test_a_disturbed_turn_is_taken_again_and_the_quietest_counts(fake_workers, monkeypatch):
    others = iter([0.9, 0.5, 0.7, 0.0])
    monkeypatch.setattr(runner, "cores_used_by_others", lambda before, after: next(others))
    monkeypatch.setattr(quiet.Patience, "wait", lambda patience, processes: None)
    report = runner.run(settings_of(A, operations=("fwd",), patience=60.0))
    assert [report.rows[0].outcomes[name].rounds[0].other_cores for name in ("xpconv:numpy", "a")] == [0.5, 0.0]
    assert len(fake_workers.asked) == 4


def test_without_patience_a_disturbed_turn_counts(fake_workers, monkeypatch):
    monkeypatch.setattr(runner, "cores_used_by_others", lambda before, after: 0.9)
    report = runner.run(settings_of(A, operations=("fwd",)))
    assert len(fake_workers.asked) == 2
    assert report.rows[0].outcomes["a"].rounds[0].other_cores == 0.9


def test_ctrl_c_keeps_what_was_found(run, fake_workers, monkeypatch, tmp_path):
    ask = FakeWorker.ask

    def pressed(self, timeout, **request):
        if request.get("do") == "time" and len(self.asked) == 4:
            raise KeyboardInterrupt
        return ask(self, timeout, **request)

    monkeypatch.setattr(FakeWorker, "ask", pressed)
    code, out, err = run(*SHORT, "--peers", "none", "--workloads", "tiny-max,tiny-average", "--json", "r.json")
    assert (code, err) == (130, "")
    report = results.load(tmp_path / "r.json")
    assert report.interrupted
    assert [len(row.outcomes["xpconv:numpy"].rounds) for row in report.rows] == [2, 1, 1]
    assert any("was interrupted" in line for line in out)


def test_ctrl_c_before_there_is_anything(run, fake_workers, monkeypatch, tmp_path):
    def pressed(self, timeout, **request):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeWorker, "ask", pressed)
    code, _, err = run(*SHORT, "--peers", "none", "--workloads", "tiny-max", "--json", "r.json")
    assert (code, err) == (130, "error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_reference_that_does_not_start(run, fake_workers, monkeypatch):
    def dead(self, timeout, **request):
        raise processes.WorkerError("died", "exit code 1: ImportError: numpy")

    monkeypatch.setattr(FakeWorker, "ask", dead)
    code, _, err = run(*SHORT, "--peers", "none", "--workloads", "tiny-max")
    assert code == 1
    assert "the reference, xpconv on numpy in float64, does not run: its process died: exit code 1" in one_line(err)


# ----------------------------------------------------------------------------------------------------------------------
# On a card: what can be known without one
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def a_card(monkeypatch):
    """Pretend that there are two cards."""

    def found(name):
        return xc.Device({"cuda": "cuda:0"}.get(name, name)) if name.startswith("cuda") else xc.get_device(name)

    monkeypatch.setattr(settings, "get_device", found)


def test_a_card_is_compared_with_those_who_compute_on_it(a_card):
    chosen = settings.settings_from(device=["cuda"])
    assert chosen.card == "cuda:0"
    assert [(spec.name, spec.label, spec.variant) for spec in chosen.ours] == [
        ("xpconv:cuda:0", "xpconv cuda:0", "cuda:0:float32")
    ]
    assert [(spec.name, spec.label, spec.variant) for spec in chosen.peers] == [
        ("torch:eager", "PyTorch eager cuda:0", "eager@cuda:0"),
        ("torch:channels_last", "PyTorch channels_last cuda:0", "channels_last@cuda:0"),
        ("torch:compile", "torch.compile cuda:0", "compile@cuda:0"),
    ]
    assert chosen.command == "xpconv bench --device cuda"
    other = settings.settings_from(device=["cuda:1"], peers="torch:eager")
    assert [spec.variant for spec in (*other.ours, *other.peers)] == ["cuda:1:float32", "eager@cuda:1"]


@pytest.mark.parametrize("devices", [["cuda", "numpy"], ["cuda:0", "cuda:1"]])
def test_a_card_is_measured_alone(a_card, devices):
    with pytest.raises(ValueError, match=r"--device: a card is measured in a run of its own, got cuda:0, (numpy|cuda:1)"):
        settings.settings_from(device=devices)


@pytest.mark.parametrize("peer", ["jax", "book:float32"])
def test_who_computes_on_no_card_is_refused(a_card, peer):
    with pytest.raises(
        ValueError, match=f"--peers: {peer} computes on no card here; with --device cuda:0 there are torch:eager"
    ):
        settings.settings_from(device=["cuda"], peers=peer)


def test_the_limits_of_a_card_come_from_who_computes_on_it(fake_workers, a_card):
    chosen = settings.settings_from(device=["cuda"], peers="torch:eager", workloads="tiny-max", rounds=1, quiet=False)
    report = runner.run(chosen)
    assert fake_workers.limits == ["xpconv:cuda:0"] * 2
    assert fake_workers.sees_cards == {True}
    assert [peer.label for peer in report.peers] == ["xpconv cuda:0", "PyTorch eager cuda:0"]


def test_on_the_processor_no_process_sees_a_card(fake_workers, tmp_path):
    runner.run(settings_of(A, operations=("fwd",)))
    assert fake_workers.sees_cards == {False}
    assert fake_workers.limits == ["reference"] * 2
    assert processes._environment(1, tmp_path, None)["CUDA_VISIBLE_DEVICES"] == ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    assert processes._environment(1, tmp_path, None, cards=True).get("CUDA_VISIBLE_DEVICES") == visible


class FakeStream:
    """A stream in which all takes the time that it is said to take, and a host that is slower than it or faster."""

    def __init__(self):
        self.host = self.card = 0.0
        self.told = []

    def queue(self, what, milliseconds):
        self.host += 0.5
        self.card = max(self.card, self.host) + milliseconds
        self.told.append(what)

    def event(self):
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, stream):
        self.stream = stream

    def record(self):
        self.at = max(self.stream.card, self.stream.host)
        self.stream.told.append("event")

    def synchronize(self):
        self.stream.host = max(self.stream.host, self.at)
        self.stream.told.append("wait")


def test_the_clock_of_a_card_leaves_out_what_the_host_takes():
    stream = FakeStream()
    clock = peers_base.EventClock(lambda: stream.queue("flush", 10), stream.event, lambda a, b: b.at - a.at)
    for _ in range(2):
        assert clock.milliseconds(lambda: [stream.queue(f"kernel {number}", 3) for number in range(2)]) == 6
    assert stream.told == ["flush", "event", "kernel 0", "kernel 1", "event", "wait"] * 2


def test_xpconv_on_a_card_is_timed_by_events_and_tells_what_the_card_can_do(monkeypatch):
    """With a stand-in for CuPy that is NumPy and a stream."""
    stream = FakeStream()
    attributes = {"MultiProcessorCount": 132, "ClockRate": 1_980_000}
    cuda = types.SimpleNamespace(
        Device=lambda number: types.SimpleNamespace(
            use=lambda: stream.told.append(f"card {number}"), attributes=attributes, compute_capability="90"
        ),
        Event=stream.event,
        get_elapsed_time=lambda a, b: b.at - a.at,
        runtime=types.SimpleNamespace(
            runtimeGetVersion=lambda: 13010,
            driverGetVersion=lambda: 13000,
            getDeviceProperties=lambda number: {"name": b"H100"},
        ),
    )
    cupy = types.SimpleNamespace(
        __version__="14",
        cuda=cuda,
        empty=lambda size, dtype: types.SimpleNamespace(fill=lambda value: stream.queue(f"flush {size >> 20} MB", 10)),
        ones=lambda size, dtype: size,
        empty_like=lambda size: size,
        copyto=lambda target, source: stream.queue(f"copy {source >> 20} MB", 0.2),
    )
    device = xc.Device("cuda:1")
    device.__dict__.update(xp=cupy, kernels=None)
    monkeypatch.setattr(xc, "get_device", lambda name: device)
    peer = xpconv_peer.Peer("cuda:1:float32", 1)
    assert stream.told == ["card 1"]
    assert peer.versions() == {"xpconv": xc.__version__, "cupy": "14", "CUDA": "13.1"}
    assert peer.milliseconds(lambda: stream.queue("kernel", 2.5)) == 2.5
    limits = peer.limits(1)
    assert limits["gflops"] == pytest.approx(2 * 132 * 128 * 1.98)
    assert limits["gigabytes_per_second"] == pytest.approx(2 * (256 << 20) / 0.2e-3 / 1e9)
    assert stream.told[-5:] == ["flush 256 MB", "event", "copy 256 MB", "event", "wait"]
    assert limits["card"] == "H100, 132 multiprocessors at 1.98 GHz, driver for CUDA 13"
    machine = MachineReport("a processor", 2, "Linux", **limits)
    assert machine.or_faster(**limits) == machine
    report = made_up_report()
    report.machine = machine
    assert table.machine_line(report).startswith(
        "H100, 132 multiprocessors at 1.98 GHz, driver for CUDA 13; limits: 66908 GFLOP/s"
    )


def test_pytorch_without_a_card_takes_no_part():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a card here")
    with pytest.raises(ImportError, match=r"PyTorch .* finds no card that it can use"):
        importlib.import_module("xpconv.bench.peers.torch").Peer("eager@cuda:0", torch.get_num_threads())


# ----------------------------------------------------------------------------------------------------------------------
# Processes
# ----------------------------------------------------------------------------------------------------------------------


def test_a_worker_has_its_threads_and_no_foreign_kernels(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    environment = processes._environment(3, tmp_path, None)
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(environment)
    assert {environment[name] for name in processes.THREAD_VARIABLES} == {"3"}


def test_another_python_sees_xpconv_and_nothing_beside_it(monkeypatch, tmp_path):
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "numpy.py").write_text("raise RuntimeError('of another Python')")
    monkeypatch.setenv("PYTHONPATH", str(poison))
    with processes.stopping({}) as workers:
        book = workers["book"] = processes.Worker(peers.PEERS["book:float32"], 1, tmp_path, sys.executable)
        assert book.ask(60)["versions"] == {"numpy": np.__version__}
        assert book.ask(60, do="prepare", workload="tiny-conv") == {"operations": ["fwd", "dx", "dw", "tot"]}
    assert [path.name for path in (tmp_path / "path").iterdir()] == ["xpconv"]


def test_a_worker_imports_numpy_and_its_library_alone(tmp_path, monkeypatch):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "curious.py").write_text(
        "import sys\n"
        "from xpconv.bench.peers.book import Peer as Book\n"
        "class Peer(Book):\n"
        "    def versions(self): return dict.fromkeys(name.partition('.')[0] for name in sys.modules)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    spec = peers.PeerSpec("curious", "curious", "curious", "float32")
    with processes.stopping({"curious": processes.Worker(spec, 1, tmp_path)}) as workers:
        names = set(workers["curious"].ask(60)["versions"])
    assert {"numpy", "xpconv"} <= names
    assert not names & {"rich", "typer", "threadpoolctl", "safetensors", "pooch", "matplotlib", "numba", "torch"}


def test_stopped_workers_are_gone(tmp_path):
    with processes.stopping({}) as workers:
        one = workers["book"] = processes.Worker(peers.PEERS["book:float32"], 1, tmp_path)
        one.ask(60)
        assert one._process.poll() is None
    assert one._process.poll() is not None


def test_a_worker_that_was_killed_is_told_at_once(tmp_path):
    with processes.stopping({"book": processes.Worker(peers.PEERS["book:float32"], 1, tmp_path)}) as workers:
        workers["book"].ask(60)
        workers["book"]._process.kill()
        with pytest.raises(processes.WorkerError, match="SIGKILL" if os.name == "posix" else "exit code") as died:
            workers["book"].ask(60, do="prepare", workload="tiny-max")
    assert died.value.kind == "died"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not bind processes to cores")
def test_a_worker_keeps_to_as_many_cores_as_it_has_threads(tmp_path):
    with processes.stopping({"book": processes.Worker(peers.PEERS["book:float32"], 1, tmp_path)}) as workers:
        workers["book"].ask(60)
        assert len(os.sched_getaffinity(workers["book"].id)) == 1


# ----------------------------------------------------------------------------------------------------------------------
# A quiet machine
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def proc(monkeypatch, tmp_path):
    """A made-up /proc: four cores, two of them usable, and a process whose name tries to mislead."""

    def write(busy, ours):
        (tmp_path / "stat").write_text(
            "cpu  9 9 9 9 9 9 9 9 9 9\n"
            f"cpu0 {busy} 1 2 5000 600 3 4 5 70 80\n"
            "cpu1 0 0 0 0 0 0 0 0 0 0\n"
            "cpu2 100000 0 0 0 0 0 0 0 0 0\n"
            "intr 1 2 3\n"
        )
        (tmp_path / "42").mkdir(exist_ok=True)
        fields = " ".join(["S", *["1"] * 10, str(ours), "50", *["7"] * 20])
        (tmp_path / "42" / "stat").write_text(f"42 (a) b ) {fields}\n")

    monkeypatch.setattr(quiet, "PROC", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: 100, raising=False)
    return write


def test_what_the_system_counts(proc, monkeypatch):
    proc(busy=200, ours=100)
    before = quiet.sample([42, 43])
    assert (before.busy, before.ours) == (2.15, 1.5)  # without idle, waiting and what guests have counted already
    monkeypatch.setattr(quiet.time, "monotonic", lambda: before.at + 2)
    proc(busy=500, ours=200)
    assert quiet.cores_used_by_others(before, quiet.sample([42])) == pytest.approx((3 - 1) / 2)


def test_nothing_is_known_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(quiet, "PROC", tmp_path / "nowhere")
    assert quiet.sample([1]) is None
    assert quiet.cores_used_by_others(None, None) is None
    quiet.Patience(1000).wait([])  # at once


def test_patience_comes_to_an_end(monkeypatch):
    slept = []
    monkeypatch.setattr(quiet, "sample", lambda processes: quiet.Sample(0, 0, 0))
    monkeypatch.setattr(quiet, "cores_used_by_others", lambda before, after: 1.5)
    monkeypatch.setattr(quiet.time, "sleep", slept.append)
    patience = quiet.Patience(0.35)
    patience.wait([])
    patience.wait([])
    assert len(slept) == 4


def test_no_single_wait_uses_all_the_patience(monkeypatch):
    monkeypatch.setattr(quiet, "sample", lambda processes: quiet.Sample(0, 0, 0))
    monkeypatch.setattr(quiet, "cores_used_by_others", lambda before, after: 1.5)
    monkeypatch.setattr(quiet.time, "sleep", lambda seconds: None)
    patience = quiet.Patience(60)
    patience.wait([])
    assert patience.left == pytest.approx(60 - quiet.LONGEST_WAIT, abs=1.5 * quiet.WINDOW_SECONDS)


def test_a_quiet_machine_is_waited_for(monkeypatch):
    others = iter([1.5, 0.5, 0.02, 9])
    monkeypatch.setattr(quiet, "sample", lambda processes: quiet.Sample(0, 0, 0))
    monkeypatch.setattr(quiet, "cores_used_by_others", lambda before, after: next(others))
    monkeypatch.setattr(quiet.time, "sleep", lambda seconds: None)
    patience = quiet.Patience(60)
    patience.wait([])
    assert next(others) == 9
    assert patience.left == pytest.approx(60 - 2 * quiet.WINDOW_SECONDS)


# ----------------------------------------------------------------------------------------------------------------------
# The words of the command
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("W1", ["W1"]),
        ("w1", ["W1"]),
        ("W1F,W1", ["W1F", "W1"]),
        ("W2b", ["W2b-32", "W2b-100"]),
        ("W4, W5", ["W4a", "W4b", "W4c", "W4d", "W5"]),
        ("W4a,W4", ["W4a", "W4b", "W4c", "W4d"]),
        ("W", list(WORKLOADS)),
    ],
)
def test_workloads_by_the_beginning_of_their_ids(words, ids):
    assert [workload.id for workload in settings.settings_from(workloads=words, device=["numpy"]).workloads] == ids


def test_the_defaults():
    chosen = settings.settings_from()
    assert [spec.name for spec in chosen.peers] == list(peers.PEERS)
    assert [workload.id for workload in chosen.workloads] == list(WORKLOADS)
    available = [status.name for status in xc.devices() if status.available and not status.name.startswith("cuda")]
    assert [spec.name.partition(":")[2].partition(":")[0] for spec in chosen.ours] == available
    assert chosen.card is None
    assert (chosen.rounds, chosen.seconds, chosen.patience) == (7, 0.4, 600)
    assert chosen.command == "xpconv bench"


def test_quick_gives_way_to_what_is_said():
    assert [workload.id for workload in settings.settings_from(quick=True).workloads] == ["W1", "W3a", "W4a", "W5"]
    chosen = settings.settings_from(quick=True, workloads="W4a", rounds=5, device=["numpy"])
    assert [workload.id for workload in chosen.workloads] == ["W4a"]
    assert (chosen.rounds, chosen.seconds) == (5, 0.1)
    assert chosen.command == "xpconv bench --device numpy --workloads W4a --rounds 5 --quick"


def test_peers_by_library_and_by_variant():
    def names(words):
        return [spec.name for spec in settings.settings_from(peers=words, device=["numpy"]).peers]

    assert names("torch") == ["torch:eager", "torch:channels_last", "torch:compile"]
    assert names("book:float32,jax") == ["book:float32", "jax"]
    assert names("none") == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workloads", "X1"], r"--workloads: unknown workload 'X1'; expected one of W1, W1F, .*\(did you mean 'W1'"),
        (["--workloads", "W1,"], "--workloads: expected names with commas between them, got 'W1,'"),
        (["--workloads", ""], "--workloads: expected names"),
        (["--peers", "pytorch"], r"--peers: unknown peer 'pytorch'; .*\(did you mean 'torch'"),
        (["--peers", "torch:eagre"], r"did you mean 'torch:eager'"),
        (["--peers", "JAX"], r"did you mean 'jax'"),
        (["--ops", "forward"], "--ops: unknown operation 'forward'; expected one of fwd, dx"),
        (["--ops", "bw"], r"did you mean 'bwd'"),
        (["--ops", "step", "--workloads", "W1"], "--ops: none of these workloads has 'step'; they have fwd, dx, dw, tot"),
        (["--device", "nunpy"], r"--device: unknown device 'nunpy'; .*\(did you mean 'numpy'"),
        (["--python", "torch"], "--python: expected NAME=PATH"),
        (["--python", "troch=python"], r"--python: unknown peer 'troch'; .*\(did you mean 'torch'"),
        (["--python", "torch=nowhere/python"], "--python: 'nowhere/python' for torch is no program that can be run"),
        (["--python", f"jax={sys.executable}", "--python", f"jax={sys.executable}"], "--python: jax is named twice"),
        (["--rounds", "0"], "--rounds"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--threads", "0"], "--threads"),
        (["--json", ""], "--json: the path is empty"),
        (["--json", "r", "--readme", "./r"], "--json and --readme name the same file"),
        (["--from", "r", "--rounds", "3"], "--from measures nothing"),
        (["--from", "r", "--no-quiet"], "--from measures nothing"),
        (["--from", "r", "--quick"], "--from measures nothing"),
        (["--from", "r", "--json", "s"], "--from measures nothing"),
        (["--roofline", "r", "--from", "s"], "--roofline measures nothing: it goes with no other option"),
        (["--roofline", "r", "--device", "cuda"], "--roofline measures nothing"),
        (["--roofline", "r", "--quick"], "--roofline measures nothing"),
        (["W1"], "W1"),
    ],
)
def test_wrong_commands(run, never_measured, tmp_path, words, message):
    code, out, err = run(*words)
    assert (code, out) == (2, [])
    assert re.search(message, one_line(err)), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cuda:77"], "device 'cuda:77' cannot be used here"),
        (["--json", "nowhere/r"], "--json: .*nowhere: cannot write: no such directory"),
        (["--readme", "nowhere/README.md"], "--readme: .*nowhere: cannot write: no such directory"),
        (["--readme", "README.md"], "--readme: .*README.md: No such file"),
        (["--json", "."], "--json: .*is a directory"),
        (["--from", "nowhere"], "--from: nowhere: No such file or directory"),
        (["--roofline", "nowhere/r"], "--roofline: .*nowhere: cannot write: no such directory"),
    ],
)
def test_what_cannot_be_done_is_known_before_anything_is_measured(run, never_measured, tmp_path, words, message):
    if words[1] == "cuda:77" and any(status.name == "cuda" and status.available for status in xc.devices()):
        pytest.skip("there is a card here")
    code, out, err = run(*words)
    assert (code, out) == (1, [])
    assert re.search(message, one_line(err)), err
    assert list(tmp_path.iterdir()) == []


def test_help_tells_every_option(run):
    code, out, _ = run("--help")
    assert code == 0
    assert re.findall(r"^\W*(--[a-z-]+)", "\n".join(out), re.MULTILINE) == [
        "--device", "--peers", "--workloads", "--ops", "--rounds", "--seconds", "--threads", "--python", "--quick", "--quiet",
        "--json", "--plot", "--readme", "--from", "--roofline", "--help",
    ]  # fmt: skip


def test_a_file_gets_tables_of_full_width(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    made_up_report().save(tmp_path / "r.json")
    assert cli.main(("bench", "--from", str(tmp_path / "r.json"))) == 0
    out = capsys.readouterr().out
    assert out.count("Milliseconds") == 1


def test_three_digits():
    assert [table.three_digits(value) for value in (0.0004, 0.9994, 9.994, 99.94, 999.4, 12345.6)] == [
        "0.000", "0.999", "9.99", "99.9", "999", "12346",
    ]  # fmt: skip


def test_the_shipped_folder_has_a_module_for_every_peer():
    folder = pathlib.Path(peers.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert modules == {spec.library for spec in peers.PEERS.values()} | {"xpconv"}
