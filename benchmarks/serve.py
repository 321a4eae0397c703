"""Serving pictures with 32 clients, against ``trainkit predict``, a plain FastAPI handler and LitServe.

    python benchmarks/serve.py [--model resnet18|cnn] [--size 64] [--seconds 10] [--clients 32] [--turns 1]

All of them run one ONNX program, exported here, on the same JPEGs, which come as forms, and decode with the same code
(``predict.py`` of the bundle; ``trainkit predict`` has its own); "fastapi, torch" runs the bundle's TorchScript. Each
server is a process of its own; the clients, threads of another, keep their connections. "CPU" is of the server alone.
The servers take turns; a figure is of the better turn.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

MODELS = {
    "cnn": "{type: cnn, norm: batch, blocks: [{channels: 32, kernel_size: 3, pool: 2}, {channels: 64, kernel_size: 3, "
    "pool: 2}, {channels: 128, kernel_size: 3, pool: 2}]}",
    "resnet18": "{type: torchvision, name: resnet18, weights: none}",
}
FASTAPI = """
import sys
sys.path.insert(0, sys.argv[1])
import json, numpy as np, predict, uvicorn
from fastapi import FastAPI, UploadFile
app, name = FastAPI(), sys.argv[3]
run = predict.load(name)
@app.post("/predict")
def answer(file: UploadFile):
    values = run(predict.decode(file.file.read(), predict.PROGRAMS[name])[None])[0]
    order = np.argsort(-values)[:3].tolist()
    return {"top": [{"label": predict.LABELS[k], "probability": float(values[k])} for k in order]}
uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""
LITSERVE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import litserve as ls
from fastapi import Request
class Api(ls.LitAPI):
    def setup(self, device):
        import predict
        self.module, self.model = predict, predict.load("model.onnx")
    def decode_request(self, request: Request):
        return self.module.decode(request["file"].file.read(), self.module.PROGRAMS["model.onnx"])
    def batch(self, inputs):
        return np.stack(inputs)
    def predict(self, batch):
        return self.model(batch)
    def unbatch(self, outputs):
        return list(outputs)
    def encode_response(self, values):
        order = np.argsort(-values)[:3].tolist()
        return {"top": [{"label": self.module.LABELS[k], "probability": float(values[k])} for k in order]}
if __name__ == "__main__":
    api = Api(max_batch_size=32, batch_timeout=0.005)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[2]), log_level="error", generate_client_file=False, pretty_logs=False)
