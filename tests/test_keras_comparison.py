"""The page for Keras users: whether its tables have everything, and where Keras is installed, whether they are true."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE / "keras_comparison"))

import compare  # noqa: E402 - in the directory that was just added
from comparison import Case, Checks  # noqa: E402

PAGE = HERE.parent / "docs" / "keras.md"

# What runs in a moment; all of it takes a minute.
QUICK = [case for case in compare.CASES if case.group in ("layer", "activation", "regularizer", "schedule")]


def rows_of_the_page():
    """The rows of each table, by the title of the table: the names in the first cell, and the other cells."""
    between = PAGE.read_text(encoding="utf-8").partition("<!-- keras -->")[2].partition("<!-- /keras -->")[0]
    tables = {}
    for part in between.split("### ")[1:]:
        title, _, text = part.partition("\n")
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
        tables[title.strip()] = [(re.findall(r"`([^`]+)`", cells[0]), [cell.strip() for cell in cells[1:]]) for cells in rows]
    return tables


@pytest.mark.parametrize("group", compare.GROUPS)
def test_the_page_has_a_row_for_every_public_name(group):
    expected = compare.public_names()[group]
    found = [name for names, _ in rows_of_the_page()[compare.GROUPS[group]] for name in names]
    assert expected, f"no public {group} was found"
    assert set(expected) <= set(found)
    assert len(found) == len(set(found))


def test_the_page_has_the_rows_of_the_script_and_no_others():
    for group, title in compare.GROUPS.items():
        cases = [list(case.names) for case in compare.CASES if case.group == group]
        assert [names for names, _ in rows_of_the_page()[title]] == cases


def test_every_row_says_equal_or_tells_the_difference():
    for title, rows in rows_of_the_page().items():
        for names, cells in rows:
            assert all(cells), f"{title}, {names}: an empty cell"
            assert "unexplained" not in " ".join(cells), f"{title}, {names}"


def test_the_page_tells_the_versions():
    text = PAGE.read_text(encoding="utf-8")
    assert re.search(r"^Made with xpconv \d+\.\d+\S*, Keras 3\.\d+\S*, TensorFlow 2\.\d+\S*\.$", text, re.MULTILINE)


def test_no_public_name_is_without_a_case():
    assert compare.forgotten() == []


def test_arguments_left_out_everywhere_have_a_reason_on_the_page():
    tables = rows_of_the_page()
    told = {names[0] for names, _ in tables["Arguments that are left out everywhere"]}
    for title in compare.GROUPS.values():
        for _, cells in tables[title]:
            for listed in re.findall(r"without ((?:`[^`]+`(?:, )?)+)", cells[0]):
                assert set(re.findall(r"`([^`]+)`", listed)) <= told


# ---- that the comparison can fail ----------------------------------------------------------------------------------------


def close(ours, theirs, **options):
    checks = Checks()
    checks.close("y", np.asarray(ours), np.asarray(theirs), "float64", **options)
    return checks.unexpected


def test_numbers_that_differ_are_told():
    assert close([1.0, 2.0], [1.0, 2.0]) == []
    assert close([1.0, 2.0 + 1e-13], [1.0, 2.0]) == []
    assert close([1.0, np.nan, np.inf], [1.0, np.nan, np.inf]) == []
    for ours in ([1.0, 2.0 + 1e-9], [1.0, np.nan], [1.0, np.inf], [1.0], [[1.0, 2.0]], [1, 2]):
        assert close(ours, [1.0, 2.0]), ours
    assert close([1.0, 2.0], [1.0, np.nan])
    assert close([1.0, -np.inf], [1.0, np.inf])
    assert close(0.0, 1e-300)


def test_a_reason_for_what_is_no_difference_is_told():
    checks = Checks()
    checks.differs("it is another", True)
    assert (checks.differences, checks.unexpected) == (["it is another"], [])
    checks.differs("it is another", False)
    assert len(checks.unexpected) == 1


def signature(ours, theirs, **known):
    checks = Checks()
    checks.signature(ours, theirs, **known)
    return checks


def test_arguments_that_differ_are_told():
    def theirs(a, b=1, kernel_constraint=None): ...

    assert signature(lambda a, b=1: 0, theirs).unexpected == []
    assert signature(lambda a, b=1: 0, theirs).without == ["*_constraint"]
    for ours in (lambda a: 0, lambda a, b=2: 0, lambda a, b=True: 0, lambda b, a=1: 0, lambda a, b=1, c=1: 0, lambda b=1: 0):
        assert signature(ours, theirs).unexpected
    assert signature(lambda a: 0, theirs, left_out={"b": "why"}).differences == ["`b` is left out: why"]
    assert signature(lambda a, b=2: 0, theirs, defaults={"b": "why"}).unexpected == []
    assert signature(lambda a, b=1, c=1: 0, theirs, everywhere=("c",), order="why").unexpected == []
    for reasons in ({"left_out": {"b": ""}}, {"added": {"c": ""}}, {"defaults": {"b": ""}}, {"order": ""}):
        assert signature(lambda a, b=1: 0, theirs, **reasons).unexpected, reasons


def test_an_error_is_an_unexplained_difference():
    def fails(checks):
        raise ValueError("of all things")

    (outcome,) = compare.run([Case("layer", ("Any",), fails)], "numpy")
    assert "of all things" in compare.verdict(outcome)
    assert compare.verdict(outcome).startswith("unexplained")


# ---- beside Keras --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras():
    """Keras, on TensorFlow: the two of them are no dependency, and what they warn of is theirs."""
    pytest.importorskip("tensorflow")
    pytest.importorskip("keras")
    return compare.load_keras()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", QUICK, ids=str)
def test_against_keras(case, keras):
    checks = Checks()
    case.run(checks)
    assert checks.unexpected == []
    assert checks.settings > 0
