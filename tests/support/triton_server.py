"""A stand-in for Triton: one model behind its HTTP protocol, and its own reading of a configuration."""

import importlib.util
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution

import numpy as np
from google.protobuf import json_format, text_format

OPTIONS = {
    "model_name": "critic-2_b",
    "model_version": 3,
    "served_versions": 2,
    "backends": ["onnxruntime", "tensorrt"],
    "max_batch_size": 8,
    "preferred_batch_sizes": [4, 8],
    "queue_delay": 250,
    "max_length": 48,
    "padding_multiple": 16,
    "instance_kind": "cpu",
    "instances": 2,
    "operator_threads": 1,
}


def load_model_config():
    """Triton's `ModelConfig`. Importing it from `tritonclient.grpc` would want grpcio as well."""
    path = distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


ModelConfig = load_model_config()


def read_config(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), ModelConfig())


class Server(ThreadingHTTPServer):
    """One model by the KServe v2 protocol with its binary extension; as strict as the configuration."""

    def __init__(self, config, session):
        super().__init__(("127.0.0.1", 0), Handler)
        self.config, self.session, self.shapes = config, session, []
        self.url = f"127.0.0.1:{self.server_port}"

    def metadata(self):
        return {
            "name": self.config.name,
            "inputs": [self.tensor_metadata(tensor) for tensor in self.config.input],
            "outputs": [self.tensor_metadata(tensor) for tensor in self.config.output],
        }

    def tensor_metadata(self, tensor):
        kind = ModelConfig.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[tensor.data_type]
        name = kind.name.removeprefix("TYPE_")
        return {"name": tensor.name, "datatype": name, "shape": self.shape(tensor)}

    def shape(self, tensor):
        return [-1, *tensor.dims] if self.config.max_batch_size else [*tensor.dims]

    def infer(self, request, binary):
        """The answer's header and tensor; a ValueError where Triton would refuse."""
        stated = {entry["name"]: entry for entry in self.metadata()["inputs"]}
        if {entry["name"] for entry in request["inputs"]} != set(stated):
            raise ValueError("the inputs are not those of the configuration")
        feeds = {}
        for entry in request["inputs"]:
            size = entry["parameters"]["binary_data_size"]
            data, binary = binary[:size], binary[size:]
            texts, length = entry["shape"]
            if entry["datatype"] != stated[entry["name"]]["datatype"] or stated[entry["name"]]["shape"] != [
                -1,
                -1,
            ]:
                raise ValueError("a datatype or shape is not that of the configuration")
            if texts < 1 or 0 < self.config.max_batch_size < texts:
                raise ValueError("more texts than max_batch_size")
            feeds[entry["name"]] = np.frombuffer(data, dtype=np.int64).reshape(texts, length)
        self.shapes.append(feeds["input_ids"].shape)
        (logits,) = self.session.run([self.config.output[0].name], feeds)
        output = {
            "name": self.config.output[0].name,
            "datatype": self.metadata()["outputs"][0]["datatype"],
            "shape": list(logits.shape),
            "parameters": {"binary_data_size": logits.nbytes},
        }
        return {"model_name": self.config.name, "outputs": [output]}, logits.tobytes()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path = f"/v2/models/{self.server.config.name}"
        if self.path == path:
            self.reply(200, self.server.metadata())
        elif self.path == f"{path}/config":
            value = json_format.MessageToDict(
                self.server.config,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            self.reply(200, value)
        else:
            self.reply(400, {"error": "Request for unknown model"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = int(self.headers["Inference-Header-Content-Length"])
        try:
            header, tensor = self.server.infer(json.loads(body[:length]), body[length:])
        except ValueError as error:
            self.reply(400, {"error": str(error)})
        else:
            self.reply(200, header, tensor)

    def reply(self, status, value, binary=b""):
        header = json.dumps(value).encode()
        self.send_response(status)
        if binary:
            self.send_header("Inference-Header-Content-Length", str(len(header)))
        self.send_header("Content-Length", str(len(header) + len(binary)))
        self.end_headers()
        self.wfile.write(header + binary)
