"""Read a checkpoint's pickle without torch and without running anything: plain values, a spec for each tensor.

``torch.load(weights_only=True)`` refuses code, but it believes the sizes in the file: a tensor that claims more
elements than its storage has gets uninitialized memory (seen on torch 2.15). ``pickletools`` reads the opcodes here,
and this reader does what those say that ``torch.save`` writes for plain containers and tensors. It calls nothing, and
refuses every other opcode, name and number before memory is spent on it.

A ``pickle.Unpickler`` whose ``find_class`` refuses names would not do. On Python 3.11, nine bytes (LONG_BINPUT with a
large index) take a gigabyte, hashing a nested tuple as the key of a dict takes hours or ends the process, and BUILD
sets attributes of whatever ``find_class`` gave.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

from trainkit.checkpoints.archive import Archive, DamagedFile

MAX_PICKLE_BYTES = 32 << 20
_MAX_OPERATIONS = 1_000_000
_MAX_DIMENSIONS = 64
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
    ("torch._utils", "_rebuild_tensor"),
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
    strides: tuple[int, ...] = ()
    offset: int = 0
    """In elements, from the start of the record."""


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


def read_pickle(archive: Archive) -> Any:
    """The value in ``data.pkl`` with a ``TensorSpec`` in place of each tensor.

    Raises:
        DamagedFile: it holds anything but plain values and tensors, or a tensor does not fit into its bytes.
    """
    path, size = archive.path, archive.size("data.pkl") or 0
    if size > MAX_PICKLE_BYTES:
        raise DamagedFile(path, f"refused: its structure alone (data.pkl) takes {size:,} bytes")
    data = BytesIO(archive.read("data.pkl"))
    value = read_value(data, path, partial(_check_record, archive))
    if data.read(1):
        raise DamagedFile(path, "refused: there is more in its data.pkl than one value")
    return value


def read_value(data: BytesIO, path: str | Path, check_storage: Callable[[str, int, int], None]) -> Any:
    """The value of the pickle that begins here; ``data`` stands behind it then.

    Args:
        path: for messages.
        check_storage: called with the key of each storage, its elements, and the bytes of one; may call ``refuse``.

    Raises:
        DamagedFile: as ``read_pickle``.
    """
    try:
        return _Reader(check_storage).read(data)
    except _Refused as refusal:
        raise DamagedFile(path, str(refusal)) from None
    except (IndexError, KeyError, TypeError, ValueError):
        raise DamagedFile(path, "damaged or forged: its structure (data.pkl) makes no sense") from None


def refuse(reason: str) -> NoReturn:
    """For ``check_storage``: the pickle is not read on."""
    raise _Refused(reason)


def _check_record(archive: Archive, key: str, count: int, item_size: int) -> None:
    size = archive.size(f"data/{key}")
    if size is None:
        refuse("damaged: a tensor's bytes are missing from the file")
    if count * item_size != size:
        refuse(f"damaged or forged: a tensor's storage claims {count} elements, its record has {size} bytes")


class _Reader:
    """A machine for the part of pickle protocol 2 that plain values and tensors need (Lib/pickletools.py)."""

    def __init__(self, check_storage: Callable[[str, int, int], None]) -> None:
        self.check_storage = check_storage
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def read(self, data: BytesIO) -> Any:
        start = data.tell()
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if count >= _MAX_OPERATIONS:
                raise _Refused(f"refused: its structure (data.pkl) takes more than {_MAX_OPERATIONS:,} operations")
            if opcode.name == "PROTO" and (argument, position) != (2, start):
                raise _Refused("refused: a pickle protocol that torch.save does not use")
            self.step(opcode, argument)
        if len(self.stack) != 1 or self.marks:
            raise _Refused("refused: there is more in its data.pkl than one value")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise ValueError("a mark is in the way")
        return self.stack.pop()

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """One opcode. The order is by how often ``torch.save`` writes them."""
        match opcode.name:
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "BINUNICODE" | "SHORT_BINSTRING" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                self.stack.append(_scalar(argument))
            case "MARK":
                self.marks.append(len(self.stack))
            case "TUPLE":
                self.stack.append(tuple(self.pop_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [self.pop() for _ in range(int(opcode.name[-1]))]
                self.stack.append(tuple(reversed(items)))
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "EMPTY_DICT":
                self.stack.append({})
            case "EMPTY_LIST":
                self.stack.append([])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "APPEND":
                self.extend([self.pop()])
            case "APPENDS":
                self.extend(self.pop_mark())
            case "SETITEM":
                self.update([self.pop(), self.pop()][::-1])
            case "SETITEMS":
                self.update(self.pop_mark())
            case "GLOBAL":
                self.stack.append(_name(argument))
            case "BINPERSID":
                self.stack.append(self.storage(self.pop()))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                self.stack.append(_call(function, arguments))
            case "BUILD":
                self.attributes(self.pop())
            case "PROTO" | "STOP":
                pass
            case _:
                raise _Refused(
                    f"refused: its data.pkl has a pickle operation (0x{ord(opcode.code):02x}) that is never needed for "
                    "tensors and plain values"
                )

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("not a list")
        target.extend(values)

    def update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise ValueError("not a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    def storage(self, reference: Any) -> _Storage:
        # The format from before 1.6 has a sixth value, which says what part of another storage this is.
        kind, storage_type, key, location, count, *view = reference
        if kind != "storage" or not isinstance(storage_type, _Name) or type(location) is not str or any(view):
            raise ValueError("not a storage")
        dtype, item_size = _ITEM_SIZES.get(storage_type.name, (None, 1))
        if storage_type.name not in _ITEM_SIZES and storage_type.name != "UntypedStorage":
            raise ValueError("not a storage type")
        if type(key) is not str or type(count) is not int:
            raise ValueError("not a storage")
        self.check_storage(key, count, item_size)
        return _Storage(dtype, item_size, key, count)

    def attributes(self, state: Any) -> None:
        """The ``_metadata`` (layer versions) of a module's ``OrderedDict``, not needed here; nothing else has any."""
        if type(self.stack[-1]) is not dict or type(state) is not dict or set(state) - {"_metadata"}:
            raise _Refused("refused: an object with attributes of its own")


