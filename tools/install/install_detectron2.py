#!/usr/bin/env python3
"""Install detectron2 where it is missing, without a compiler.

A detectron2 that already works, however it was installed, is left alone. Otherwise the v0.6
source is fetched from the package index (pinned by hash), mended for today's NumPy, Pillow,
PyTorch and setuptools as detectron2_mends.py lists, packed as a pure-Python wheel and installed.
Only what truly needs detectron2's C++/CUDA operators (rotated boxes, deformable convolution on a
GPU) is missing then, and says so when it is used.

    python tools/install/install_detectron2.py

Needs torch and torchvision. pip's own settings apply; PIP_CONSTRAINT, for instance, pins versions.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from detectron2_mends import MENDS

DISTRIBUTION = "pb1-detectron2"
RELEASE = "0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

# What the Python of v0.6 imports. Not pydot, future and black: they serve only the removed Caffe2
# export and a pretty-printer.
REQUIREMENTS = [
    "torch",
    "torchvision",
    "numpy",
    "Pillow>=9.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7",
    "omegaconf>=2.1",
    "hydra-core>=1.1",
]
# Drawing needs cv2, which four distributions provide and which must not be installed twice: it is
# required only where there is none, in the form that needs no display libraries.
OPENCV = "opencv-python-headless"

# What upstream's main branch needs: pkg_resources, and what its own setup.py asks for.
OLDER = ('"setuptools<82"', '"iopath<0.1.10"')

# Source folders of the archive and the packages they become, as in detectron2's setup.py.
PACKAGES = {
    "detectron2": "detectron2",
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}

# The digest of the mends is part of the version, so that a wheel with older mends is replaced.
VERSION = f"{RELEASE}+sparsedet.{hashlib.sha256(repr(MENDS).encode()).hexdigest()[:8]}"

# What must work is what sparsedet uses; a test holds that it imports nothing that this does not.
NOT_INSTALLED = 3
PROBE = f"""
import importlib.util, sys
if importlib.util.find_spec("detectron2") is None:
    sys.exit({NOT_INSTALLED})
import detectron2
import detectron2.checkpoint, detectron2.data, detectron2.layers, detectron2.structures
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
from detectron2.modeling import build_model
import detectron2.modeling.meta_arch.fcos
cfg = get_cfg()
cfg.MODEL.DEVICE = "cpu"
build_model(cfg)
print(detectron2.__version__)
"""


class InstallError(Exception):
    """What went wrong and what to do, in one line."""


def last_line(text: str) -> str:
    """The last line that is not blank: of a traceback, the error itself."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", **options)


def run_code(code: str) -> subprocess.CompletedProcess:
    """Run Python code away from the current folder, which may shadow installed packages."""
    with tempfile.TemporaryDirectory() as folder:
        return run([sys.executable, "-c", code], cwd=folder)


def installed_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def is_outdated() -> bool:
    """Whether the detectron2 that is there was installed by this script with other mends."""
    version = installed_version(DISTRIBUTION) or ""
    return version.startswith(f"{RELEASE}+sparsedet.") and version != VERSION


def require_torch() -> None:
    torch = run_code("import torch, torchvision")
    if torch.returncode:
        raise InstallError(
            f"torch and torchvision must be installed first ({last_line(torch.stderr)}): "
            "python -m pip install torch torchvision"
        )


def refuse(probe: subprocess.CompletedProcess) -> None:
    """Say what fails in the detectron2 that is installed, and how to mend or remove it."""
    reason = last_line(probe.stderr)
    if "pkg_resources" in reason:
        raise InstallError(
            f"the detectron2 that is installed does not work ({reason}); its main branch needs "
            f"what newer releases removed: python -m pip install {' '.join(OLDER)}"
        )
    names = [name for name in ("detectron2", DISTRIBUTION) if installed_version(name)]
    removal = f"python -m pip uninstall {' '.join(names)}" if names else "delete its folder"
    raise InstallError(
        f"the detectron2 that is installed does not work ({reason}); "
        f"remove it ({removal}) and run this again"
    )


def run_pip(*args: str, **options) -> None:
    """Run pip quietly; its last error becomes the InstallError."""
    pip = run([sys.executable, "-m", "pip", *args, "--no-input"], **options)
    if pip.returncode:
        errors = re.findall(r"^(?:ERROR|error): (.*)", pip.stderr, re.MULTILINE)
        reason = errors[-1] if errors else last_line(pip.stderr)
        if "connection broken" in pip.stderr:
            reason = "the package index cannot be reached"
        raise InstallError(f"could not download {DISTRIBUTION}=={RELEASE}: {reason}")


