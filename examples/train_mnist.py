"""Train a convolutional network on handwritten digits and draw how it learnt.

python examples/train_mnist.py --epochs 20 --output curves.png
"""

from options import Options

import xpconv as xc


def main() -> None:
    args = Options("Train a convolutional network on MNIST and draw how it learnt.", epochs=20, output="curves.png").read()

    # 5,000 digits to learn from and 1,000 to test on come with xpconv; load_mnist("full") gets all 70,000.
    train, test = xc.datasets.load_mnist()

    # 30 filters of 5x5, ReLU, pooling, 100 hidden units, 10 classes: the network of the book.
    net = xc.SimpleConvNet(weight_init_std="he", device=args.device, seed=0)
    history = xc.Trainer(net, train, test, epochs=args.epochs, optimizer=xc.Adam(learning_rate=0.001), seed=0).run()

    xc.visualize.save(xc.visualize.training_curves(history, title="SimpleConvNet on MNIST"), args.output)
    print(f"test accuracy {history['test_accuracy'][-1]:.1%}; curves written to {args.output}")


if __name__ == "__main__":
    main()
