"""See what a convolution learns: its filters before and after training, side by side.

python examples/visualize_filters.py --epochs 10 --output filters.png
"""

import numpy as np
from options import Options

import xpconv as xc


def main() -> None:
    args = Options("Draw the filters of a network before and after it learnt MNIST.", epochs=10, output="filters.png").read()

    train, test = xc.datasets.load_mnist()
    # The book's small initial weights: what the filters show afterwards is what they learnt.
    net = xc.SimpleConvNet(weight_init_std=0.01, device=args.device, seed=0)

    before = xc.to_numpy(net.params["W1"]).copy()  # training changes the parameters in place
    xc.Trainer(net, train, test, epochs=args.epochs, seed=0).run()
    after = xc.to_numpy(net.params["W1"])

    # Noise at first; then edges and spots, which is what strokes of a pen are made of.
    figure = xc.visualize.filters(
        np.concatenate([before, after]),
        columns=10,
        shared_scale=False,
        title=f"Before learning (0 to {len(before) - 1}) and after {args.epochs} epochs (from {len(before)})",
    )
    xc.visualize.save(figure, args.output)
    print(f"filters written to {args.output}")


if __name__ == "__main__":
    main()