def _scalar(value: Any) -> Any:
    if type(value) is int and not -(2**63) <= value < 2**64:
        raise _Refused("refused: an integer of more than 64 bits")
    if type(value) is str:
        value.encode()  # half of a surrogate pair, which pickle allows, could not be printed
    return value


def _key(value: Any) -> str | int:
    if type(value) not in (str, int):
        raise _Refused(f"refused: a dict key that is neither text nor an integer ({type(value).__name__})")
    return value  # type: ignore[no-any-return]


def _pairs(items: list[Any]) -> dict[str | int, Any]:
    if any(type(item) is not list or len(item) != 2 for item in items):
        raise ValueError("not pairs")
    return {_key(key): value for key, value in items}


def _name(argument: str) -> _Name:
    """Module and name, as ``pickletools`` joins them."""
    module, _, name = argument.partition(" ")
    if (module, name) in _FUNCTIONS or (module == "torch" and (name in _ITEM_SIZES or name in _NEWER_DTYPES)):
        return _Name(module, name)
    shown = f"{module}.{name}"[:120]
    raise _Refused(
        f"refused: it names the Python object {shown!r}, and a checkpoint may hold tensors and plain values only; "
        "nothing of it was run"
    )


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Name) or type(arguments) is not tuple:
        raise ValueError("not a call")
    match function.name:
        case "OrderedDict" if arguments == ():
            return {}
        case "OrderedDict" if len(arguments) == 1 and type(arguments[0]) is list:  # as Python 2 pickled it
            return _pairs(arguments[0])
        case "Size" if len(arguments) == 1:
            return _shape(arguments[0])
        case "_rebuild_tensor" if len(arguments) == 4:  # PyTorch before 0.4
            return _tensor(*arguments)
        case "_rebuild_tensor_v2" if len(arguments) == 6:
            return _tensor(*arguments[:4])
        case "_rebuild_tensor_v3" if len(arguments) == 7 and isinstance(arguments[6], _Name):
            return _tensor(*arguments[:4], dtype=arguments[6].name)
        case "_rebuild_parameter" if len(arguments) == 3 and isinstance(arguments[0], TensorSpec):
            return arguments[0]
    raise _Refused(f"refused: a call of {function.name} with other arguments than torch.save writes")


def _integer(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a size")
    return value


def _shape(value: Any) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > _MAX_DIMENSIONS:
        raise ValueError("not a shape")
    return tuple(map(_integer, value))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *, dtype: str | None = None) -> TensorSpec:
    """Refuses tensors that reach outside their storage or show elements twice (which would multiply in memory)."""
    if not isinstance(storage, _Storage):
        raise ValueError("not a tensor")
    shape, strides = _shape(shape), _shape(strides)
    item_size = storage.item_size
    if storage.dtype is None:
        if dtype not in _NEWER_DTYPES:
            raise ValueError("not a dtype")
        item_size = _NEWER_DTYPES[dtype]
    elif dtype is not None:
        raise ValueError("two dtypes")
    elements, last = 1, _integer(offset)
    for length, stride in zip(shape, strides, strict=True):
        elements *= length
        last += max(length - 1, 0) * stride
    available = storage.count * storage.item_size // item_size
    if elements and (last >= available or elements > available):
        raise _Refused(f"damaged or forged: a tensor of shape {list(shape)} does not fit into its {available} elements")
    return TensorSpec(dtype or storage.dtype or "", shape, storage.key, strides, offset)
