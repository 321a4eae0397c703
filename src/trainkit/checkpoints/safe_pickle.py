"""What a checkpoint's pickle says, without torch and without running anything: plain values and outlines of tensors.

``torch.load(weights_only=True)`` refuses code, but it believes the sizes in the file: a tensor that claims more
elements than its storage has gets uninitialised memory (seen on torch 2.15). This reader interprets the
opcodes that ``torch.save`` writes for plain containers and tensors, calls nothing, and refuses every other opcode,
name and number before memory is spent on it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trainkit.checkpoints.archive import DamagedFile, Record, read_record

MAX_PICKLE_BYTES = 32 << 20
_MAX_OPERATIONS = 1_000_000
_ITEM_SIZES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
}
_NEWER_DTYPES = {
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
}
_FUNCTIONS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.storage", "UntypedStorage"),
    ("torch", "Size"),
}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as the file describes it; its bytes are in the record ``data/{key}``."""

    dtype: str
    shape: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class _Name:
    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: str | None  # None: bytes without a type
    item_size: int
    key: str
    count: int


class _Refused(Exception):
    """Why the pickle is not read on."""


def read_pickle(file: BinaryIO, path: str | Path, records: Mapping[str, Record]) -> Any:
    """The value in ``data.pkl`` with a ``TensorSpec`` in place of each tensor.

    Raises:
        DamagedFile: it holds anything but plain values and tensors, or a tensor does not fit into its bytes.
    """
    record = records["data.pkl"]
    if record.size > MAX_PICKLE_BYTES:
        raise DamagedFile(path, f"refused: its structure alone (data.pkl) takes {record.size:,} bytes")
    data = read_record(file, path, record)
    try:
        return _Reader(data, records).read()
    except _Refused as refusal:
        raise DamagedFile(path, str(refusal)) from None
    except (IndexError, KeyError, TypeError, ValueError, struct.error):
        raise DamagedFile(path, "damaged or forged: its structure (data.pkl) makes no sense") from None


