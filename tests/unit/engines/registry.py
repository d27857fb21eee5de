"""A container registry for the tests. Arguments: port, and base64 credentials when it asks everybody to log in.

/v2/test/good:1     an image that can be fetched (one layer), also by digest
/v2/test/broken:1   its layer is missing: the error comes inside the progress stream
/v2/test/slow:1     its layer stops after 2 of 8 MiB, and never ends
anything else       404
"""
import gzip
import hashlib
import io
import json
import sys
import tarfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(sys.argv[1])
CREDENTIALS = sys.argv[2] if len(sys.argv) > 2 else None
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer():
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        info = tarfile.TarInfo("hello")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    return raw.getvalue()


RAW = layer()
LAYER = gzip.compress(RAW, mtime=0)


def build(layer_digest, note, size):
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Labels": {"note": note}},
                         "rootfs": {"type": "layers", "diff_ids": [digest(RAW)]},
                         "history": [{"created": "2020-01-01T00:00:00Z"}]}).encode()
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST,
                           "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
                                      "size": len(config), "digest": digest(config)},
                           "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                                       "size": size, "digest": layer_digest}]}).encode()
    return config, manifest


SLOW, MISSING = "sha256:" + "5" * 64, "sha256:" + "6" * 64
SLOW_SIZE = 8 << 20
BLOBS, MANIFESTS = {digest(LAYER): LAYER}, {}
for name, layer_digest in (("test/good", digest(LAYER)), ("test/broken", MISSING), ("test/slow", SLOW)):
    config, manifest = build(layer_digest, name, SLOW_SIZE if layer_digest == SLOW else len(LAYER))
    BLOBS[digest(config)] = config
    MANIFESTS[name, "1"] = MANIFESTS[name, digest(manifest)] = manifest


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body, kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code, **headers):
        self.answer(status, json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode(),
                    **headers)

    def do_GET(self):
        parts = self.path.strip("/").split("/")
        if CREDENTIALS and self.headers.get("Authorization") != "Basic " + CREDENTIALS:
            return self.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="test"')
        if parts == ["v2"]:
            return self.answer(200, b"{}")
        if len(parts) != 5:
            return self.error(404, "NAME_UNKNOWN")
        name = "/".join(parts[1:3])
        if parts[3] == "manifests" and (name, parts[4]) in MANIFESTS:
            body = MANIFESTS[name, parts[4]]
            return self.answer(200, body, MANIFEST, Docker_Content_Digest=digest(body))
        if parts[3] == "blobs" and parts[4] == SLOW:
            self.send_response(200)
            self.send_header("Content-Length", str(SLOW_SIZE))
            self.end_headers()
            self.wfile.write(bytes(SLOW_SIZE // 4))
            self.wfile.flush()
            time.sleep(60)
            return None
        if parts[3] == "blobs" and parts[4] in BLOBS:
            return self.answer(200, BLOBS[parts[4]], "application/octet-stream")
        return self.error(404, "MANIFEST_UNKNOWN" if parts[3] == "manifests" else "BLOB_UNKNOWN")

    do_HEAD = do_GET


server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
server.daemon_threads = True
server.serve_forever()
