"""What the examples can be told on the command line, refused before anything is trained."""

import argparse

from xpconv.files import check_writable


class Options(argparse.ArgumentParser):
    """``--epochs``, ``--device`` and ``--output``, with these defaults."""

    def __init__(self, description: str, *, epochs: int, output: str) -> None:
        super().__init__(description=description)
        number = "how often to visit every image (default: %(default)s)"
        self.add_argument("--epochs", type=positive_int, default=epochs, help=number)
        self.add_argument("--device", default="auto", help="where to compute (default: %(default)s)")
        self.add_argument("--output", default=output, help="picture to write (default: %(default)s)")

    def read(self) -> argparse.Namespace:
        """The options as they were given; where one cannot be, say so and end the program."""
        options = self.parse_args()
        try:
            check_writable(options.output)
        except OSError as error:
            self.error(f"argument --output: {error}")
        return options


def positive_int(text: str) -> int:
    """A count, at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number
