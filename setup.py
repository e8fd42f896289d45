from setuptools import find_packages, setup

setup(
    name="sparsedet",
    version="0.1.0",
    description="Compact detectors in detectron2 through complementary sparse convolutions",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=find_packages(include=["sparsedet", "sparsedet.*"]),
    # detectron2 and OpenCV are needed too, but no requirement can name them: detectron2 is not
    # on the package index under its own name, and OpenCV is there under four. Where they are
    # missing, tools/install/install_detectron2.py installs both.
    install_requires=[
        "torch>=2.1",
        "torchvision>=0.16",
        "numpy>=1.24",
        "Pillow>=9.1",
        "pycocotools>=2.0.6",
        "fvcore>=0.1.5,<0.1.6",
        "matplotlib>=3.5",
        "pyyaml>=5.1",
        "tabulate>=0.8",
        "tqdm>=4.60",
    ],
    extras_require={
        "convert": ["h5py>=3.7", "onnx>=1.14"],
        "deploy": ["onnx>=1.14", "onnxruntime>=1.17"],
        "openvino": ["openvino>=2024.0"],
        "prune": ["torch-pruning>=1.6,<2"],
        "test": ["flask>=3.0", "onnxruntime>=1.16", "pytest>=7.3", "ruff>=0.9"],
        "web": ["flask>=3.0"],
    },
)
