#!/usr/bin/python3
"""Answers Docker's volume calls on a socket, in the agent's place: every volume is /flocker/NAME, a tmpfs with a file `hello`.

plugin_socket.py SOCKET
"""

import http.server
import json
import os
import socketserver
import subprocess
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):  # pylint: disable=invalid-name
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
        place = f"/flocker/{body.get('Name')}"
        if self.path == "/VolumeDriver.Mount" and not os.path.ismount(place):
            os.makedirs(place, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "volume", place], check=True)
            with open(f"{place}/hello", "w", encoding="ascii") as f:
                f.write("from the volume\n")
        answer = json.dumps({"Implements": ["VolumeDriver"], "Capabilities": {"Scope": "global"}, "Mountpoint": place, "Err": "",
                             "Volumes": [], "Volume": {"Name": body.get("Name"), "Mountpoint": place}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        return super().get_request()[0], ("docker", 0)


os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
Server(sys.argv[1], Handler).serve_forever()
