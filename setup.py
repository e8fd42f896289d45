import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
PACKAGE = (HERE / "sparsedet" / "__init__.py").read_text(encoding="utf-8")

# What runs an exported file. OpenCV is on the package index under four names, which must not be
# installed beside each other, and no requirement can say "one of them": where another one is
# there, install sparsedet without this extra and the rest of its list by hand.
DEPLOY = ["Pillow>=10.1", "numpy>=1.26", "opencv-python-headless>=4.6", "tqdm>=4.60"]
ONNXRUNTIME = ["onnxruntime>=1.17"]

EXTRAS = {
    # What training, compressing, exporting and converting take beyond PyTorch and detectron2; and
    # what detectron2 would bring to who compresses other models, without it.
    "train": [
        *("h5py>=3.7", "onnx>=1.14", "safetensors>=0.4", *ONNXRUNTIME),
        *("matplotlib>=3.5.3", "numpy>=1.26", "pyyaml>=6.0", "tabulate>=0.8.9", "tqdm>=4.60"),
    ],
    "deploy": [*DEPLOY, *ONNXRUNTIME],
    "openvino": [*DEPLOY, "openvino>=2024.0"],  # to write .xml files, together with train
    "web": [*DEPLOY, *ONNXRUNTIME, "flask>=3.0"],
    "ray": [*DEPLOY, *ONNXRUNTIME, "ray[data]>=2.60"],  # images beyond one machine
    "prune": ["torch-pruning>=1.6,<2"],  # for tools/research/prune.py alone
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})
EXTRAS["dev"] = [
    *EXTRAS["all"],
    "build>=1.0",
    "hypothesis>=6.100",
    "import-linter>=2.0",
    "mkdocs-material>=9.5",
    "mkdocstrings[python]>=0.27",
    "mypy>=1.8",
    "playwright>=1.40",
    "pytest>=7.3",
    "pytest-xdist>=3.8",
    "ruff>=0.9",
    "setuptools>=64",  # to build the wheel without downloading it
]

setup(
    name="sparsedet",
    version=re.search('^__version__ = "(.+)"', PACKAGE, re.MULTILINE)[1],
    description="Compact detectors in detectron2 through complementary sparse convolutions",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    project_urls={"Paper": "https://arxiv.org/abs/1808.02167"},
    keywords=["object detection", "detectron2", "model compression", "sparse convolution", "onnx"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=[*find_packages(include=["sparsedet", "sparsedet.*"]), "sparsedet.configs"],
    package_dir={"sparsedet.configs": "configs"},
    package_data={"sparsedet": ["py.typed"], "sparsedet.configs": ["*.yaml", "*/*.yaml"]},
    # PyTorch and detectron2 are not here, because an exported file runs without them, pip cannot
    # know which build of PyTorch suits the machine, and detectron2 is not on the package index
    # under its own name; the two bring all else that the PyTorch side needs.
    install_requires=[],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["sparsedet = sparsedet.cli.main:main"]},
)
