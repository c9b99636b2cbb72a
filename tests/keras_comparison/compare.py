"""Runs Keras 3 beside xpconv, and tells of every layer, loss, optimizer ... whether they agree, and where and why they do not.

    python tests/keras_comparison/compare.py                       everything
    python tests/keras_comparison/compare.py Conv2D loss           some names, or groups
    python tests/keras_comparison/compare.py --readme docs/keras.md

It needs Keras 3 on TensorFlow. A difference that the cases do not explain makes it exit with 1; so does an explanation of
something that is no difference any more, and a public name that has no case.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import cases_callbacks  # noqa: E402 - beside this file
import cases_layers  # noqa: E402
import cases_losses  # noqa: E402
import cases_optimizers  # noqa: E402
import cases_training  # noqa: E402
import cases_values  # noqa: E402
from comparison import LEFT_OUT, TOLERANCE, Case, Checks, load_keras, versions  # noqa: E402

from xpconv.files import split_at_markers, write_between_markers  # noqa: E402

MARKER = "keras"

# Groups in the order of their tables, and their titles.
GROUPS = {
    "layer": "Layers",
    "loss": "Losses",
    "metric": "Metrics",
    "optimizer": "Optimizers",
    "schedule": "Schedules of the learning rate",
    "activation": "Activations",
    "initializer": "Initializers",
    "regularizer": "Regularizers",
    "callback": "Callbacks",
    "model": "Models and training",
}

# Modules whose public classes must have a case each, and its group.
MODULES = {
    "layers": "layer",
    "losses": "loss",
    "metrics": "metric",
    "optimizers": "optimizer",
    "optimizers.schedules": "schedule",
    "activations": "activation",
    "initializers": "initializer",
    "regularizers": "regularizer",
    "callbacks": "callback",
    "models": "model",
}

CASES: list[Case] = [
    *cases_layers.CASES,
    *cases_losses.CASES,
    *cases_optimizers.CASES,
    *cases_values.CASES,
    *cases_callbacks.CASES,
    *cases_training.CASES,
]


@dataclass
class Outcome:
    """A case and what came of it."""

    case: Case
    checks: Checks
    seconds: float


def public_names() -> dict[str, list[str]]:
    """The public classes of xpconv that Keras has or could have, by group: those of ``__all__``, or all that a module has."""
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for module_name, group in MODULES.items():
        module = importlib.import_module(f"xpconv.{module_name}")
        listed = getattr(module, "__all__", None)
        names = [name for name in vars(module) if not name.startswith("_")] if listed is None else listed
        for name in names:
            value = getattr(module, name)
            is_own = listed is not None or getattr(value, "__module__", None) == module.__name__
            if inspect.isclass(value) and is_own and (listed is not None or value.__name__ == name):
                found[group].append(name)
        if group == "model" and listed:
            found[group] += [name for name in listed if inspect.isfunction(getattr(module, name))]
    return found


def selected(wanted: Sequence[str]) -> list[Case]:
    """The cases of these groups and names; all if there are none."""
    return [case for case in CASES if not wanted or case.group in wanted or any(name in wanted for name in case.names)]


def run(cases: Sequence[Case], device: str) -> Iterator[Outcome]:
    """Compare, case by case; an error is an unexpected difference."""
    for case in cases:
        checks = Checks(device)
        start = time.perf_counter()
        try:
            case.run(checks)
        except Exception as error:  # whatever it is, it is no agreement
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())
            checks.unexpected.append(f"{type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})")
        yield Outcome(case, checks, time.perf_counter() - start)


def forgotten() -> list[str]:
    """Public names without a case."""
    known = {(case.group, name) for case in CASES for name in case.names}
    return [f"{group} {name}" for group, names in public_names().items() for name in names if (group, name) not in known]


def verdict(outcome: Outcome) -> str:
    """What came of a case, in words."""
    checks = outcome.checks
    if checks.unexpected:
        return "unexplained: " + "; ".join(checks.unexpected)
    without = "without " + ", ".join(f"`{pattern}`" for pattern in checks.without) if checks.without else ""
    if not checks.differences:
        return f"equal, {without}" if without else "equal"
    told = "; ".join([*checks.differences, *([without] if without else [])])
    return f"equal but for this: {told}" if outcome.case.compared else told


def markdown(outcomes: Sequence[Outcome]) -> str:
    """All tables; what most cases of a table compare stands above it, and what others do in their rows."""
    lines = ["Made with " + ", ".join(f"{name} {version}" for name, version in versions().items()) + ".", ""]
    for group, title in GROUPS.items():
        of_group = [outcome for outcome in outcomes if outcome.case.group == group]
        usual, count = Counter(outcome.case.compared for outcome in of_group if outcome.case.compared).most_common(1)[0]
        lines += [f"### {title}", ""]
        if count > 1:
            lines += [
                f"Compared: {usual}{'; in some rows what they have in parentheses' if count < len(of_group) else ''}.",
                "",
            ]
        rows = [
            [
                ", ".join(f"`{name}`" for name in outcome.case.names),
                (f"({outcome.case.compared}) " if outcome.case.compared not in ("", usual if count > 1 else "") else "")
                + verdict(outcome).replace("|", "\\|"),
                str(outcome.checks.settings or "-"),
                *(_largest(outcome.checks, dtype) for dtype in TOLERANCE),
            ]
            for outcome in of_group
        ]
        lines += [*table([group, "against Keras", "settings", *TOLERANCE], rows, text_columns=2), ""]
    used = {pattern for outcome in outcomes for pattern in outcome.checks.without}
    rows = [[f"`{pattern}`", reason] for pattern, reason in LEFT_OUT.items() if pattern in used]
    lines += ["### Arguments that are left out everywhere", "", *table(["argument", "why"], rows, text_columns=2), ""]
    return "\n".join(lines)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int) -> list[str]:
    """Lines of a table; all columns but the first few are numbers."""
    rule = ["---"] * text_columns + ["---:"] * (len(headings) - text_columns)
    return [f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)]


def _largest(checks: Checks, dtype: str) -> str:
    if dtype not in checks.largest:
        return "-"
    return "0" if checks.largest[dtype] == 0 else f"{checks.largest[dtype]:.0e}"


def main() -> int:
    """Compare, print, and write the tables if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these names or groups")
    parser.add_argument("--device", default="numpy", help="device of xpconv (default: numpy)")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the tables between the markers of a file")
    options = parser.parse_args()
    around = None
    if options.readme:
        if options.names:
            parser.error("--readme needs all cases")
        around = split_at_markers(options.readme, MARKER)
        if around is None:
            parser.error(f"{options.readme} needs the lines <!-- {MARKER} --> and <!-- /{MARKER} -->, each once and in order")
    load_keras()
    cases = selected(options.names)
    if not cases:
        parser.error(f"nothing is called {' or '.join(options.names)}")
    outcomes = []
    for outcome in run(cases, options.device):
        outcomes.append(outcome)
        largest = "  ".join(f"{_largest(outcome.checks, dtype):>6}" for dtype in TOLERANCE)
        print(f"{outcome.case!s:40} {largest}  {outcome.seconds:5.1f} s  {verdict(outcome)}", flush=True)
    complaints = [f"no case: {name}" for name in forgotten()]
    complaints += [f"{outcome.case}: {text}" for outcome in outcomes for text in outcome.checks.unexpected]
    if complaints:
        print(f"\n{len(complaints)} unexplained:", *complaints, sep="\n")
    if around is not None:
        write_between_markers(options.readme, MARKER, markdown(outcomes), around)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
