"""How fast the Docker volume plugin answers at its socket."""

import statistics
import time
import uuid

from hosts import Hosts
from report import emit, memory, MIB, say

from plugin_client import Plugin  # of tests/cluster, as lab is

ROUNDS = 200
LISTS = 30
VOLUMES = 10000


class Volumes(Hosts):
    """One host; nobody but this asks."""

    def __init__(self):
        super().__init__(nodes=1, backend="btrfs", docker=False)
        self.plugin = Plugin(self.cluster.path("h1", "run"))
        self.wait(lambda: self.plugin.call("/Plugin.Activate"), "the plugin answers")

    def timed(self, connection, name, **body):
        begun = time.monotonic()
        self.plugin.ok(name, connection, **body)
        return 1000 * (time.monotonic() - begun)

    def plugin_mount(self):
        connection = self.plugin.session()
        self.plugin.ok("Create", connection, Name="bench", Opts={"size": "1G"})
        self.plugin.ok("Mount", connection, Name="bench", ID="first")
        mounts, unmounts, paths = [], [], []
        for i in range(ROUNDS):
            mounts.append(self.timed(connection, "Mount", Name="bench", ID=f"mount-{i}"))
            paths.append(self.timed(connection, "Path", Name="bench"))
            unmounts.append(self.timed(connection, "Unmount", Name="bench", ID=f"mount-{i}"))
        self.plugin.ok("Unmount", connection, Name="bench", ID="first")
        self.plugin.ok("Remove", connection, Name="bench")
        connection.close()
        return emit("plugin_mount", statistics.median(mounts), "ms", goal=5, p99=round(statistics.quantiles(mounts, n=100)[98], 2),
                    unmount=round(statistics.median(unmounts), 2), path=round(statistics.median(paths), 2), rounds=ROUNDS)

    def plugin_list(self):
        nobody = str(uuid.uuid4())
        pid = self.pid("h1", "agent")
        before = memory(pid)[0]
        say(f"creating {VOLUMES} volumes")
        for i in range(VOLUMES):
            self.call("POST", "/v1/configuration/datasets", {
                "primary": nobody, "maximum_size": 1 << 30, "metadata": {"name": f"volume-{i:05}", "team": "red"}})
        connection = self.plugin.session()
        self.wait(lambda: len(self.plugin.ok("List", connection)["Volumes"]) == VOLUMES, "all volumes are listed", 120, 0.5)
        # Only the answer's way is measured, not what Python makes of it.
        lists, size = [], 0
        for _ in range(LISTS):
            begun = time.monotonic()
            connection.request("POST", "/VolumeDriver.List", "{}")
            size = len(connection.getresponse().read())
            lists.append(1000 * (time.monotonic() - begun))
        get = statistics.median(self.timed(connection, "Get", Name="volume-05000") for _ in range(LISTS))
        connection.close()
        return emit("plugin_list", statistics.median(lists), "ms", goal=20, max=round(max(lists), 1), volumes=VOLUMES,
                    kilobytes=round(size / 1024), get=round(get, 2), agent_mib=round((memory(pid)[0] - before) / MIB, 1))
