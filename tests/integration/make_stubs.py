"""Generates the Python stubs of proto/ into $GATEHOUSE_STUB_DIR, as a user of grpcio-tools would."""
import os
import pathlib
import shutil
import sys

import grpc_tools
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def main():
    out = pathlib.Path(os.environ["GATEHOUSE_STUB_DIR"])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    # protoc brings google/protobuf/*.proto itself; python_out alone suffices for messages without services.
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    return protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}",
                        *files])


if __name__ == "__main__":
    sys.exit(main())
