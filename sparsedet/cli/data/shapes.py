"""Draw the demo set, unless it is there already."""

from __future__ import annotations

import argparse

from ...data import generate_shapes
from ...data.entries import locate
from ...errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--output", metavar="DIR", default=locate("shapes"))
    parser.add_argument("--num-train", type=int, default=800, help="pictures in trainval")
    parser.add_argument("--num-test", type=int, default=200, help="pictures in test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--image-size", type=int, nargs=2, default=(256, 192), metavar=("WIDTH", "HEIGHT")
    )
    args = parser.parse_args()
    try:
        written = generate_shapes(
            args.output, args.num_train, args.num_test, args.seed, tuple(args.image_size)
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    print(f"{args.output}: {'written' if written else 'there already'}")
