"""Files that want to do harm, or are not what their name says, built when the tests run. None is in the repository."""

import io
import os
import pickle
import socket
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

PLAIN = {"format": 1, "kind": "trainkit-checkpoint", "model": {"w": torch.ones(4)}}


class Payload:
    """Pickles to a call."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def stored(records: dict[str, bytes], *, top: str = "archive") -> bytes:
    """A zip of stored records as ``torch.save`` lays it out, so that only what is inside can be the reason."""
    body, directory, size = [], [], 0
    for name, data in records.items():
        path = f"{top}/{name}".encode()
        sizes = (zlib.crc32(data), len(data), len(data), len(path))
        directory.append(
            struct.pack("<4s6H3I5H2I", b"PK\1\2", 0, 0, 0x800, 0, 0, 0, *sizes, 0, 0, 0, 0, 0, size) + path
        )
        body.append(struct.pack("<4s5H3I2H", b"PK\3\4", 0, 0x800, 0, 0, 0, *sizes, 0) + path + data)
        size += len(body[-1])
    count, length = len(records), sum(map(len, directory))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, length, size, 0)
    return b"".join([*body, *directory, end])


def with_pickle(data: bytes) -> bytes:
    return stored({**loadable(), "data.pkl": data})


def checkpoint_with(value: bytes) -> bytes:
    """A checkpoint whose last value is made by the given opcodes."""
    return stored(loadable(value))


def loadable(value: bytes = b"N") -> dict[str, bytes]:
    """The records of ``checkpoint_with``."""
    head = b"\x80\x02}(" + text("format") + b"K\x01" + text("kind") + text("trainkit-checkpoint")
    data = head + text("model") + b"}" + text("w") + tensor() + b"s" + text("x") + value + b"u."
    return {"data.pkl": data, "byteorder": b"little", "data/0": bytes(16), "version": b"3\n"}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + data


def tensor(shape=(4,), strides=(1,), *, offset=0, count=4, key="0", storage="FloatStorage") -> bytes:
    """The opcodes of a tensor; as ``torch.save`` writes it, for the default arguments."""
    persistent = (
        b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    )
    sizes = b"(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, strides)) + b"t"
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + number(offset) + sizes + hooks + b"tR"


def pickled_calls(canary: Path) -> dict[str, bytes]:
    """Pickles that would make a file called ``canary`` if anything unpickled them."""
    command, code = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    call = b"(" + text(command) + b"tR"
    makers = {
        "os.system": pickle.dumps({"model": Payload(os.system, command)}, 2),
        "eval": pickle.dumps(Payload(eval, code), 2),
        "exec": pickle.dumps(Payload(exec, code), 2),
        "open": pickle.dumps(Payload(open, str(canary), "w"), 2),
        "protocol 4": pickle.dumps(Payload(os.system, command), 4),
        "protocol 5": pickle.dumps(Payload(os.system, command), 5),
        "protocol 0": pickle.dumps(Payload(os.system, command), 0),
        "getattr": b"\x80\x02cbuiltins\ngetattr\n(cos\n" + b"path\n" + text("system") + b"tR" + call + b".",
        "inst": f"(S'{command}'\nios\nsystem\n.".encode(),
        "obj": b"(cos\nsystem\n" + text(command) + b"o.",
        "newobj": b"\x80\x02csubprocess\nPopen\n(" + text(command) + b"t\x81.",
        "subprocess": b"\x80\x02csubprocess\ngetoutput\n" + call + b".",
        "torch.load": b"\x80\x02ctorch\nload\n" + call + b".",
        "torch.hub": b"\x80\x02ctorch.hub\nload\n" + call + b".",
        "extension": b"\x80\x02\x82\x01" + call + b".",
        "numpy": pickle.dumps({"model": __import__("numpy").float64(1)}, 2),
        "after the end": pickle.dumps({"model": {}}, 2) + pickle.dumps(Payload(os.system, command), 2),
        "dotted name": b"\x80\x02ctorch\nos.system\n" + call + b".",
        "a name with a line end": b"\x80\x02ctorch\nFloatStorage\rcos\nsystem\n" + call + b".",
    }
    return {f"pickle: {name}": with_pickle(data) for name, data in makers.items()}


def pickled_bombs() -> dict[str, bytes]:
    laughs = b"]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(40))
    nested = b"]" * 100_000 + b"a" * 99_999
    tuples = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    sizes = b"ctorch\nSize\nq\x00(" + b"K\x01" * 300_000 + b"t\x85q\x01" + b"h\x00h\x01R" * 10_000
    return {
        "tensor: larger than its storage": checkpoint_with(tensor((10**10,))),
        "tensor: one element shown a billion times": checkpoint_with(tensor((10**12,), (0,))),
        "tensor: overlapping rows": checkpoint_with(tensor((4, 4), (1, 0))),
        "tensor: offset outside": checkpoint_with(tensor(offset=4)),
        "tensor: negative offset": checkpoint_with(tensor(offset=-1)),
        "tensor: negative stride": checkpoint_with(tensor((4,), (-1,))),
        "tensor: negative size": checkpoint_with(tensor((-4,), (1,))),
        "tensor: storage claims more than its record": checkpoint_with(tensor((10**9,), count=10**9)),
        "tensor: storage claims less": checkpoint_with(tensor((2,), count=2)),
        "tensor: record missing": checkpoint_with(tensor(key="1")),
        "tensor: record elsewhere": checkpoint_with(tensor(key="../version")),
        "tensor: unknown storage": checkpoint_with(tensor(storage="QInt8Storage")),
        "values: billion laughs": checkpoint_with(b"(" + laughs + b"t"),
        "values: nested 100000 deep": checkpoint_with(nested),
        "values: a list within itself": checkpoint_with(b"]q\x00h\x00a"),
        "values: a dict within itself": checkpoint_with(b"}q\x00X\x01\x00\x00\x00ah\x00s"),
        "values: two million dicts": checkpoint_with(b"(" + b"}" * 2_000_000 + b"t"),
        "values: an integer of a million bytes": checkpoint_with(b"\x8b" + struct.pack("<I", 10**6) + bytes(10**6)),
        "values: an unhashable key": checkpoint_with(b"}]K\x01s"),
        "values: a storage as a value": checkpoint_with(b"ctorch\nFloatStorage\n"),
        "values: text that is not UTF-8": checkpoint_with(b"X\x02\x00\x00\x00\xff\xfe"),
        "values: text longer than the file": checkpoint_with(b"X\xff\xff\xff\xff"),
        "values: no model": with_pickle(pickle.dumps({"format": 1, "kind": "trainkit-checkpoint"}, 2)),
        "values: a newer format": with_pickle(pickle.dumps({**PLAIN, "format": 99, "model": {}}, 2)),
        "values: a key nested 300000 deep": checkpoint_with(b"})" + b"\x85" * 300_000 + b"Ns"),
        "values: a key of billions": checkpoint_with(b"(" + tuples + b"}h\x3cNst"),
        "values: attributes of a name": checkpoint_with(b"ctorch\nSize\nN}" + text("x") + b"Ns\x86b"),
        "values: attributes of a tensor": checkpoint_with(tensor() + b"}" + text("shape") + b"Nsb"),
        "values: one long size 10000 times": checkpoint_with(b"(" + sizes + b"t"),
        "values: a huge data.pkl": with_pickle(b"\x80\x02" + b"N" * (33 << 20)),
    }


def saved(value: object, **arguments) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **arguments)
    return buffer.getvalue()


def rezipped(change: Callable[[zipfile.ZipFile, str, bytes], None]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(PLAIN))) as source, zipfile.ZipFile(buffer, "w") as target:
        for item in source.infolist():
            change(target, item.filename, source.read(item))
    return buffer.getvalue()


def archives() -> dict[str, bytes]:
    good = saved(PLAIN)
    deflated = rezipped(lambda zip, name, data: zip.writestr(name, data, zipfile.ZIP_DEFLATED))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target, target.open("archive/data.pkl", "w") as record:
        for _ in range(300):
            record.write(bytes(1 << 20))
    nested = stored({"data.pkl": good, "version": b"3\n"})
    plain = loadable()
    encrypted = bytearray(stored(plain))
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    overlapping = bytearray(stored({"data.pkl": b"x" * 8, "version": b"y" * 8}))
    second = overlapping.rindex(b"PK\1\2")
    overlapping[second + 42 : second + 46] = bytes(4)
    endless = bytearray(stored(plain))
    line = endless.index(b"PK\1\2")
    endless[line + 20 : line + 28] = b"\xfe\xff\xff\xff" * 2
    elsewhere = bytearray(good)  # torch.load would look for the directory there, zipfile at the end
    elsewhere[-34:-26] = bytes(8)
    crowded = stored(plain)[:-22] + struct.pack("<4s6H3I5H2I", b"PK\1\2", *[0] * 16) * 180_000
    crowded += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 4, 4, len(crowded) - crowded.index(b"PK\1\2"), 0, 0)
    crowded = crowded[:-6] + struct.pack("<IH", crowded.index(b"PK\1\2"), 0)
    script = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), script)
    return {
        "zip: compressed": deflated,
        "zip: bomb": bomb.getvalue(),
        "zip: a checkpoint within a checkpoint": nested,
        "zip: zipped checkpoint": rezipped(
            lambda zip, name, data: zip.writestr("net.pth", good) if "pkl" in name else None
        ),
        "zip: encrypted": bytes(encrypted),
        "zip: overlapping records": bytes(overlapping),
        "zip: a record larger than the file": bytes(endless),
        "zip: 60000 records": stored({**plain, **{f"data/{number}": b"" for number in range(60_000)}}),
        "zip: more lines in the directory than records": crowded,
        "zip: the directory elsewhere": bytes(elsewhere),
        "zip: a name twice": duplicate(),
        "zip: bytes between the records": with_gap(plain),
        "zip: two names for one record": stored(plain).replace(b"archive/version", b"archive/VERSION", 1),
        "zip: path out of the folder": stored({**plain, "../../evil": b""}),
        "zip: absolute path": stored({**plain, "data/0": b""}, top="/etc"),
        "zip: other case": stored({**plain, "DATA.PKL": b""}),
        "zip: two top folders": stored(plain).replace(b"archive/version", b"another/version"),
        "zip: bytes before": b"#!/bin/sh\n" + good,
        "zip: bytes after": good + b"x",
        "zip: a comment": good[:-2] + b"\x03\x00abc",
        "zip: no records": b"PK\5\6" + bytes(18),
        "zip: TorchScript renamed": script.getvalue(),
        "zip: numpy": numpy_archive(),
        "zip: attributes of a folder": rezipped(lambda zip, name, data: zip.writestr(as_folder(name), data)),
    }


def as_folder(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0x10
    return info


def duplicate() -> bytes:
    return stored({**loadable(), "version1": loadable()["data.pkl"]}).replace(b"version1", b"data.pkl")


def with_gap(records: dict[str, bytes]) -> bytes:
    """One byte before the last record that belongs to nothing; all offsets are right."""
    data = bytearray(stored(records))
    data.insert(data.rindex(b"PK\3\4"), 0x3F)
    last = data.rindex(b"PK\1\2") + 42
    for position in (last, len(data) - 6):
        data[position : position + 4] = (int.from_bytes(data[position : position + 4], "little") + 1).to_bytes(
            4, "little"
        )
    return bytes(data)


def numpy_archive() -> bytes:
    import numpy

    buffer = io.BytesIO()
    numpy.savez(buffer, w=numpy.ones(3))
    return buffer.getvalue()


def other_formats(canary: Path) -> dict[str, bytes]:
    payload = Payload(os.system, f"touch {canary}")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as target:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(payload, 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return {
        "other: a raw pickle": pickle.dumps(payload),
        "other: PyTorch before 1.6": saved({"w": torch.ones(2)}, _use_new_zipfile_serialization=False),
        "other: PyTorch before 1.6 with code": saved(payload, _use_new_zipfile_serialization=False),
        "other: tar of PyTorch 0.1": tar.getvalue(),
        "other: HTML": b"<!DOCTYPE html><html><body>404</body></html>",
        "other: gzip": b"\x1f\x8b\x08" + bytes(100),
        "other: Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "other: HDF5": b"\x89HDF\r\n\x1a\n" + bytes(500),
        "other: safetensors": len(header).to_bytes(8, "little") + header + bytes(4),
        "other: text": b"hello\n" * 50,
        "other: nothing": b"",
        "other: zeros": bytes(10_000),
    }


def special_files(folder: Path) -> dict[str, Path]:
    """What is no regular file, and files with more bytes than any disk."""
    paths = {
        name: folder / f"special {number}.pth"
        for number, name in enumerate(
            ["pipe", "folder", "socket", "device", "endless device", "dangling", "loop", "sparse"]
        )
    }
    os.mkfifo(paths["pipe"])
    paths["folder"].mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket may have 108 bytes only
        try:
            server.bind(paths["socket"].name)
        finally:
            os.chdir(here)
    paths["device"].symlink_to("/dev/null")
    paths["endless device"].symlink_to("/dev/zero")
    paths["dangling"].symlink_to(folder / "nothing here")
    paths["loop"].symlink_to(paths["loop"])
    with open(paths["sparse"], "wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(1 << 40)
    return {f"special: {name}": path for name, path in paths.items()}


def build_all(folder: Path, canary: Path) -> dict[str, Path]:
    """All of them in a folder, by description."""
    files = {**pickled_calls(canary), **pickled_bombs(), **archives(), **other_formats(canary)}
    paths = {}
    for index, (name, data) in enumerate(files.items()):
        paths[name] = folder / f"{index}.pth"
        paths[name].write_bytes(data)
    return {**paths, **special_files(folder)}
