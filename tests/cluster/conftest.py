"""Fixtures of the cluster tests.

A module says what it needs with a global, and its tests take `cluster`:

    CLUSTER = {"nodes": 3, "backend": "btrfs", "docker": True, "images": ["busybox"]}

`images` are loaded into every host's Docker. `backend` may be a list: then every test runs once for each; with a global
ONLY = {"zfs": ["test_x"]} only the tests named there run for that backend. The cluster is made once a module (and backend),
so tests leave it healthy and use datasets of their own. A test that ruins its cluster
makes one with `make_cluster(...)`.
Every test has a deadline (default 180 s; @pytest.mark.deadline(seconds) sets another).
"""

import os
import shutil
import signal
import sys

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import lab  # noqa: E402 pylint: disable=wrong-import-position
import stack  # noqa: E402 pylint: disable=wrong-import-position

DEADLINE = 180
FULL = os.environ.get("FLOCKER_TEST_FULL", "") not in ("", "0")


def pytest_configure(config):
    config.addinivalue_line("markers", "deadline(seconds): how long the test may take")


def pytest_sessionstart():
    if os.geteuid() != 0:
        pytest.exit("the cluster tests need root", returncode=3)
    if shutil.which("dockerd") is None:
        pytest.exit("the cluster tests need Docker and more; run: scripts/install-deps --for check", returncode=3)


def pytest_collection_modifyitems(items):
    # Modules with containers, and those that say so, take longest. When several modules run at a time, none of these is
    # left for the end.
    def is_long(item):
        return getattr(item.module, "LONG", False) or ("cluster" in item.fixturenames and item.module.CLUSTER.get("docker"))
    items.sort(key=lambda item: not is_long(item))


def pytest_generate_tests(metafunc):
    if "cluster" in metafunc.fixturenames:
        backends = metafunc.module.CLUSTER.get("backend", "btrfs")
        if isinstance(backends, str):
            backends = [backends]
        only = getattr(metafunc.module, "ONLY", {})
        backends = [b for b in backends if metafunc.function.__name__ in only.get(b, [metafunc.function.__name__])]
        # pytest makes a fixture anew when its parameter is another object: these are the same for all tests of a module.
        metafunc.parametrize("cluster", backends, indirect=True, scope="module")


def new_cluster(**settings):
    if settings.get("backend") == "zfs" and not (shutil.which("zfs-fuse") and os.path.exists("/dev/fuse")):
        pytest.skip("needs zfs-fuse and /dev/fuse: scripts/install-deps installs it where Debian has it (12; 13 has none)")
    if settings.get("backend") != "openstack":
        return lab.Cluster(**settings)
    if not stack.is_built():
        pytest.skip("needs an OpenStack (lab/openstack build, some minutes)")
    return stack.StackCluster(**settings)


@pytest.fixture(scope="module")
def cluster(request):
    """The module's cluster."""
    made = new_cluster(**{**request.module.CLUSTER, "backend": request.param})
    yield made
    made.down()


@pytest.fixture
def make_cluster(request):
    """Makes clusters that live as long as the test."""
    made = []
    request.node.lab_clusters = made

    def make(**settings):
        made.append(new_cluster(**settings))
        return made[-1]
    yield make
    for one in made:
        one.down()


@pytest.fixture(scope="session")
def full():
    """Are large counts asked for (make check-full)?"""
    return FULL


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """Ends a test that hangs, from inside, so that its fixtures still clean up."""
    mark = item.get_closest_marker("deadline")
    seconds = mark.args[0] if mark else DEADLINE

    def expire(*_):
        raise lab.WaitTimeout(f"the test took more than {seconds} s")
    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds * (5 if FULL else 1))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if call.when != "call" or not report.failed:
        return
    clusters = list(getattr(item, "lab_clusters", []))
    if isinstance(getattr(item, "funcargs", {}).get("cluster"), lab.Cluster):
        clusters.append(item.funcargs["cluster"])
    for one in clusters:
        try:
            report.sections.append((f"cluster {one.directory}", one.report()))
        except Exception as e:  # pylint: disable=broad-except
            report.sections.append((f"cluster {one.directory}", f"no report: {e!r}"))
