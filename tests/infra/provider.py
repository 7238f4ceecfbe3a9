"""A stand-in for Terraform's provider `google`: its schema and nothing behind it, so that the real Terraform validates
and plans infra/ without a registry, an account or a network.

Terraform starts a provider as a program and talks gRPC to it (protocol 5; messages are put together by hand here, a few
fields each). Everything that a provider would ask Google is answered from what was asked for: what only Google knows is
unknown in the plan, but for a project's number and the addresses of service accounts, which follow from their names.

    provider.py SCHEMA.json         as Terraform starts it
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from importlib import import_module
from pathlib import Path
from typing import Any

grpc: Any = import_module("grpc")  # both untyped: plain imports would not pass mypy
msgpack: Any = import_module("msgpack")

PROJECT_NUMBER = "123456789012"
UNKNOWN = msgpack.ExtType(0, b"\x00")
NESTING = {"single": 1, "list": 2, "set": 3}


class Google:
    """Answers Terraform's calls out of a schema (google_provider.json)."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._project = ""
        self.ended = threading.Event()
        self._calls: dict[str, dict[str, Callable[[bytes], bytes]]] = {
            "tfplugin5.Provider": {
                "GetSchema": self._get_schema,
                "PrepareProviderConfig": lambda request: _bytes(1, _fields(request)[1]),
                "ValidateResourceTypeConfig": _nothing,
                "ValidateDataSourceConfig": _nothing,
                "Configure": self._configure,
                "PlanResourceChange": self._plan,
                "ReadDataSource": self._read_data,
                "Stop": _nothing,
            },
            "plugin.GRPCController": {"Shutdown": self._shutdown},
        }

    def _get_schema(self, request: bytes) -> bytes:
        answer = _bytes(1, _schema(self._schema["provider"]))
        for number, group in ((2, "resources"), (3, "data_sources")):
            for name, block in self._schema[group].items():
                answer += _bytes(number, _bytes(1, name.encode()) + _bytes(2, _schema(block)))
        return answer

    def _configure(self, request: bytes) -> bytes:
        self._project = _value(_fields(request)[2])["project"]
        return b""

    def _plan(self, request: bytes) -> bytes:
        fields = _fields(request)
        name, proposed = fields[1].decode(), _value(fields[3])
        if proposed is not None:
            _leave_open(self._schema["resources"][name], proposed)
            if name == "google_service_account":
                proposed["email"] = f"{proposed['account_id']}@{self._project}.iam.gserviceaccount.com"
                proposed["member"] = f"serviceAccount:{proposed['email']}"
                proposed["id"] = f"projects/{self._project}/serviceAccounts/{proposed['email']}"
                proposed["name"] = proposed["id"]
        return _bytes(1, _dynamic(proposed)) + _number(5, 1)

    def _read_data(self, request: bytes) -> bytes:
        state = _value(_fields(request)[2])
        return _bytes(1, _dynamic({**state, "number": PROJECT_NUMBER, "id": f"projects/{self._project}"}))

    def _shutdown(self, request: bytes) -> bytes:
        self.ended.set()
        return b""

    def handlers(self) -> list[Any]:
        """For a gRPC server."""
        return [
            grpc.method_handlers_generic_handler(service, {name: _handler(call) for name, call in calls.items()})
            for service, calls in self._calls.items()
        ]


def _handler(call: Callable[[bytes], bytes]) -> Any:
    return grpc.unary_unary_rpc_method_handler(lambda request, context: call(request))


def _leave_open(block: Mapping[str, Any], value: dict[str, Any]) -> None:
    """Mark as unknown what the provider computes and nobody gave."""
    for name, attribute in block["attributes"].items():
        if attribute.get("computed") and value[name] is None:
            value[name] = UNKNOWN
    for name, inner in block["blocks"].items():
        for one in [value[name]] if inner["nesting"] == "single" else value[name]:
            if isinstance(one, dict):
                _leave_open(inner, one)


# --- messages -------------------------------------------------------------------------------------------


def _schema(block: Mapping[str, Any]) -> bytes:
    return _number(1, 1) + _bytes(2, _block(block))


def _block(block: Mapping[str, Any]) -> bytes:
    message = b""
    for name, one in block["attributes"].items():
        flags = ((4, "required"), (5, "optional"), (6, "computed"))
        message += _bytes(2, _bytes(1, name.encode()) + _bytes(2, json.dumps(one["type"]).encode())
                          + b"".join(_number(number, 1) for number, flag in flags if one.get(flag)))  # fmt: skip
    for name, one in block["blocks"].items():
        nested = _bytes(1, name.encode()) + _bytes(2, _block(one)) + _number(3, NESTING[one["nesting"]])
        message += _bytes(3, nested + _number(4, one["min"]) + _number(5, one["max"]))
    return message


def _dynamic(value: Any) -> bytes:
    return _bytes(1, msgpack.packb(value))


def _value(dynamic: bytes) -> Any:
    return msgpack.unpackb(_fields(dynamic)[1])


def _nothing(request: bytes) -> bytes:
    return b""


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _fields(message: bytes) -> dict[int, Any]:
    """Field number -> value (bytes or int) of one message."""
    fields: dict[int, Any] = {}
    rest = iter(message)
    for key in rest:
        tag = _read_varint(key, rest)
        size = _read_varint(next(rest), rest)
        fields[tag >> 3] = bytes(next(rest) for _ in range(size)) if tag & 7 == 2 else size
    return fields


def _read_varint(first: int, rest: Iterator[int]) -> int:
    value, shift = first & 0x7F, 7
    while first > 0x7F:
        first = next(rest)
        value |= (first & 0x7F) << shift
        shift += 7
    return value


def main() -> None:
    google = Google(json.loads(Path(sys.argv[1]).read_text()))
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers(google.handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"1|5|tcp|127.0.0.1:{port}|grpc", flush=True)
    google.ended.wait(timeout=120)
    server.stop(grace=None)


if __name__ == "__main__":
    main()