"""
CLIENTS = """
import sys
sys.path.insert(0, sys.argv[1])
import serve
print(serve.json.dumps(serve.load(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))))
"""


def make_pictures(folder: Path, count: int, size: int) -> list[Path]:
    """JPEGs of 3 classes, 4:3, smooth with some noise, as photographs are."""
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size * 4 // 3, size), Image.Resampling.BICUBIC)
        noisy = np.asarray(image, dtype=np.int16) + rng.integers(-12, 13, (size, size * 4 // 3, 3))
        path = folder / "train" / "abc"[number % 3] / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=88)
        paths.append(path)
    return paths


def make_bundle(folder: Path, model: str, size: int) -> Path:
    from trainkit.api import export
    from trainkit.config import load_config
    from trainkit.workflows.train.run import train

    (folder / "c.yaml").write_text(
        f"dataset: {{type: image_folder, root: {folder}, val_fraction: 0.2}}\n"
        f"transforms: [{{type: center_crop, size: {size}}}]\nmodel: {MODELS[model]}\n"
        "training: {epochs: 1, batch_size: 32}\nlogging: {plots: false}\nexport: {torchscript: false}\n"
    )
    best = train(load_config(folder / "c.yaml"), runs_dir=folder / "runs").best_checkpoint
    return export(best, formats=("onnx", "torchscript"), output=folder / "bundle").bundle


def load(port: int, pictures: str, clients: int, seconds: float) -> dict[str, float]:
    """Requests a second and latencies in milliseconds, after a warm-up of a fifth of the time."""
    files = [path.read_bytes() for path in sorted(Path(pictures).rglob("*.jpg"))]
    head = b'--sep\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    bodies = [head + data + b"\r\n--sep--\r\n" for data in files]
    kind = {"Content-Type": "multipart/form-data; boundary=sep"}
    numbers = itertools.count()
    begin = time.perf_counter() + seconds / 5
    end = begin + seconds
    latencies: list[float] = []
    wrong: list[object] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while (started := time.perf_counter()) < end:
            connection.request("POST", "/predict", bodies[next(numbers) % len(bodies)], kind)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                wrong.append((answer.status, text[:200]))
                return
            if begin <= started and time.perf_counter() <= end:
                latencies.append(1e3 * (time.perf_counter() - started))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise SystemExit(f"{len(wrong)} clients were refused: {wrong[0]}")
    p50, p99 = np.percentile(latencies, [50, 99])
    return {"rate": len(latencies) / seconds, "p50": p50, "p99": p99, "requests": next(numbers)}


def cpu_seconds(group: int) -> float:
    """What the processes of a group have used so far."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12]) if int(fields[2]) == group else 0
    return total / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def measure(command: list[object], folder: Path, clients: int, seconds: float) -> dict[str, float]:
    """Start a server, wait for it, and load it from another process."""
    port = free_port()
    server = subprocess.Popen([str(part).replace("PORT", str(port)) for part in command], start_new_session=True)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        arguments = [Path(__file__).parent, port, folder / "train", clients, seconds]
        time.sleep(2)  # processes of LitServe start after the port is open
        before = cpu_seconds(server.pid)
        done = subprocess.run(
            [sys.executable, "-c", CLIENTS, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout)
        return {**found, "cpu": 1e3 * (cpu_seconds(server.pid) - before) / found["requests"]}
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def predict_rate(bundle: Path, pictures: list[Path]) -> float:
    """Pictures a second of ``trainkit predict``, the start not counted."""
    from trainkit.workflows.predict import open_model, predict

    model = open_model(bundle)
    rates = []
    for _ in range(4):
        started = time.perf_counter()
        count = sum(1 for _ in predict(model, pictures))
        rates.append(count / (time.perf_counter() - started))
    return max(rates[1:])


def bare_milliseconds(bundle: Path, pictures: list[Path]) -> float:
    """Reading and computing one picture in the process, without a server: the median."""
    from trainkit.web.standalone import load_predict

    module = load_predict(bundle, "image")
    run, entry = module.load("model.onnx"), module.PROGRAMS["model.onnx"]
    bodies = [path.read_bytes() for path in pictures[:100]]
    times = []
    for body in [*bodies[:20], *bodies, *bodies]:
        started = time.perf_counter()
        run(module.decode(body, entry)[None])
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[20:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--size", type=int, default=64, help="height of the pictures, and the side of the crop")
    parser.add_argument("--pictures", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=["trainkit", "fastapi", "fastapi, torch", "litserve"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures = make_pictures(folder, options.pictures, options.size)
        bundle = make_bundle(folder, options.model, options.size)
        commands: dict[str, list[object]] = {
            "trainkit": [sys.executable, "-m", "trainkit", "serve", bundle, "--port", "PORT"],
            "fastapi": [sys.executable, "-c", FASTAPI, bundle, "PORT", "model.onnx"],
            "fastapi, torch": [sys.executable, "-c", FASTAPI, bundle, "PORT", "model.pt"],
            "litserve": [sys.executable, folder / "lit.py", bundle, "PORT"],
        }
        (folder / "lit.py").write_text(LITSERVE)
        rate = predict_rate(bundle, pictures)
        print(f"trainkit predict     {rate:8.1f} pictures/s", flush=True)
        best: dict[str, dict[str, float]] = {}
        for turn in range(options.turns):
            for name in options.only if turn % 2 == 0 else options.only[::-1]:
                found = measure(commands[name], folder, options.clients, options.seconds)
                best[name] = max(best.get(name, found), found, key=lambda one: one["rate"])
        for name, found in best.items():
            times = f"{found['cpu']:.1f} ms of CPU each, p50 {found['p50']:.0f} ms, p99 {found['p99']:.0f} ms"
            print(f"{name:20} {found['rate']:8.1f} pictures/s, {found['rate'] / rate:.2f} x predict, {times}")
        idle = measure(commands["trainkit"], folder, 1, 4)
        bare = bare_milliseconds(bundle, pictures)
        print(f"one client: p50 {idle['p50']:.2f} ms, p99 {idle['p99']:.2f} ms; bare model {bare:.2f} ms: ", end="")
        print(f"{idle['p50'] - bare:+.2f} ms")


if __name__ == "__main__":
    main()
