"""What a run of the benchmark can be told, and what is refused."""

from __future__ import annotations

import difflib
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from xpconv.bench.peers import PEERS, PeerSpec, xpconv_on
from xpconv.bench.workloads import ALL_WORKLOADS, OPERATIONS, WORKLOADS, Workload
from xpconv.device import devices, get_device
from xpconv.kernels.numpy.threads import usable_cores

ROUNDS, SECONDS = 7, 0.4
QUICK_ROUNDS, QUICK_SECONDS, QUICK_WORKLOADS = 3, 0.1, ("W1", "W3a", "W4a", "W5")
PATIENCE_SECONDS = 600.0
TIMEOUT_SECONDS = 300.0  # a compiler may take minutes over one workload

# Measured only when named: a simulator checks kernels, it isn't there to be fast; and a card is compared with others' cards.
UNMEASURED_DEVICES = ("cudasim", "cuda")


@dataclass(frozen=True)
class Settings:
    """What to run, and how.

    Attributes:
        ours: Xpconv on its devices.
        peers: The peers.
        workloads: What they compute.
        operations: Names of the operations to measure.
        rounds: Number of rounds; a median is taken over them.
        seconds: How long a peer computes at each turn, at least.
        threads: Number of threads of every peer.
        pythons: Other Pythons to run a library with, by its name.
        patience: Seconds to wait for a quiet machine, all waits taken together.
        timeout: Seconds after which a peer that doesn't answer is given up.
        card: The card that all compute on, ``"cuda:0"``; None where that is the processor.
        command: The command line that means all this.
    """

    ours: tuple[PeerSpec, ...]
    peers: tuple[PeerSpec, ...]
    workloads: tuple[Workload, ...]
    operations: tuple[str, ...]
    rounds: int = ROUNDS
    seconds: float = SECONDS
    threads: int = 1
    pythons: Mapping[str, str] = field(default_factory=dict)
    patience: float = 0.0
    timeout: float = TIMEOUT_SECONDS
    card: str | None = None
    command: str = "xpconv bench"


def settings_from(
    *,
    device: Sequence[str] = (),
    peers: str | None = None,
    workloads: str | None = None,
    operations: str | None = None,
    rounds: int | None = None,
    seconds: float | None = None,
    threads: int | None = None,
    pythons: Sequence[str] = (),
    quick: bool = False,
    quiet: bool = True,
) -> Settings:
    """Turn the words of the command line into settings.

    Args:
        device: Names of xpconv's devices; none for all that compute on the processor here.
        peers: Names with commas between them; a library's name means all its variants, ``"none"`` nobody.
        workloads: Ids with commas between them; the beginning of an id means all that begin so, if it isn't one itself.
        operations: Names with commas between them.
        rounds: Number of rounds.
        seconds: Seconds a turn.
        threads: Number of threads of every peer; None for all usable cores.
        pythons: ``LIBRARY=PATH``.
        quick: Whether less is enough where nothing else is said.
        quiet: Whether to wait for a quiet machine.

    Raises:
        ValueError: A word that means nothing here; the text names those that are alike.
        DeviceUnavailableError: A device that is not there.

    Example:
        >>> from xpconv.bench.settings import settings_from
        >>> [workload.id for workload in settings_from(workloads="W1,W4").workloads]
        ['W1', 'W4a', 'W4b', 'W4c', 'W4d']
    """
    given = [
        *(("--device", name) for name in device),
        ("--peers", peers),
        ("--workloads", workloads),
        ("--ops", operations),
        ("--rounds", rounds),
        ("--seconds", seconds),
        ("--threads", threads),
        *(("--python", entry) for entry in pythons),
    ]
    words = [word for option, value in given if value is not None for word in (option, f"{value}")]
    words += ["--quick"] * quick + ["--no-quiet"] * (not quiet)

    chosen = _workloads(_words("--workloads", workloads) if workloads is not None else QUICK_WORKLOADS if quick else WORKLOADS)
    wanted = tuple(OPERATIONS) if operations is None else _operations(_words("--ops", operations))
    if not any(name in wanted for workload in chosen for name in workload.operations):
        has = list(dict.fromkeys(name for workload in chosen for name in workload.operations))
        raise ValueError(f"--ops: none of these workloads has {', '.join(map(repr, wanted))}; they have {', '.join(has)}")
    names = _devices(device)
    card = _card(names)
    return Settings(
        ours=tuple(map(xpconv_on, names)),
        peers=_peers(None if peers is None else _words("--peers", peers), card),
        workloads=chosen,
        operations=wanted,
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        seconds=seconds or (QUICK_SECONDS if quick else SECONDS),
        threads=threads or usable_cores(),
        pythons=_pythons(pythons),
        patience=PATIENCE_SECONDS if quiet else 0.0,
        card=card,
        command=shlex.join(["xpconv", "bench", *words]),
    )


