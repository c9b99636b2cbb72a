"""Who takes part in the benchmark, a file a library.

Each file has one class, ``Peer``, and imports its library when that is made: naming the peers here imports none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class PeerSpec:
    """A way to compute workloads, to be started in a process of its own.

    Attributes:
        name: Name on the command line and in files: ``"library"`` or ``"library:variant"``.
        label: Name in tables.
        module: Module with its class ``Peer``.
        variant: What the class is told.
        on_cards: Whether it can compute on a card, too.
    """

    name: str
    label: str
    module: str
    variant: str = ""
    on_cards: bool = False

    @property
    def library(self) -> str:
        """The name without the variant; ``--python`` takes it."""
        return self.name.partition(":")[0]

    def on(self, card: str) -> PeerSpec:
        """The same on a card: ``"cuda:0"``."""
        return replace(self, label=f"{self.label} {card}", variant=f"{self.variant}@{card}")


def _spec(name: str, label: str, on_cards: bool = False) -> PeerSpec:
    library, _, variant = name.partition(":")
    return PeerSpec(name, label, f"{__name__}.{library}", variant, on_cards)


PEERS: dict[str, PeerSpec] = {
    spec.name: spec
    for spec in (
        _spec("torch:eager", "PyTorch eager", on_cards=True),
        _spec("torch:channels_last", "PyTorch channels_last", on_cards=True),
        _spec("torch:compile", "torch.compile", on_cards=True),
        _spec("jax", "JAX"),
        _spec("tensorflow", "TensorFlow"),
        _spec("keras", "Keras"),
        _spec("onnxruntime", "ONNX Runtime"),
        _spec("book:float32", "the book, float32"),
        _spec("book:float64", "the book, float64"),
    )
}
"""The peers of xpconv by name, in the order of the table."""


def xpconv_on(device: str) -> PeerSpec:
    """Xpconv itself on a device."""
    return PeerSpec(f"xpconv:{device}", f"xpconv {device}", f"{__name__}.xpconv", f"{device}:float32")


REFERENCE = PeerSpec("reference", "reference", f"{__name__}.xpconv", "numpy:float64")
"""What every result is compared with."""
