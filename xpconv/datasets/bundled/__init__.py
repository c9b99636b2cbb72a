"""The first 5,000 training and 1,000 test images of MNIST, as idx .gz files; NOTICE tells their origin and licence."""