class _Reader:
    """A machine for the part of pickle protocol 2 that plain values and tensors need (Lib/pickletools.py)."""

    def __init__(self, data: bytes, records: Mapping[str, Record]) -> None:
        self.data = data
        self.records = records
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def read(self) -> Any:
        for _ in range(_MAX_OPERATIONS):
            opcode = self.take(1)
            if opcode == b".":
                if self.position != len(self.data) or len(self.stack) != 1 or self.marks:
                    raise _Refused("refused: there is more in its data.pkl than one value")
                return self.stack.pop()
            self.step(opcode)
        raise _Refused(f"refused: its structure (data.pkl) takes more than {_MAX_OPERATIONS:,} operations")

    def take(self, length: int) -> bytes:
        start, self.position = self.position, self.position + length
        if self.position > len(self.data):
            raise _Refused("damaged: its structure (data.pkl) is cut short")
        return self.data[start : self.position]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        end = self.data.index(b"\n", self.position)
        return self.take(end + 1 - self.position)[:-1].decode()

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise ValueError("a mark is in the way")
        return self.stack.pop()

    def step(self, opcode: bytes) -> None:
        """One opcode. The order is by how often ``torch.save`` writes them."""
        match opcode:
            case b"q":
                self.memo[self.number("<B")] = self.stack[-1]
            case b"r":
                self.memo[self.number("<I")] = self.stack[-1]
            case b"h":
                self.stack.append(self.memo[self.number("<B")])
            case b"j":
                self.stack.append(self.memo[self.number("<I")])
            case b"X":
                self.stack.append(self.take(self.number("<I")).decode())
            case b"K":
                self.stack.append(self.number("<B"))
            case b"M":
                self.stack.append(self.number("<H"))
            case b"J":
                self.stack.append(self.number("<i"))
            case b"\x8a":
                self.stack.append(self.long())
            case b"G":
                self.stack.append(self.number(">d"))
            case b"(":
                self.marks.append(len(self.stack))
            case b"t":
                self.stack.append(tuple(self.pop_mark()))
            case b"\x85" | b"\x86" | b"\x87":
                items = [self.pop() for _ in range(opcode[0] - 0x84)]
                self.stack.append(tuple(reversed(items)))
            case b")":
                self.stack.append(())
            case b"}":
                self.stack.append({})
            case b"]":
                self.stack.append([])
            case b"N" | b"\x88" | b"\x89":
                self.stack.append({b"N": None, b"\x88": True, b"\x89": False}[opcode])
            case b"a" | b"e" | b"s" | b"u":
                self.fill(opcode)
            case b"c":
                self.stack.append(self.name())
            case b"Q":
                self.stack.append(self.storage(self.pop()))
            case b"R":
                arguments, function = self.pop(), self.pop()
                self.stack.append(self.call(function, arguments))
            case b"b":
                self.attributes(self.pop())
            case b"\x80":
                if self.number("<B") != 2 or self.position != 2:
                    raise _Refused("refused: a pickle protocol that torch.save does not use")
            case _:
                raise _Refused(
                    f"refused: its data.pkl has a pickle operation (0x{opcode.hex()}) that is never needed for tensors "
                    "and plain values"
                )

    def long(self) -> int:
        data = self.take(self.number("<B"))
        value = int.from_bytes(data, "little", signed=True)
        if not -(2**63) <= value < 2**64:
            raise _Refused("refused: an integer of more than 64 bits")
        return value

    def fill(self, opcode: bytes) -> None:
        """Put values into the list or dict on top: APPEND, APPENDS, SETITEM, SETITEMS."""
        match opcode:
            case b"a":
                values = [self.pop()]
            case b"s":
                values = [self.pop(), self.pop()][::-1]
            case _:
                values = self.pop_mark()
        target = self.stack[-1]
        if opcode in (b"a", b"e"):
            if type(target) is not list:
                raise ValueError("not a list")
            target.extend(values)
            return
        if type(target) is not dict or len(values) % 2:
            raise ValueError("not a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int):
                raise _Refused(f"refused: a dict key that is neither text nor an integer ({type(key).__name__})")
            target[key] = value

    def name(self) -> Any:
        module, name = self.line(), self.line()
        if (module, name) in _FUNCTIONS or (module == "torch" and (name in _ITEM_SIZES or name in _NEWER_DTYPES)):
            return _Name(module, name)
        shown = f"{module}.{name}"[:120]
        raise _Refused(
            f"refused: it names the Python object {shown!r}, and a checkpoint may hold tensors and plain values only; "
            "nothing of it was run"
        )

    def storage(self, reference: Any) -> _Storage:
        kind, storage_type, key, location, count = reference
        if kind != "storage" or not isinstance(storage_type, _Name) or type(location) is not str:
            raise ValueError("not a storage")
        dtype, item_size = _ITEM_SIZES.get(storage_type.name, (None, 1))
        if storage_type.name not in _ITEM_SIZES and storage_type.name != "UntypedStorage":
            raise ValueError("not a storage type")
        record = self.records.get(f"data/{key}") if type(key) is str else None
        if record is None:
            raise _Refused("damaged: a tensor's bytes are missing from the file")
        if type(count) is not int or count * item_size != record.size:
            raise _Refused(
                f"damaged or forged: a tensor's storage claims {count} elements, its record has {record.size} bytes"
            )
        return _Storage(dtype, item_size, key, count)

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Name) or type(arguments) is not tuple:
            raise ValueError("not a call")
        match function.name:
            case "OrderedDict" if arguments == ():
                return {}
            case "Size" if len(arguments) == 1:
                return tuple(_integer(item) for item in arguments[0])
            case "_rebuild_tensor_v2" if len(arguments) == 6:
                return _tensor(*arguments[:4])
            case "_rebuild_tensor_v3" if len(arguments) == 7 and isinstance(arguments[6], _Name):
                return _tensor(*arguments[:4], dtype=arguments[6].name)
            case "_rebuild_parameter" if len(arguments) == 3 and isinstance(arguments[0], TensorSpec):
                return arguments[0]
        raise _Refused(f"refused: a call of {function.name} with other arguments than torch.save writes")

    def attributes(self, state: Any) -> None:
        """The ``_metadata`` (layer versions) of a module's ``OrderedDict``, not needed here; nothing else has any."""
        if type(self.stack[-1]) is not dict or type(state) is not dict or set(state) - {"_metadata"}:
            raise _Refused("refused: an object with attributes of its own")


def _integer(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a size")
    return value


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *, dtype: str | None = None) -> TensorSpec:
    """Refuses tensors that reach outside their storage or show elements twice (which would multiply in memory)."""
    if not isinstance(storage, _Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise ValueError("not a tensor")
    if len(shape) != len(strides) or len(shape) > 64:
        raise ValueError("not a shape")
    item_size = storage.item_size
    if storage.dtype is None:
        if dtype not in _NEWER_DTYPES:
            raise ValueError("not a dtype")
        item_size = _NEWER_DTYPES[dtype]
    elif dtype is not None:
        raise ValueError("two dtypes")
    elements, last = 1, _integer(offset)
    for length, stride in zip(map(_integer, shape), map(_integer, strides), strict=True):
        elements *= length
        last += max(length - 1, 0) * stride
    available = storage.count * storage.item_size // item_size
    if elements and (last >= available or elements > available):
        raise _Refused(f"damaged or forged: a tensor of shape {list(shape)} does not fit into its {available} elements")
    return TensorSpec(dtype or storage.dtype or "", shape, storage.key)
