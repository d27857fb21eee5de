"""What the benchmarks share that need hosts: a cluster of the lab, and quick ways to use it."""

import http.client
import json
import os
import ssl
import subprocess

from report import lab


class Hosts:
    """A cluster of the lab, and what benchmarks do with it."""

    def __init__(self, **cluster):
        self.cluster = lab.Cluster(**cluster)
        self.api = self.cluster.api
        self.connection = self.api.session()
        self.hosts = {name: host["pid"] for name, host in self.cluster.status()["hosts"].items()}

    def down(self):
        self.cluster.down()

    # --- tools -----------------------------------------------------------------------------------------------------

    def call(self, method, path, body=None, status=(200, 201)):
        """A request on a connection that is kept."""
        try:
            self.connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = self.connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError):  # it was idle for too long
            self.connection.close()
            self.connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = self.connection.getresponse()
        text = answer.read()
        if answer.status not in status:
            raise lab.ApiError(answer.status, text.decode(errors="replace"), f"{method} {path}")
        return json.loads(text)

    def enter(self, host, *argv):
        """argv as it runs on a host, without lab/cluster's own start-up time."""
        if host == "client":
            return ["nsenter", "-t", str(self.hosts["client"]), "-n", "--", *argv]
        return ["nsenter", "-t", str(self.hosts[host]), "-m", "-u", "-i", "-n", "-p", "--", *argv]

    def on(self, host, *argv, timeout=120):
        done = subprocess.run(self.enter(host, *argv), capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=timeout, env=self.environment())
        if done.returncode != 0:
            raise lab.ApiError(done.returncode, done.stderr or done.stdout, f"{' '.join(argv[:4])} on {host}")
        return done.stdout

    def environment(self):
        """With the cluster's mark: `lab/cluster down` ends what is left."""
        return {**os.environ, "FLOCKER_LAB_MARK": self.cluster.directory, "LC_ALL": "C.UTF-8"}

    def pid(self, host, process):
        return self.cluster.process_pid(host, process)

    def node(self, host):
        return self.cluster.node(host)

    def create_datasets(self, host, count):
        made = [self.call("POST", "/v1/configuration/datasets", {"primary": self.node(host)})["dataset_id"]
                for _ in range(count)]
        wanted = set(made)
        self.wait(lambda: wanted <= {d["dataset_id"] for d in self.call("GET", "/v1/state/datasets") if "path" in d},
                  f"{count} datasets on {host}", 120, 0.1)
        return made

    def delete_datasets(self, datasets):
        for dataset in datasets:
            self.call("DELETE", f"/v1/configuration/datasets/{dataset}")
        gone = set(datasets)
        self.wait(lambda: not gone & {d["dataset_id"] for d in self.call("GET", "/v1/state/datasets")},
                  "the datasets are gone", 120, 0.1)

    def wait(self, test, what, timeout=60, interval=0.005):
        return lab.wait_until(test, what, timeout, interval, tolerate=())
