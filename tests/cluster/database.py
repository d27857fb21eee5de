"""A PostgreSQL in the container `db`, whose data are one dataset."""

from lab import wait_until
from volumes import Guard, is_mounted, wait_settled

SQL = "docker exec flocker--db psql -h /tmp -U postgres -qtAc"
SUMS = "select count(*), md5(string_agg(h, '' order by n)) from t"


class Database:
    def __init__(self, cluster, dataset, host, timeout=120):
        self.cluster, self.dataset = cluster, dataset
        cluster.api.create_container(cluster.node(host), "db", "flocker-lab/postgres:1",
                                     volumes=[{"dataset_id": dataset, "mountpoint": "/data"}])
        self.wait(host, timeout)

    def wait(self, host, timeout=120):
        self.cluster.wait_container("db", host, timeout)
        wait_until(lambda: self.cluster.shell(host, f"{SQL} 'select 1'", check=False).strip() == "1", f"PostgreSQL answers on {host}", 90)

    def sql(self, host, text):
        return self.cluster.shell(host, f'{SQL} "{text}"').strip()

    def fill(self, host, rows):
        """Makes the table t; what sums() is to say from then on."""
        self.sql(host, f"create table t as select n, md5(n::text) as h from generate_series(1, {rows}) n")
        sums = self.sums(host)
        assert sums.startswith(f"{rows}|")
        return sums

    def sums(self, host):
        return self.sql(host, SUMS)

    def move(self, host, timeout=120):
        self.cluster.api.move_container("db", self.cluster.node(host))
        self.wait(host, timeout)

    def delete(self):
        self.cluster.api.delete_container("db")
        wait_until(lambda: not [c for c in self.cluster.api.container_states() if c["name"] == "db"], "the container has gone", 60)


def move_there_and_back(cluster, dataset, hosts, rows=20000):
    """A database on the dataset, which is or comes to be on the first of two hosts, moves to the second and back; each time all that was committed is
    there, and nothing is mounted where it was. The container is gone at the end."""
    here, there = hosts
    db = Database(cluster, dataset, here)
    expected = db.fill(here, rows)
    with Guard(cluster, dataset, hosts):
        for source, target in ((here, there), (there, here)):
            db.move(target)
            wait_settled(cluster, dataset, target, [source], 60)
            assert not is_mounted(cluster, source, dataset)
            assert db.sums(target) == expected
            db.sql(target, f"insert into t values (0, 'committed on {target}')")
            expected = db.sums(target)
    db.delete()
