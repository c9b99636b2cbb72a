"""What the data sets consist of: names, sizes, checksums and addresses. No code that reads them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class IdxFile:
    """One file of a set.

    Attributes:
        name: of the plain idx file; ``.gz`` is appended for the compressed one.
        contents: what it holds, in words.
        size: in bytes, uncompressed.
        sha256: of the uncompressed content, which is the same however the file was compressed.
        gzip_sha256: of the .gz file as it is published, or as it is bundled.
    """

    name: str
    contents: str
    size: int
    sha256: str
    gzip_sha256: str


@dataclass(frozen=True)
class ImageSet:
    """One data set.

    Attributes:
        name: as it is called in xpconv.
        title: as it is called in a sentence.
        directory: of its files, inside the cache or a directory of data sets.
        classes: how many.
        full: training images, training labels, test images, test labels.
        mirrors: addresses of folders that hold the .gz files, in the order in which they are tried.
        bundled: the part that comes with xpconv, in the order of `full`.
    """

    name: str
    title: str
    directory: str
    classes: int
    full: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    mirrors: tuple[str, ...]
    bundled: tuple[IdxFile, IdxFile, IdxFile, IdxFile] | None = None


MNIST = ImageSet(
    name="mnist",
    title="MNIST",
    directory="mnist",
    classes=10,
    full=(
        IdxFile(
            name="train-images-idx3-ubyte",
            contents="training images",
            size=47_040_016,
            sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            gzip_sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        IdxFile(
            name="train-labels-idx1-ubyte",
            contents="training labels",
            size=60_008,
            sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            gzip_sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        IdxFile(
            name="t10k-images-idx3-ubyte",
            contents="test images",
            size=7_840_016,
            sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            gzip_sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        IdxFile(
            name="t10k-labels-idx1-ubyte",
            contents="test labels",
            size=10_008,
            sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            gzip_sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://sagemaker-sample-files.s3.amazonaws.com/datasets/image/MNIST/",
    ),
    bundled=(
        IdxFile(
            name="train-images-idx3-ubyte",
            contents="first 5,000 training images",
            size=3_920_016,
            sha256="1e3ffdb2f57e22d9e5363dde25c2d057542c2e72baa312f0f3b03948bb3802b7",
            gzip_sha256="8d1eae75b5aff396cd29c4ac1bf9940059221ef7e568d080f6699358bfad60c3",
        ),
        IdxFile(
            name="train-labels-idx1-ubyte",
            contents="first 5,000 training labels",
            size=5_008,
            sha256="685aeb7baef68233efa643639a5e9c15bb48be09a628f96fb7f606ca2a1ea7bc",
            gzip_sha256="183f0d6e1c50136e698f8b78509f7a351c300f33cb73b17cf97a81d900371324",
        ),
        IdxFile(
            name="t10k-images-idx3-ubyte",
            contents="first 1,000 test images",
            size=784_016,
            sha256="de7c252b04f05e1f8309634180ccdf286dc6dbac8c579b74e76e02ae0331ca52",
            gzip_sha256="c38842f3fc122aeb56961328eacf41c4315fb33e95ce0e9d0c97f3bd3d5b62c6",
        ),
        IdxFile(
            name="t10k-labels-idx1-ubyte",
            contents="first 1,000 test labels",
            size=1_008,
            sha256="832c0d20f0dc42e575488c75a83a970787d4c8d4d05831b2ef03701b4a478a90",
            gzip_sha256="689b4d1da0ae1049125d2f91e157009a132a2a1e76b45a178dc0b359e1f74255",
        ),
    ),
)

FASHION_MNIST = ImageSet(
    name="fashion_mnist",
    title="Fashion-MNIST",
    directory="fashion-mnist",
    classes=10,
    full=(
        IdxFile(
            name="train-images-idx3-ubyte",
            contents="training images",
            size=47_040_016,
            sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            gzip_sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        IdxFile(
            name="train-labels-idx1-ubyte",
            contents="training labels",
            size=60_008,
            sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            gzip_sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        IdxFile(
            name="t10k-images-idx3-ubyte",
            contents="test images",
            size=7_840_016,
            sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            gzip_sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        IdxFile(
            name="t10k-labels-idx1-ubyte",
            contents="test labels",
            size=10_008,
            sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            gzip_sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
)

IMAGE_SETS = (MNIST, FASHION_MNIST)
