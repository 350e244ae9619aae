"""Reads Flower's serialized messages without Flower: Parameters, ArrayRecord, RecordDict, Message (protocol buffers).

The descriptions below hold only what carries arrays; protocol buffers skip the rest. The numbers of fields are those of
Flower's .proto files, which do not change between versions.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from leakpipe.captured.arrays import read_npy_bytes
from leakpipe.captured.state import CapturedState, listed_tensors, named_tensors
from leakpipe.errors import LeakpipeError

# Message → field → its number and type ("+" for a repeated one); a capital begins the name of another message.
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Parameters": {"tensors": (1, "bytes+"), "tensor_type": (2, "string")},
    "Array": {"stype": (3, "string"), "data": (4, "bytes")},
    "ArrayItem": {"key": (1, "string"), "value": (2, "Array")},
    "ArrayRecord": {"items": (1, "ArrayItem+")},
    "RecordItem": {"key": (1, "string"), "array_record": (2, "ArrayRecord")},
    "RecordDict": {"items": (1, "RecordItem+")},
    "Message": {"content": (2, "RecordDict")},
}
SERIALIZED = "numpy.ndarray"  # `tensor_type` and `stype` of arrays as `numpy.save` writes them


def read_flower(path: Path) -> CapturedState | None:
    """Reads the arrays of a message of Flower's; None where the file is none.

    Raises:
        LeakpipeError: protobuf is not installed; or the message has several records of arrays, or damaged ones.
    """
    try:
        messages = _messages()
    except ImportError as error:
        raise LeakpipeError(
            f"{path}: is no other format, and Flower's messages need protobuf to be read: "
            "pip install 'leakpipe[frameworks]'"
        ) from error
    from google.protobuf.message import DecodeError

    content = path.read_bytes()
    for name in ("Parameters", "ArrayRecord", "RecordDict", "Message"):
        try:
            message = messages[name].FromString(content)
        except DecodeError:
            continue
        if found := _read(path, name, message):
            return found
    return None


def _read(path: Path, name: str, message: Any) -> CapturedState | None:
    """Returns the arrays where the bytes are indeed such a message: any bytes may parse, but say no `SERIALIZED`."""
    notes = (f"{path.name}: a message of Flower ({name}).",)
    if name == "Parameters":
        if message.tensor_type != SERIALIZED:
            return None
        arrays = [read_npy_bytes(path, str(at), content) for at, content in enumerate(message.tensors)]
        return CapturedState(path, listed_tensors(path, arrays), positional=True, notes=notes)
    records = [*_records(name, message)]
    found = [{item.key: item.value for item in record.items} for record in records]
    found = [items for items in found if items and all(value.stype == SERIALIZED for value in items.values())]
    if not found:
        return None
    if len(found) > 1:
        raise LeakpipeError(f"{path}: holds {len(found)} records of arrays, expected those of one network")
    named = {key: read_npy_bytes(path, key, value.data) for key, value in found[0].items()}
    if [*named] == [str(at) for at in range(len(named))]:  # as `ArrayRecord.from_numpy_ndarrays` names them
        return CapturedState(path, listed_tensors(path, named.values()), positional=True, notes=notes)
    return CapturedState(path, named_tensors(path, named), notes=notes)


def _records(name: str, message: Any) -> Iterator[Any]:
    if name == "ArrayRecord":
        yield message
    else:
        items = message.items if name == "RecordDict" else message.content.items
        yield from (item.array_record for item in items)


@cache
def _messages() -> Mapping[str, Any]:
    """Builds the classes of `MESSAGES`, in a pool of their own: Flower may be imported beside them."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="leakpipe/flower.proto", package="leakpipe", syntax="proto3")
    for name, fields in MESSAGES.items():
        described = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            plain = kind.removesuffix("+")
            label = kinds.LABEL_REPEATED if kind != plain else kinds.LABEL_OPTIONAL
            added = described.field.add(name=field, number=number, label=label)
            if plain in MESSAGES:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".leakpipe.{plain}"
            else:
                added.type = {"bytes": kinds.TYPE_BYTES, "string": kinds.TYPE_STRING}[plain]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"leakpipe.{name}")) for name in MESSAGES}
