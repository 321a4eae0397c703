"""A served model answers as ``trainkit predict`` does, refuses what it cannot use, and ends well."""

import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from served import SOURCE, Server, form
from small_bundles import CLASSES, SIZE, TABLE, image_bundle, table_bundle
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.errors import UserError
from trainkit.web.serve import serve


def png(seed=0, size=(SIZE, SIZE), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def jpeg(seed=0):
    file = io.BytesIO()
    Image.open(io.BytesIO(png(seed))).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return image_bundle(tmp_path_factory.mktemp("image") / "bundle")


@pytest.fixture(scope="module")
def images(bundle):
    with Server(bundle, "--max-body", "300kB") as server:
        yield server


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    with Server(table_bundle(tmp_path_factory.mktemp("table") / "bundle")) as server:
        yield server


def probabilities(bundle, data):
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)[None]
    return dict(zip(CLASSES, session.run(None, {"images": pixels})[0][0].tolist(), strict=True))


def test_a_picture_as_the_body(images, bundle):
    expected = sorted(probabilities(bundle, png()).items(), key=lambda pair: -pair[1])
    status, answer = images.predict(png())
    assert status == 200
    [found] = answer["predictions"]
    assert found["source"] == "body"
    assert (found["label"], found["probability"]) == (found["top"][0]["label"], found["top"][0]["probability"])
    assert [(one["label"], one["probability"]) for one in found["top"]] == [
        (label, pytest.approx(value, abs=1e-6)) for label, value in expected
    ]
    assert images.predict(png(), "?top=1")[1]["predictions"][0]["top"] == found["top"][:1]


def test_several_files_of_which_one_cannot_be_used(images, bundle):
    body, kind = form(("a.png", png(1)), ("/etc/b.jpg", jpeg(2)[:300]), ("c.jpg", jpeg(3)), ("d.txt", b"hello there"))
    status, answer = images.predict(body, content_type=kind)
    assert status == 422
    assert answer["error"] == {"message": "2 of 4 inputs could not be used"}
    first, second, third, fourth = answer["predictions"]
    assert first["probability"] == pytest.approx(max(probabilities(bundle, png(1)).values()), abs=1e-6)
    assert third["probability"] == pytest.approx(max(probabilities(bundle, jpeg(3)).values()), abs=1e-6)
    assert second["source"] == "b.jpg"  # the name without folders
    assert second["error"].startswith(("damaged JPEG (", "not an image that can be read ("))
    assert fourth == {"source": "d.txt", "error": "not an image (it begins with b'hello there')"}


