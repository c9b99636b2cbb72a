"""See what learnt filters see: a digit that the network has never met, through each of its filters.

python examples/apply_filters.py --image 0 --output feature_maps.png
"""

from options import Options

import xpconv as xc


def main() -> None:
    options = Options("Apply the filters of a network that learnt MNIST to a test image.", epochs=10, output="feature_maps.png")
    image = "which test image (default: %(default)s)"
    options.add_argument("--image", type=int, default=0, choices=range(1000), metavar="N", help=image)
    args = options.read()

    train, (x_test, t_test) = xc.datasets.load_mnist()
    net = xc.SimpleConvNet(weight_init_std="he", device=args.device, seed=0)
    xc.Trainer(net, train, (x_test, t_test), epochs=args.epochs, seed=0).run()

    image = xc.asarray(x_test[args.image : args.image + 1], device=net.device)  # a batch of one: (1, 1, 28, 28)
    maps = xc.conv2d(image, net.params["W1"], net.params["b1"], device=net.device)  # (1, 30, 24, 24)
    answer = net.predict(image)[0].argmax()

    title = f"A {t_test[args.image]}, recognised as {answer}, through 30 learnt filters"
    xc.visualize.save(xc.visualize.feature_maps(maps, image=image[0], title=title), args.output)
    print(f"feature maps written to {args.output}")


if __name__ == "__main__":
    main()
