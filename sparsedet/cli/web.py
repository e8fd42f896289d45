"""Try exported detectors on a web page: drop a picture, and see what each finds, side by side.

    sparsedet web --model dense.onnx sparse.onnx

Each picture is shown with the time and the file size of every model; the others are compared with
the first. Neither detectron2 nor torch is needed. The page is for this machine alone, and neither
it nor its pictures leave the machine.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence

from ..errors import InputError
from ..runtime.detector import Detector
from ..runtime.web import Model, create_app
from .arguments import add_engine_arguments, detection_parser, parse

HOST = "127.0.0.1"


def parse_args() -> argparse.Namespace:
    parser = detection_parser(__doc__)
    parser.add_argument(
        "--model",
        nargs="+",
        required=True,
        metavar="FILE",
        help="files that sparsedet export wrote",
    )
    add_engine_arguments(parser)
    parser.add_argument(
        "--port", type=int, default=8000, help="of the page; 0 for any free one (default: 8000)"
    )
    args = parse(parser)
    if not 0 <= args.port <= 65535:
        parser.error("--port is from 0 to 65535")
    return args


def main() -> None:
    args = parse_args()
    models = [
        load_model(path, name, args) for path, name in zip(args.model, short_names(args.model))
    ]
    engine = args.engine if args.precision == "f32" else f"{args.engine} in {args.precision}"
    app = create_app(
        models,
        f"{engine}, threads: {args.threads or 'all'}; "
        f"detections above a score of {args.confidence_threshold}",
    )
    from werkzeug.serving import WSGIRequestHandler, make_server  # Flask's; none without it

    class Handler(WSGIRequestHandler):
        timeout = 60  # seconds without a byte; an upload that stands still is in the way of others

    try:
        listener = socket.create_server((HOST, args.port))
    except OSError as error:
        raise InputError(f"--port {args.port}: {error.strerror}; choose another") from error
    with listener:
        server = make_server(
            HOST, args.port, app, threaded=True, fd=listener.fileno(), request_handler=Handler
        )
        print(f"the page is http://{HOST}:{server.port} until Ctrl-C", flush=True)
        server.serve_forever()


def load_model(path: str, name: str, args: argparse.Namespace) -> Model:
    detector = Detector(path, args.engine, args.threads, args.precision)
    files = [path, path[:-4] + ".bin"] if path.endswith(".xml") else [path]
    return Model(name, detector.above(args.confidence_threshold), sum(map(os.path.getsize, files)))


def short_names(paths: Sequence[str]) -> list[str]:
    """The names of files without their folders, which nobody but their owner is to see."""
    names = [os.path.basename(path) for path in paths]
    return [
        name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})"
        for i, name in enumerate(names)
    ]