def bomb():
    """A PNG whose header says 10,000 x 10,000 pixels."""
    data = bytearray(png())
    data[16:24] = (10_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("body", "query", "status", "words"),
    [
        (b"", "", 422, "empty body (0 bytes)"),
        (
            png(size=(9, 7)),
            "",
            422,
            "7 x 9 pixels, and the model takes 8 x 8 (height x width); resize it, or add ?resize=1",
        ),
        (bomb(), "", 422, "too large (100,000,000 pixels, and at most 50,000,000 are read here)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "", 422, "not an image (it begins with b'%!PS-Adobe-3"),
        (png(), "?top=0", 422, "top: a whole number from 1 is expected, got '0'"),
        (png(), "?top=x", 422, "top: a whole number from 1 is expected, got 'x'"),
        (png(), "?topk=2", 422, "unknown parameter 'topk'; there are top and resize"),
        (png(), "?resize=2", 422, "resize: 0 or 1 is expected, got '2'"),
        (bytes(300_001), "", 413, "the body is larger than 300,000 bytes"),
        (iter([bytes(100_000)] * 5), "", 413, "the body is larger than 300,000 bytes"),
    ],
)
def test_what_is_refused(images, body, query, status, words):
    found, answer = images.predict(body, query)
    assert found == status
    message = answer["predictions"][0]["error"] if "predictions" in answer else answer["error"]["message"]
    assert message.startswith(words)


def test_a_picture_of_another_size_is_resized_where_that_is_asked_for(images):
    assert images.predict(png(size=(9, 7)), "?resize=1")[0] == 200


def test_forms_and_addresses_that_are_wrong(images):
    body, kind = form(("a.png", png()))
    status, answer = images.predict(body.replace(b'; filename="a.png"', b""), content_type=kind)
    assert (status, answer["error"]["message"]) == (422, "the field 'file' is no file; with curl: -F file=@FILE")
    assert images.predict(body, content_type="multipart/form-data")[0] == 400
    assert images.predict(b"--sep", content_type=kind)[0] in (400, 422)
    assert images.predict(png(), content_encoding="gzip")[0] == 415
    assert images.ask("GET", "/predict")[0] == 405
    status, answer, _ = images.ask("GET", "/nothing")
    assert status == 404
    assert answer["error"]["message"].startswith("GET /nothing is not served; there are POST /predict, GET /health")


def test_what_the_server_says_of_itself(images, bundle):
    assert images.ask("GET", "/health")[:2] == (200, {"alive": True})
    assert images.ask("GET", "/ready")[:2] == (200, {"ready": True})
    info = images.ask("GET", "/info")[1]
    assert (info["name"], info["labels"], info["program"]) == ("net", CLASSES, "model.onnx")
    assert f"{info['sha256']}  model.onnx" in (bundle / "SHA256SUMS").read_text()
    assert info["limits"]["max_body"] == 300_000
    assert info["versions"]["onnxruntime"] == onnxruntime.__version__
    described = images.ask("GET", "/openapi.json")[1]
    assert described["openapi"] == "3.1.0"
    assert "image/*" in described["paths"]["/predict"]["post"]["requestBody"]["content"]
    before = images.metric("trainkit_requests_total")
    images.predict(png())
    assert images.metric("trainkit_requests_total") == before + 2  # this request, and the one before for the numbers
    assert images.metric("trainkit_batch_size_count") > 0
    assert images.metric("trainkit_request_seconds_count") > 0
    assert images.metric("trainkit_queue_length") == 0


def test_rows_as_json_and_as_csv(rows):
    status, answer = rows.predict(json.dumps([{"weight": 1.5, "shop": "south"}, {"shop": "north", "weight": "2"}]))
    assert status == 200
    assert answer == {
        "predictions": [{"source": "[0]", "values": {"price": 4.0}}, {"source": "[1]", "values": {"price": 4.0}}]
    }
    assert rows.predict(json.dumps({"weight": 1, "shop": "north", "other": 3}))[1]["predictions"][0]["values"] == {
        "price": 2.0
    }
    status, answer = rows.predict(b"shop;weight\nsouth;3\n\nnorth;4\n", content_type="text/csv")
    assert status == 200
    assert [one["source"] for one in answer["predictions"]] == ["rows.csv:2", "rows.csv:4"]
    assert [one["values"]["price"] for one in answer["predictions"]] == [7.0, 8.0]
    assert rows.predict(b'\xef\xbb\xbf{"weight": 1, "shop": "north"}')[0] == 200
    answer = rows.predict(b"[x],weight,shop\n0,1,south\n", content_type="text/csv")[1]
    assert answer["predictions"] == [{"source": "rows.csv:2", "values": {"price": 3.0}}]
    body, kind = form(("a.csv", b"weight,shop\n1,south\n"), ("b.csv", b"weight,shop\n2,north,3,4\n"))
    answer = rows.predict(body, content_type=kind)[1]
    assert answer["predictions"][0] == {"source": "a.csv:2", "values": {"price": 3.0}}
    assert answer["predictions"][1] == {"source": "b.csv:2", "error": "4 cells, but the header has 2"}


def test_what_was_filled_in_is_named(rows):
    """The program of this bundle has no median in it."""
    answer = rows.predict('[{"weight": null, "shop": "north"}, {"weight": 1, "shop": "north"}]')[1]["predictions"]
    assert answer[0] == {"source": "[0]", "values": {"price": None}, "filled": ["weight"]}
    assert "filled" not in answer[1]


@pytest.mark.slow
def test_true_and_false_of_json_are_those_of_the_column(tmp_path):
    columns = [{"name": "weight", "kind": "numeric", "style": None}]
    columns += [{"name": "open", "kind": "boolean", "categories": ["no", "yes"]}]
    inputs = [{"name": one["name"], "column": one["name"], "offset": 0.0} for one in columns]
    bundle = table_bundle(tmp_path / "bundle", TABLE | {"columns": columns, "inputs": inputs, "unseen": "own"})
    cells = [True, "yes", False, "no", 1, "maybe"]
    with Server(bundle) as server:
        answers = server.predict(json.dumps([{"weight": 1, "open": cell} for cell in cells]))[1]["predictions"]
    assert [one["values"]["price"] for one in answers] == [3.0, 3.0, 2.0, 2.0, 3.0, None]
    assert [one.get("filled") for one in answers] == [None] * 5 + [["open"]]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('[{"weight": 1}]', "no column 'shop', which the model takes; there are 'weight'"),
        ("weight,store\n1,south\n", "no column 'shop', which the model takes; the file has 'weight', 'store'"),
        ('[{"weight": 1, "shop": "west"}]', "column 'shop': 'west' is new; the training had 'north', 'south'"),
        ('[{"weight": "a lot", "shop": "north"}]', "column 'weight': 'a lot' is new; the training had numbers"),
        ('[{"weight": [1], "shop": "north"}]', "column 'weight': a number or a text is expected, got [1]"),
        ('[{"weight": 1e999, "shop": "north"}]', "column 'weight': 'inf' is new; the training had numbers"),
        ('[{"weight": true, "shop": "north"}]', "column 'weight': 'True' is new; the training had numbers"),
        ('{"weight": 1, "shop": "north", "weight": 2}', "not JSON that can be read ('weight' stands twice in a row)"),
        ("[" * 100_000, "not JSON that can be read ("),
        ("[]", 'a list of rows is expected, each {"column": value, ...}'),
        ("[1, 2]", 'a list of rows is expected, each {"column": value, ...}'),
        (b"\x1f\x8b\x08\x00", "packed or binary; send the text of the CSV file, or rows as JSON"),
        (b"PAR1", "packed or binary; send the text of the CSV file, or rows as JSON"),
    ],
)
def test_rows_that_cannot_be_used(rows, body, words):
    status, answer = rows.predict(body)
    assert status == 422
    assert answer["predictions"][0]["error"].startswith(words)