def fetch(folder: Path) -> Path:
    """Download the source archive into ``folder``; pip checks its hash before it uses it.

    pip asks the archive's setup.py for its metadata. That needs torch, so there is no isolated
    build, and a setuptools with bdist_wheel, which goes into a folder of its own because the one
    that is installed, if any, may be too old.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{DISTRIBUTION}=={RELEASE} --hash=sha256:{SHA256}\n")
    tools, archives = folder / "tools", folder / "archives"
    run_pip("install", "--target", str(tools), "setuptools>=70.1")
    run_pip(
        *("download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"),
        *("--require-hashes", "--requirement", str(requirement), "--dest", str(archives)),
        env={**os.environ, "PYTHONPATH": f"{tools}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    return next(archives.iterdir())


def read_archive(path: Path) -> dict[str, bytes]:
    """Files of the source archive by their path in it, after checking its hash."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise InstallError(f"{path.name} has sha256 {found}, expected {SHA256}: not installed")
    with tarfile.open(path) as archive:
        return {
            member.name.partition("/")[2]: archive.extractfile(member).read()
            for member in archive
            if member.isfile()
        }


def select_packages(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files that are installed, by their path in site-packages."""
    return {
        target + name[len(source) :]: content
        for source, target in PACKAGES.items()
        for name, content in files.items()
        if name.startswith(source + "/")
    }


def mend(files: dict[str, bytes], mends: list) -> None:
    """Apply ``mends`` (see MENDS) to ``files`` in place."""
    for _reason, edits in mends:
        for name, old, new in edits:
            if old is None:
                files[name] = new.encode()
                continue
            text = files.get(name, b"").decode()
            if old not in text:
                raise InstallError(f"cannot mend {name}: {old.strip()!r} is not in it")
            files[name] = text.replace(old, new).encode()


def write_wheel(
    files: dict[str, bytes], licence: bytes, requirements: list[str], folder: Path
) -> Path:
    """Pack ``files`` as a pure-Python wheel."""
    name = f"{DISTRIBUTION.replace('-', '_')}-{VERSION}"
    info = f"{name}.dist-info"
    description = [
        "Metadata-Version: 2.1",
        f"Name: {DISTRIBUTION}",
        f"Version: {VERSION}",
        "Summary: detectron2 v0.6 without its compiled extension, mended for current libraries",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "License: Apache-2.0",
        "Requires-Python: >=3.7",
        *(f"Requires-Dist: {requirement}" for requirement in requirements),
    ]
    wheel = ["Wheel-Version: 1.0", "Generator: sparsedet", "Root-Is-Purelib: true"]
    files = {
        **files,
        f"{info}/METADATA": "\n".join([*description, ""]).encode(),
        f"{info}/WHEEL": "\n".join([*wheel, "Tag: py3-none-any", ""]).encode(),
        f"{info}/LICENSE": licence,
    }
    record = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(content)}\n")
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()

    target = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return target


def install(archive: Path, folder: Path) -> None:
    """Mend the source archive and install it as a wheel made in ``folder``."""
    sources = read_archive(archive)
    packages = select_packages(sources)
    mend(packages, MENDS)
    requirements = REQUIREMENTS if find_spec("cv2") else [*REQUIREMENTS, OPENCV]
    wheel = write_wheel(packages, sources["LICENSE"], requirements, folder)
    command = [sys.executable, "-m", "pip", "install", "--no-input", str(wheel)]
    if subprocess.run(command).returncode:
        raise InstallError("pip could not install detectron2 and what it requires (see above)")


def main() -> None:
    probe = run_code(PROBE)
    if probe.returncode or is_outdated():
        require_torch()
        if probe.returncode not in (0, NOT_INSTALLED) and not is_outdated():
            refuse(probe)
        print(f"fetching detectron2 v{RELEASE} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            install(fetch(Path(folder)), Path(folder))
        probe = run_code(PROBE)
        if probe.returncode:
            refuse(probe)
    elif not find_spec("cv2"):
        raise InstallError(f"detectron2 draws with OpenCV: python -m pip install {OPENCV}")
    print(f"detectron2 {last_line(probe.stdout)} works")


if __name__ == "__main__":
    try:
        main()
    except InstallError as error:
        sys.exit(f"error: {error}")
