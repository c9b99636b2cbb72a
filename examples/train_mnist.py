"""Train a convolutional network on handwritten digits and draw how it learnt.

python examples/train_mnist.py --epochs 20 --output curves.png
"""

import argparse

import xpconv as xc
from xpconv.files import check_writable


def positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a convolutional network on MNIST and draw how it learnt.")
    parser.add_argument("--epochs", type=positive_int, default=20, help="how often to visit every image (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="where to compute (default: %(default)s)")
    parser.add_argument("--output", default="curves.png", help="picture to write (default: %(default)s)")
    args = parser.parse_args()
    try:
        check_writable(args.output)  # now, not after the training
    except OSError as error:
        parser.error(f"argument --output: {error}")

    # 5,000 digits to learn from and 1,000 to test on come with xpconv; load_mnist("full") gets all 70,000.
    train, test = xc.datasets.load_mnist()

    # 30 filters of 5x5, ReLU, pooling, 100 hidden units, 10 classes: the network of the book.
    net = xc.SimpleConvNet(weight_init_std="he", device=args.device, seed=0)
    history = xc.Trainer(net, train, test, epochs=args.epochs, optimizer=xc.Adam(lr=0.001), seed=0).run()

    xc.visualize.save(xc.visualize.training_curves(history, title="SimpleConvNet on MNIST"), args.output)
    print(f"test accuracy {history['test_accuracy'][-1]:.1%}; curves written to {args.output}")


if __name__ == "__main__":
    main()