def test_a_file_that_curl_has_joined_to_one_line_is_refused_with_what_to_type(rows):
    kind = "application/x-www-form-urlencoded"  # of curl, with -d and with --data-binary
    status, answer = rows.predict(b"shop,weightsouth,3", content_type=kind)
    assert status == 422
    assert answer["error"]["message"].startswith("no line ends in the body: curl -d drops those of a file")
    for body in (b"shop,weight\nsouth,3\n", b'{"weight": 3, "shop": "south"}'):
        assert rows.predict(body, content_type=kind)[0] == 200


def test_a_program_that_cannot_be_run_is_named(bundle, tmp_path):
    """The sums of these fit, as of a bundle whose runtime is too old."""
    broken = shutil.copytree(bundle, tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"no program")
    digest = hashlib.sha256(b"no program").hexdigest()
    sums = (broken / "SHA256SUMS").read_text().splitlines()
    lines = [f"{digest}  model.onnx" if line.endswith(" model.onnx") else line for line in sums]
    (broken / "SHA256SUMS").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"model\.onnx: cannot be loaded \("):
        serve(broken, port=0)
    (broken / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="SHA256SUMS is missing; export the bundle again"):
        serve(broken, port=0)


def test_a_changed_file_is_found_before_anything_is_loaded(bundle, tmp_path):
    changed = shutil.copytree(bundle, tmp_path / "changed")
    with (changed / "model.onnx").open("ab") as file:
        file.write(b"\0")
    for command in ([sys.executable, "-m", "trainkit", "serve", changed], [sys.executable, changed / "serve.py"]):
        done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)}, check=False)
        assert done.returncode == 2
        assert done.stderr == f"error: {changed}: model.onnx has changed since the export; nothing was loaded\n"