def _words(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ValueError(f"{option}: expected names with commas between them, got {text!r}")
    return words


def _workloads(words: Iterable[str]) -> tuple[Workload, ...]:
    found: dict[str, Workload] = {}
    by_lower = {name.lower(): workload for name, workload in ALL_WORKLOADS.items()}
    for word in words:
        lower = word.lower()
        matches = [by_lower[lower]] if lower in by_lower else [by_lower[name] for name in by_lower if name.startswith(lower)]
        if not matches:
            raise ValueError(_unknown("--workloads", "workload", word, ALL_WORKLOADS, WORKLOADS))
        found |= {workload.id: workload for workload in matches}
    return tuple(found.values())


def _peers(words: list[str] | None, card: str | None) -> tuple[PeerSpec, ...]:
    if words == ["none"]:
        return ()
    there = {name: spec for name, spec in PEERS.items() if card is None or spec.on_cards}
    found: dict[str, PeerSpec] = there if words is None else {}
    for word in words or ():
        matches = {name: spec for name, spec in there.items() if word in (name, spec.library)}
        if not matches and any(word in (name, spec.library) for name, spec in PEERS.items()):
            raise ValueError(f"--peers: {word} computes on no card here; with --device {card} there are {', '.join(there)}")
        if not matches:
            libraries = {spec.library for spec in there.values()}
            raise ValueError(_unknown("--peers", "peer", word, [*there, *libraries, "none"], [*there, "none"]))
        found |= matches
    return tuple(spec if card is None else spec.on(card) for spec in found.values())


def _operations(words: list[str]) -> tuple[str, ...]:
    for word in words:
        if word not in OPERATIONS:
            raise ValueError(_unknown("--ops", "operation", word, OPERATIONS, OPERATIONS))
    return tuple(dict.fromkeys(words))


def _devices(names: Sequence[str]) -> list[str]:
    if not names:
        names = [status.name for status in devices() if status.available and status.name not in UNMEASURED_DEVICES]
    found = []
    for name in names:
        try:
            found.append(get_device(name).name)
        except ValueError as error:
            known = [status.name for status in devices()]
            near = difflib.get_close_matches(name, known)
            raise ValueError(f"--device: {error}{_did_you_mean(near)}") from None
    return list(dict.fromkeys(found))


def _card(devices: Sequence[str]) -> str | None:
    """The card among the devices; everything of a run is computed on it then."""
    cards = [name for name in devices if name.startswith("cuda:")]
    if cards and len(devices) > 1:
        raise ValueError(f"--device: a card is measured in a run of its own, got {', '.join(devices)}")
    return cards[0] if cards else None


def _pythons(entries: Sequence[str]) -> dict[str, str]:
    found = {}
    libraries = list(dict.fromkeys(spec.library for spec in PEERS.values()))
    for entry in entries:
        library, equals, path = entry.partition("=")
        if not (library and equals and path):
            raise ValueError(f"--python: expected NAME=PATH, such as jax=.venv-jax/bin/python, got {entry!r}")
        if library not in libraries:
            raise ValueError(_unknown("--python", "peer", library, libraries, libraries))
        if library in found:
            raise ValueError(f"--python: {library} is named twice")
        program = shutil.which(path)
        if program is None:
            raise ValueError(f"--python: {path!r} for {library} is no program that can be run")
        found[library] = program
    return found


def _unknown(option: str, what: str, word: str, near: Iterable[str], known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(near), n=3, cutoff=0.5)
    matches = matches or [name for name in near if name.lower() == word.lower()]
    return f"{option}: unknown {what} {word!r}; expected one of {', '.join(known)}{_did_you_mean(matches)}"


def _did_you_mean(matches: list[str]) -> str:
    return f" (did you mean {' or '.join(map(repr, matches))}?)" if matches else ""
