"""The page of tools/web_demo.py: what is measured, what is shown, and in a browser where one is."""

import base64
import hashlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from sparsedet import timing
from sparsedet.cli.web import short_names
from sparsedet.errors import InputError
from sparsedet.runtime import guard, web
from sparsedet.runtime.annotate import annotate
from sparsedet.runtime.detector import Detector
from sparsedet.runtime.model_info import KEY, ModelInfo

ROOT = Path(__file__).parents[2]
# Runs a script as if neither were installed.
WITHOUT_TORCH = (
    "import runpy, sys; sys.modules.update(torch=None, torchvision=None, detectron2=None); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Exported detectors that find one cup, or that and a spoon, in any picture."""
    folder = tmp_path_factory.mktemp("models")
    boxes = np.float32([[2, 3, 20, 15], [30, 5, 60, 40]])
    scores = np.float32([0.9, 0.6])
    for name, count in (("dense.onnx", 2), ("sparse.onnx", 1)):
        outputs = {"boxes": boxes[:count], "scores": scores[:count], "classes": np.arange(count)}
        nodes = [
            helper.make_node("Constant", [], [key], value=numpy_helper.from_array(value))
            for key, value in outputs.items()
        ]
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, [None, None, 3])
        values = [
            helper.make_tensor_value_info(
                key, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for key, value in outputs.items()
        ]
        graph = helper.make_graph(nodes, "detector", [image], values)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        info = ModelInfo(["cup", "spoon"], "BGR", 0, 0, 8, 0.05, "f32", "0")
        helper.set_model_props(model, {KEY: info.to_json()})
        onnx.save(model, folder / name)
    return [folder / "dense.onnx", folder / "sparse.onnx"]


@pytest.fixture
def models(files):
    return [web.Model(path.name, Detector(path), 1000 * path.stat().st_size) for path in files]


@pytest.fixture
def client(models):
    pytest.importorskip("flask")
    return web.create_app(models, "of this test").test_client()


def picture(height=48, width=64):
    """A ramp of colours, (height, width, 3) uint8, RGB."""
    ramp = np.linspace(0, 255, height * width * 3)
    return ramp.astype(np.uint8).reshape(height, width, 3)


def file_of(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def shown(html):
    """The pictures on a page."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def upload(client, data, name="photo.png"):
    return client.post("/", data={"picture": (io.BytesIO(data), name)})


def test_models_take_turns_and_the_median_leaves_the_warm_up_out(models, monkeypatch):
    clock, order = [0.0], []

    def slowly(model, durations):
        def detect(image):
            order.append(model.name)
            clock[0] += next(durations)
            return model.detect(image)

        return web.Model(model.name, detect, model.file_bytes)

    monkeypatch.setattr(timing, "now", lambda: clock[0])
    slow = slowly(models[0], iter([9, 1, 2, 3, 40, 50]))
    quick = slowly(models[1], iter([9, 0.5, 0.5, 0.5, 0.5, 0.25]))
    image = picture(500, 700)
    results = web.detect_side_by_side([slow, quick], image)
    assert order == ["dense.onnx", "sparse.onnx"] * 6
    assert [result.ms for result in results] == pytest.approx([3000, 500])
    assert [result.count for result in results] == [2, 1]
    for result, model in zip(results, models):
        np.testing.assert_array_equal(result.picture, annotate(image, model.detect(image)))


def test_small_pictures_are_enlarged_with_their_boxes(models):
    (result,) = web.detect_side_by_side(models[:1], np.zeros((48, 64, 3), np.uint8))
    assert result.picture.shape == (480, 640, 3)
    ys, xs = np.nonzero(result.picture[320:420].any(axis=2))  # below all labels: the larger box
    assert (xs.min(), xs.max(), 320 + ys.max()) == pytest.approx((300, 600, 400), abs=2)


def test_page_shows_every_model_in_numbers(client, models):
    html = client.get("/").text
    assert "dense.onnx, sparse.onnx" in html and "of this test" in html
    assert not re.search(r"https?:|//\w", html)  # nothing is loaded from elsewhere

    answer = upload(client, file_of(picture(480, 640)), "<b>.png")
    assert answer.status_code == 200
    assert "&lt;b&gt;.png, 640 x 480 pixels" in answer.text and "<b>" not in answer.text
    assert re.search(r">\d+\.\d ms", answer.text)
    sizes = [model.file_bytes / 1e6 for model in models]
    assert [f"{size:.2f}" for size in sizes] == re.findall(r"([\d.]+) MB", answer.text)
    assert f"{sizes[0] / sizes[1]:.1f}x smaller" in answer.text
    assert re.findall(r'alt="(\d) detections"', answer.text) == ["2", "1"]
    bgr = picture(480, 640)[:, :, ::-1]
    for image, model in zip(shown(answer.text), models):
        expected = annotate(bgr, model.detect(bgr))[:, :, ::-1]
        assert abs(image.astype(int) - expected).mean() < 5  # JPEG


def test_pictures_of_every_kind(client):
    turned = Image.Exif()
    turned[274] = 6
    grey = picture()[:, :, 0]
    for data, size in (
        (file_of(grey), "64 x 48"),
        (file_of(np.dstack((picture(), grey))), "64 x 48"),
        (file_of(grey.astype(np.uint16) * 257), "64 x 48"),
        (file_of(picture(), "JPEG", exif=turned), "48 x 64"),
    ):
        answer = upload(client, data)
        assert answer.status_code == 200 and f"photo.png, {size} pixels" in answer.text
        assert len(shown(answer.text)) == 2


def test_one_line_for_a_picture_that_cannot_be_used_and_the_server_goes_on(client):
    good = file_of(picture())
    for data, message in (
        (b"", "photo.png: empty file"),
        (b"no image", "photo.png: not an image, or of an unknown kind"),
        (good[: len(good) // 2], "photo.png: "),
        (file_of(picture(4, 64)), "photo.png: 64 x 4 pixels are too narrow for the model"),
    ):
        answer = upload(client, data)
        (line,) = re.findall(r'role="alert">(.*)</p>', answer.text)
        assert answer.status_code == 422 and line.startswith(message)
        assert os.sep not in line and not shown(answer.text)
        assert upload(client, good).status_code == 200


def test_other_sites_get_nothing(client):
    """A rebound name comes with its own Host, a post of another page with that page's Origin."""

    def post(headers):
        data = {"picture": (io.BytesIO(file_of(picture())), "photo.png")}
        return client.post("/", data=data, headers=headers)

    for headers in (
        {"Host": "evil.example"},
        {"Host": "evil.example:8000"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "https://localhost"},
    ):
        for answer in (client.get("/", headers=headers), post(headers)):
            assert answer.status_code == 403, headers
            assert answer.text.count("\n") == 1 and "onnx" not in answer.text
    assert post({"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}).status_code == 200


def test_the_browser_is_told_to_run_nothing_else(client):
    answer = client.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for kind in ("script", "style"):
        (text,) = re.findall(f"<{kind}>(.*)</{kind}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert " on" not in re.sub(r"<(script|style)>.*?</\1>|>[^<]*<", "", answer.text, flags=re.S)
    assert answer.headers["Cache-Control"] == "no-store"


def alert(answer):
    """The one line of a page that refuses, and that nothing is shown."""
    (line,) = re.findall(r'role="alert">(.*)</p>', answer.text)
    assert not shown(answer.text)
    return line


def test_a_picture_too_large_and_a_form_without_one(client):
    client.application.config["MAX_CONTENT_LENGTH"] = 1000
    answer = upload(client, bytes(2000))
    assert answer.status_code == 413 and alert(answer) == "a picture may have 64 MB at most"
    answer = client.post("/", data={})
    assert answer.status_code == 400 and alert(answer).startswith("no picture came with the form")


def test_no_more_work_at_once_than_there_is_room_for(models):
    pytest.importorskip("flask")
    entered, go_on = threading.Event(), threading.Event()

    def detect(image):
        entered.set()
        assert go_on.wait(30)
        return models[0].detect(image)

    app = web.create_app([web.Model("slow", detect, 1)], "")
    data = file_of(picture())

    def work():
        # The uploads below hold a slot for a moment, too, so one of these may find none.
        while (answer := upload(app.test_client(), data)).status_code == 503:
            go_on.wait(0.01)
        return answer

    with ThreadPoolExecutor(guard.AT_ONCE) as pool:
        taken = [pool.submit(work) for _ in range(guard.AT_ONCE)]
        assert entered.wait(30)
        for _ in range(300):  # until all of them hold a slot
            answer = upload(app.test_client(), b"no image")
            if answer.status_code == 503:
                break
            go_on.wait(0.1)  # leave the slot to them
        assert alert(answer) == "4 pictures are at work already; try again soon"
        assert app.test_client().get("/").status_code == 200
        go_on.set()
        assert [answer.result().status_code for answer in taken] == [200] * guard.AT_ONCE
    assert upload(app.test_client(), data).status_code == 200


def test_a_model_that_fails_ends_in_one_line(models):
    pytest.importorskip("flask")

    def fail(image):
        raise RuntimeError("of /home/somebody/model.onnx")

    client = web.create_app([web.Model("broken", fail, 1)], "").test_client()
    for _ in range(guard.AT_ONCE + 1):  # each gives its place back
        answer = upload(client, file_of(picture()))
        assert answer.status_code == 500 and alert(answer).startswith("a model failed")
        assert "somebody" not in answer.text


@pytest.mark.parametrize("size", [(70_000, 8), (8, 70_000)])
def test_a_picture_beyond_what_jpeg_holds_is_shown_smaller(client, size):
    width, height = size
    answer = upload(client, file_of(np.full((height, width, 3), 90, np.uint8)))
    assert answer.status_code == 200 and f"{width} x {height} pixels" in answer.text
    for image in shown(answer.text):
        assert max(image.shape) == web.LARGEST_SIDE and min(image.shape[:2]) == 1


def test_a_large_picture_shrinks_with_its_boxes(models, monkeypatch):
    monkeypatch.setattr(web, "LARGEST_SIDE", 640)
    (result,) = web.detect_side_by_side(models[:1], np.zeros((960, 1280, 3), np.uint8))
    assert result.picture.shape == (480, 640, 3)
    boxes = []
    monkeypatch.setattr(web, "annotate", lambda image, found: boxes.append(found.boxes) or image)
    web.detect_side_by_side(models[:1], np.zeros((960, 1280, 3), np.uint8))
    np.testing.assert_allclose(boxes[0], np.float32([[2, 3, 20, 15], [30, 5, 60, 40]]) / 2)


def test_the_folders_of_models_are_not_shown(tmp_path):
    paths = [str(tmp_path / "a" / "model.onnx"), "model.onnx", "b/other.onnx"]
    assert short_names(paths) == ["model.onnx (1)", "model.onnx (2)", "other.onnx"]


def test_refusals_in_one_line(files, monkeypatch, run_tool, tmp_path):
    def refusal(*args):
        status, errors = run_tool("web_demo.py", "--model", *args)
        assert status == 1 and errors[-1].startswith("error: ")
        return errors[-1]

    assert "no such model file" in refusal(*files, tmp_path / "gone.onnx")
    assert "gives nothing below" in refusal(*files, "--confidence-threshold", 0.01)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "flask", None)
        assert refusal(*files) == 'error: the page needs flask: pip install "sparsedet[web]"'
        with pytest.raises(InputError):
            web.create_app([], "")
    pytest.importorskip("flask")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port}: Address already in use" in refusal(*files, "--port", port)


@pytest.fixture(scope="module")
def url(files):
    """Of the page, by a process that has no torch, on a free port."""
    pytest.importorskip("flask")
    command = [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "tools" / "web_demo.py")]
    more = ["--model", *map(str, files), "--threads", "1", "--port", "0"]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(
        [*command, *more], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        try:
            yield re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())[0]
        finally:
            server.terminate()


def test_server_without_torch(url):
    with urlopen(url) as answer:
        assert "onnxruntime, threads: 1; detections above a score of 0.5" in answer.read().decode()


def test_in_a_browser(url, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    photo = tmp_path / "photo.png"
    photo.write_bytes(file_of(picture()))
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        hosts = set()
        page.on("request", lambda request: hosts.add(request.url[: len(url)]))
        page.goto(url)
        page.set_input_files("input", photo)
        page.wait_for_selector("article")
        assert page.locator("article h3").count() == 2
        assert page.locator("article img").first.evaluate("image => image.naturalWidth") == 640
        browser.close()
    assert {host for host in hosts if not host.startswith("data:")} == {url}