CHILD = """
import sys
from trainkit.__main__ import main
sys.argv = ["trainkit", "serve", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    print(sorted({"torch", "polars", "jinja2"} & set(sys.modules)), end.code or 0, file=sys.stderr)
"""


def test_a_bundle_is_served_without_torch_and_with_a_token_where_one_is_asked_for(bundle, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("s3cret\n")
    command = (sys.executable, "-c", CHILD)
    for name in ("serve", "serve_http", "predict", "front"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    with Server(bundle, "--token-file", tmp_path / "token", "--host", "0.0.0.0", command=command) as server:
        assert server.ask("GET", "/health")[0] == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}):
            status, answer, given = server.ask("POST", "/predict", png(), **headers)
            assert (status, given["www-authenticate"]) == (401, "Bearer")
            assert answer["error"]["message"] == "a token is needed: Authorization: Bearer TOKEN"
        assert server.ask("GET", "/info")[0] == 401
        assert server.predict(png(), authorization="Bearer s3cret")[0] == 200
        assert server.stop() == 0
    assert server.said[-1] == "[] 0\n"
    assert not any("warning" in line for line in server.said)


def test_a_warning_a_full_queue_a_late_answer_and_a_client_that_has_gone(bundle):
    with Server(bundle, "--queue", "1", "--max-wait-ms", "700", "--timeout", "0.3", "--host", "0.0.0.0") as server:
        assert server.said[0].startswith("warning: everybody who reaches http://0.0.0.0:")
        found = []
        first = threading.Thread(target=lambda: found.append(server.predict(png())))
        first.start()
        while server.metric("trainkit_queue_length") < 1:
            time.sleep(0.01)
        status, answer, headers = server.ask("POST", "/predict", png())
        assert (status, headers["retry-after"]) == (429, "1")
        assert answer["error"]["message"] == "the queue is full (1 requests); try again"
        first.join()
        assert found == [(504, {"error": {"message": "no answer within 0.3 s"}})]
        assert server.metric("trainkit_batch_size_count") == 0  # dropped before it was computed
        gone = server.connect()
        gone.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(png()), png()))
        while server.metric("trainkit_queue_length") < 1:
            time.sleep(0.01)
        gone.close()
        while server.metric("trainkit_queue_length") > 0:
            time.sleep(0.01)
        assert server.metric('trainkit_requests_total{path="/predict",code="499"}') == 1
        assert server.metric("trainkit_batch_size_count") == 0


def test_a_signal_lets_what_is_in_flight_end(bundle):
    server = Server(bundle)
    slow = server.connect()
    slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(png()), png()[:50]))
    other = server.connect()
    other.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert other.recv(12) == b"HTTP/1.1 200"
    server.process.send_signal(signal.SIGTERM)
    while not any(line.startswith("stopping") for line in server.said):
        time.sleep(0.01)
    assert server.ask("GET", "/ready")[:2] == (503, {"ready": False})
    status, answer, headers = server.ask("POST", "/predict", png())
    assert (status, answer["error"]["message"], headers["connection"]) == (503, "the server is stopping", "close")
    slow.sendall(png()[50:])
    assert slow.recv(12) == b"HTTP/1.1 200"
    assert server.process.wait(timeout=30) == 0


def test_wrong_options_are_refused(bundle, tmp_path, images):
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UserError, match=r"empty: one word is expected, for instance of: openssl rand -hex 32"):
        serve(bundle, token_file=tmp_path / "empty")
    with pytest.raises(UserError, match=f"--port {images.port}: another program listens there; give another --port"):
        serve(bundle, port=images.port)
    with pytest.raises(UserError, match="no run"):
        serve(None, runs_dir=tmp_path, port=0)
    done = CliRunner().invoke(app, ["serve", str(bundle), "--max-body", "many"])
    assert str(done.exception) == "--max-body many: a size is expected, such as 512kB or 10MB"
