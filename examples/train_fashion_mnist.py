"""Train two networks on Fashion-MNIST in Keras-style layers, dense and convolutional, and draw what is taken for what.

python examples/train_fashion_mnist.py --epochs 5 --output fashion.png
"""

from options import Options

import xpconv as xc
from xpconv import layers


def dense_network(device: str) -> xc.Sequential:
    """Four layers of 500 neurons: 1,149,010 parameters."""
    hidden = [layers.Dense(500, activation="relu") for _ in range(4)]
    return xc.Sequential([layers.Flatten(), *hidden, layers.Dense(10, activation="softmax")], device=device, seed=0)


def convolutional_network(device: str) -> xc.Sequential:
    """Two convolutions with pooling: 14,590 parameters, 1.3 % of the other's, and it learns nearly as much."""
    row = [
        layers.Conv2D(30, (2, 2), activation="relu"),
        layers.MaxPool2D(),
        layers.Conv2D(30, (2, 2), activation="relu"),
        layers.MaxPool2D(),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ]
    return xc.Sequential(row, device=device, seed=0)


def load_images():
    if xc.datasets.full_set_available("fashion_mnist"):
        return "Fashion-MNIST", xc.datasets.FASHION_MNIST_CLASSES, xc.datasets.load_fashion_mnist("full")
    print(
        "Fashion-MNIST is not here, so these are the 6,000 digits of MNIST that come with xpconv. To get it (30 MB):\n"
        "  python -c \"import xpconv; xpconv.datasets.load_fashion_mnist('full')\"\n"
        "or name a folder that has its four files in the environment variable XPCONV_DATA."
    )
    return "MNIST", [str(digit) for digit in range(10)], xc.datasets.load_mnist()


def main() -> None:
    options = Options(
        "Train two networks on Fashion-MNIST and draw what they take for what.", epochs=5, output="fashion.png"
    ).read()
    title, classes, ((x, t), (x_test, t_test)) = load_images()
    x, x_test = x.reshape(-1, 28, 28, 1), x_test.reshape(-1, 28, 28, 1)  # one channel: first or last is the same
    y, y_test = xc.to_categorical(t), xc.to_categorical(t_test)

    accuracies = {}
    steps = options.epochs * -(-len(x) // 32)
    for model in (dense_network(options.device), convolutional_network(options.device)):
        # The learning rate falls to nothing along half a cosine, so that the last epoch is not one of luck.
        adam = xc.optimizers.Adam(xc.optimizers.schedules.CosineDecay(0.001, decay_steps=steps))
        model.compile(optimizer=adam, loss="categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(x, y, epochs=options.epochs, validation_data=(x_test, y_test))
        model.summary()
        accuracies[model.count_params()] = history.history["val_accuracy"][-1]

    figure = xc.visualize.confusion_matrix(t_test, model.predict(x_test, verbose=0), classes=classes, title=title)
    xc.visualize.save(figure, options.output)
    for parameters, accuracy in accuracies.items():
        print(f"{parameters:9,} parameters: test accuracy {accuracy:.4f}")
    print(f"what the second one takes for what: written to {options.output}")


if __name__ == "__main__":
    main()
